// The tensor-core product that every kernel here is made of: D[16 x 8] += A[16 x k] B[k x 8], k as many
// numbers as 64 bytes hold, added up in float32. The order of k is free as long as A and B agree, so a lane
// takes 16 bytes in a row of each: lane 4g+t holds bytes 16t..16t+15 of rows g (`top`) and g+8 (`bottom`) of
// A, and of column g of B. It gets D of rows g (d[0], d[1]) and g+8 (d[2], d[3]), columns 2t and 2t+1.
#pragma once
#include <device/number.h>

namespace fusegen::device {

// What the multipliers take: 16-bit numbers, float32 rounded to TF32, or float32 as the sum of two TF32
// numbers (../multiply.h).
struct FormatBf16 {};
struct FormatF16 {};
struct FormatTf32 {};
struct FormatF32 {};

// A lane's part of A, in the order in which the instructions take it: two of them, four registers each.
struct Fragment {
  uint32_t a[8];
};

FUSEGEN_DEVICE Fragment fragment(const Word4& top, const Word4& bottom) {
  return {{top.x, bottom.x, top.y, bottom.y, top.z, bottom.z, top.w, bottom.w}};
}

// The same, in registers of its own. A load of 16 bytes wants its four registers side by side, an instruction
// its own four; the compiler settles that by four moves before each use, in every step. An operation that it
// cannot see through, on numbers that are kept for many steps, settles it once: blocks have one dimension, so
// %tid.y is 0.
FUSEGEN_DEVICE Fragment settled(Fragment f) {
  uint32_t zero;
  asm volatile("mov.u32 %0, %%tid.y;" : "=r"(zero));
#pragma unroll
  for (uint32_t& bits : f.a) bits |= zero;
  return f;
}

// The nearest TF32 number; infinity and NaN stay. One instruction from 9.0 on (ties to even; before, away
// from zero). Exponents are float32's. Volatile: else the compiler would split what a lane keeps in registers
// ahead of all steps, into twice the registers.
FUSEGEN_DEVICE uint32_t tf32(uint32_t bits) {
  uint32_t r;
#if __CUDA_ARCH__ >= 900
  asm volatile("cvt.rn.tf32.f32 %0, %1;" : "=r"(r) : "r"(bits));
#else
  asm volatile("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "r"(bits));
#endif
  return r;
}

namespace detail {

FUSEGEN_DEVICE void mma(FormatBf16, float (&d)[4], const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
FUSEGEN_DEVICE void mma(FormatF16, float (&d)[4], const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
FUSEGEN_DEVICE void mma(FormatTf32, float (&d)[4], const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace detail

// One product, by two instructions that do not wait for each other where `even` and `odd` are two. Of numbers
// that are not TF32, FormatTf32 reads the upper 19 bits.
template <class Format>
FUSEGEN_DEVICE void multiply_add(Format format, float (&even)[4], float (&odd)[4], const Fragment& a,
                                 const Word4& b) {
  detail::mma(format, even, a.a, b.x, b.y);
  detail::mma(format, odd, a.a + 4, b.z, b.w);
}

}  // namespace fusegen::device
