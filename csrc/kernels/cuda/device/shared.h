// Places in the block's shared memory by their address there, 32 bits. The compiler forms the address of
// shared_memory() anew wherever it is used, in a cluster from a special register that takes some 20 cycles to
// read, and knows a pointer's memory only as long as it sees where it comes from; a place is formed once, and
// is shared by its type.
#pragma once
#include <device/exchange.h>

namespace fusegen::device {

// Of what is computed once per kernel: `x` stays in a register, where the compiler would otherwise form it
// anew in each step.
FUSEGEN_DEVICE int in_register(int x) {
  int y;
  asm volatile("mov.b32 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// The first or the second, both computed: the compiler would otherwise branch around what one of them needs.
FUSEGEN_DEVICE float select(bool first, float a, float b) {
  float r;
  asm("{\n.reg .pred p;\nsetp.ne.u32 p, %3, 0;\nselp.f32 %0, %1, %2, p;\n}"
      : "=f"(r)
      : "f"(a), "f"(b), "r"(static_cast<uint32_t>(first)));
  return r;
}

struct Shared {
  uint32_t at;
  FUSEGEN_DEVICE Shared operator+(int bytes) const { return {at + static_cast<uint32_t>(bytes)}; }
};

FUSEGEN_DEVICE Shared in_register(Shared x) {
  return {static_cast<uint32_t>(in_register(static_cast<int>(x.at)))};
}

// The start of shared_memory().
FUSEGEN_DEVICE Shared shared_start() {
  Shared s;
  asm volatile("mov.u32 %0, %1;"
               : "=r"(s.at)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared_memory()))));
  return s;
}

FUSEGEN_DEVICE Word4 load16(Shared from) {
  Word4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(from.at)
               : "memory");
  return v;
}
FUSEGEN_DEVICE void store16(Shared to, Word4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to.at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
FUSEGEN_DEVICE void store8(Shared to, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to.at), "f"(x), "f"(y) : "memory");
}
// Of numbers of two and of four bytes.
template <class N>
FUSEGEN_DEVICE N load(Shared from) {
  static_assert(sizeof(N) == 2 || sizeof(N) == 4);
  if constexpr (sizeof(N) == 2) {
    uint16_t bits;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bits) : "r"(from.at) : "memory");
    return {bits};
  } else {
    uint32_t bits;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(bits) : "r"(from.at) : "memory");
    return *reinterpret_cast<const N*>(&bits);
  }
}
FUSEGEN_DEVICE void store(Shared to, float x) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(to.at), "f"(x) : "memory");
}
FUSEGEN_DEVICE void store(Shared to, int x) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(to.at), "r"(x) : "memory");
}
template <class N>
FUSEGEN_DEVICE void store(Shared to, N x) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(to.at), "h"(x.bits) : "memory");
}

// -- What copy.h and exchange.h do, at such a place --

FUSEGEN_DEVICE void copy16_async(Shared to, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to.at), "l"(global) : "memory");
}
// The same of the first `bytes`, 0 to 16; the rest becomes zero and is not read.
FUSEGEN_DEVICE void copy_some_of_16_async(Shared to, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to.at), "l"(global), "r"(bytes)
               : "memory");
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
FUSEGEN_DEVICE void arm(Shared b, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(b.at), "r"(bytes) : "memory");
}
FUSEGEN_DEVICE bool phase_over(Shared b, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(over)
      : "r"(b.at), "r"(parity)
      : "memory");
  return over;
}
FUSEGEN_DEVICE Remote remote(Shared here, int rank) {
  Remote there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here.at), "r"(rank));
  return there;
}
#else
FUSEGEN_DEVICE void arm(Shared, uint32_t) {}
FUSEGEN_DEVICE bool phase_over(Shared, uint32_t) { return true; }
FUSEGEN_DEVICE Remote remote(Shared, int) { return 0; }
#endif

}  // namespace fusegen::device
