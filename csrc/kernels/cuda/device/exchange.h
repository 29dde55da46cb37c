// How blocks hand each other data: flags in global memory, and inside a cluster asynchronous stores into each
// other's shared memory that count bytes on a barrier there.
#pragma once
#include <device/number.h>

namespace fusegen::device {

// -- Flags through L2 --

FUSEGEN_DEVICE uint32_t load_acquire(const uint32_t* p) {
  uint32_t v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}

// Four flags at once, 16-byte aligned.
FUSEGEN_DEVICE Word4 load_acquire16(const uint32_t* p) {
  Word4 v;
  asm volatile("ld.acquire.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p)
               : "memory");
  return v;
}

// Also orders what the whole block wrote before the block barrier that precedes this call: a release counts
// for all that its lane has seen.
FUSEGEN_DEVICE void store_release(uint32_t* p, uint32_t v) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

// Orders nothing; lanes that look at the word meanwhile see what was there before or this.
FUSEGEN_DEVICE void store_relaxed(uint32_t* p, uint32_t v) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

// To a word of host memory, if 0 stands there: of all lanes the first wins. Over PCIe this is atomic among
// the device's lanes alone, which is enough: the host reads whole words, and clears them.
FUSEGEN_DEVICE void store_first(int64_t* p, int64_t v) {
  [[maybe_unused]] int64_t before;
  asm volatile("atom.relaxed.sys.global.cas.b64 %0, [%1], %2, %3;"
               : "=l"(before)
               : "l"(p), "l"(int64_t{0}), "l"(v)
               : "memory");
}

// -- Clusters: sm_90 and later --

// in shared memory: one arrival, by arm(), and the bytes it expects, end a phase
using ByteBarrier = uint64_t;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
FUSEGEN_DEVICE bool has_clusters() { return true; }
FUSEGEN_DEVICE uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

FUSEGEN_DEVICE void cluster_sync() {
  __syncwarp();  // aligned: by whole warps
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
FUSEGEN_DEVICE void start(ByteBarrier* b) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(b)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
FUSEGEN_DEVICE void arm(ByteBarrier* b, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
               : "memory");
}
FUSEGEN_DEVICE bool phase_over(ByteBarrier* b, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(over)
      : "r"(shared_address(b)), "r"(parity)
      : "memory");
  return over;
}
// A place in the shared memory of a block of the cluster; bytes may be added to it.
using Remote = uint32_t;
// What `shared` names here, in block `rank`.
FUSEGEN_DEVICE Remote remote(const void* shared, int rank) {
  Remote there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(shared)), "r"(rank));
  return there;
}
// 16 bytes, counted on a barrier of the same block.
FUSEGEN_DEVICE void send16(Remote to, Remote barrier, Word4 v) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
      "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(barrier)
      : "memory");
}
// 16 bytes to the place that `shared` names here, in block `rank` of the cluster; counted on its barrier.
FUSEGEN_DEVICE void send16(void* shared, ByteBarrier* barrier, int rank, Word4 v) {
  send16(remote(shared, rank), remote(barrier, rank), v);
}
#else  // no plan takes clusters where this is the code that runs; whoever does all the same asks first
FUSEGEN_DEVICE bool has_clusters() { return false; }
FUSEGEN_DEVICE void cluster_sync() {}
FUSEGEN_DEVICE void start(ByteBarrier*) {}
FUSEGEN_DEVICE void arm(ByteBarrier*, uint32_t) {}
FUSEGEN_DEVICE bool phase_over(ByteBarrier*, uint32_t) { return true; }
using Remote = uint32_t;
FUSEGEN_DEVICE Remote remote(const void*, int) { return 0; }
FUSEGEN_DEVICE void send16(Remote, Remote, Word4) {}
FUSEGEN_DEVICE void send16(void*, ByteBarrier*, int, Word4) {}
#endif

}  // namespace fusegen::device
