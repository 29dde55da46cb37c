// Products of a warpgroup, four warps beside each other, that read operands from shared memory while the
// warps go on: D[64 x N] += A[64 x 16] B[16 x N] of 16-bit numbers, added up in float32; both operands in
// shared memory and N 128, or A in registers and N 32 or 64. Machine code of sm_90a alone has them; elsewhere
// kHasWarpgroups is false and nothing here may be reached.
//
// Warp w of the four gets rows 16w .. 16w + 15 of D, in sums [n / 8][4] as product() of mma.h.
//
// Operands lie in one of two ways, from 1024-byte aligned memory on (PTX ISA, "matrix descriptor" of wgmma):
// - along: rows of 64 bytes, 32 numbers along K, on end; word w of row r at place w ^ r / 2 % 4.
// - across: for each k a row of 128 bytes, 64 numbers across K, on end; word w of row k at place w ^ k % 8.
// B's
//   second 64 columns begin `leading` bytes behind the first.
#pragma once
#include <device/mma.h>

namespace fusegen::device {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kHasWarpgroups = true;
#else
constexpr bool kHasWarpgroups = false;
#endif

struct SharedMatrix {
  uint64_t descriptor;
};

namespace detail {

// Offsets in bytes; `swizzle` 1: of 128 bytes, 2: of 64.
FUSEGEN_DEVICE SharedMatrix shared_matrix(const void* start, int leading, int stride, uint64_t swizzle) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(start));
  return {(address & 0x3ffff) >> 4 | static_cast<uint64_t>(leading >> 4) << 16 |
          static_cast<uint64_t>(stride >> 4) << 32 | swizzle << 62};
}

}  // namespace detail

// 16 numbers along K of rows that lie along it: `start` is the first row, or 32 bytes behind it.
FUSEGEN_DEVICE SharedMatrix matrix_along(const void* start) {
  return detail::shared_matrix(start, 16, 512, 2);
}
// 16 rows that lie across K, from a multiple of 8 on.
FUSEGEN_DEVICE SharedMatrix matrix_across(const void* start, int leading) {
  return detail::shared_matrix(start, leading, 1024, 1);
}

// Before the barrier that hands shared memory, written by ordinary stores and copies, to products.
FUSEGEN_DEVICE void fence_for_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Before the first product behind other writes of the sums.
FUSEGEN_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Closes a group of products, those asked for since the last group.
FUSEGEN_DEVICE void end_product_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all but the last `open` groups are done: their operands are free, their sums there.
template <int open>
FUSEGEN_DEVICE void product_groups_done() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(open) : "memory");
}

#define FUSEGEN_WARPGROUP_PRODUCT(number)                                                                \
  asm volatile(                                                                                          \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." number "." number                                   \
      " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25," \
      "%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49," \
      "%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, %64, %65, 1, 1, 1, %66, %67;"           \
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),        \
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),        \
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),        \
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),        \
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),        \
        "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]),        \
        "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),      \
        "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]),  \
        "+f"(d[12][0]), "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]), "+f"(d[13][0]), "+f"(d[13][1]),  \
        "+f"(d[13][2]), "+f"(d[13][3]), "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]),  \
        "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]), "+f"(d[15][3])                                   \
      : "l"(a.descriptor), "l"(b.descriptor), "n"(across_a), "n"(across_b))

// By all lanes of the four warps; `d` must not be touched before its group is done.
template <int across_a, int across_b>
FUSEGEN_DEVICE void warpgroup_product(FormatBf16, float (&d)[16][4], SharedMatrix a, SharedMatrix b) {
  FUSEGEN_WARPGROUP_PRODUCT("bf16");
}
template <int across_a, int across_b>
FUSEGEN_DEVICE void warpgroup_product(FormatF16, float (&d)[16][4], SharedMatrix a, SharedMatrix b) {
  FUSEGEN_WARPGROUP_PRODUCT("f16");
}
#undef FUSEGEN_WARPGROUP_PRODUCT

#define FUSEGEN_WARPGROUP_PRODUCT_32(number)                                                               \
  asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32." number "." number                             \
               " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, 1, 1,"   \
               " 1, 0;"                                                                                    \
               : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), \
                 "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), \
                 "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3])                                \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor))

#define FUSEGEN_WARPGROUP_PRODUCT_64(number)                                                               \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." number "." number                             \
               " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"  \
               "%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, 1, 1, 1, 0;"                     \
               : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), \
                 "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), \
                 "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), \
                 "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), \
                 "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]), \
                 "+f"(d[7][2]), "+f"(d[7][3])                                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor))

// The same with 16 rows of A in each warp's registers, as device/mma.h's fragments have them but for the
// order of k: a[i] is row lane / 4 + 8 (i % 2), numbers lane % 4 * 2 + 8 (i / 2) and the next. B's rows lie
// along K.
FUSEGEN_DEVICE void warpgroup_product(FormatBf16, float (&d)[4][4], const uint32_t (&a)[4], SharedMatrix b) {
  FUSEGEN_WARPGROUP_PRODUCT_32("bf16");
}
FUSEGEN_DEVICE void warpgroup_product(FormatF16, float (&d)[4][4], const uint32_t (&a)[4], SharedMatrix b) {
  FUSEGEN_WARPGROUP_PRODUCT_32("f16");
}
FUSEGEN_DEVICE void warpgroup_product(FormatBf16, float (&d)[8][4], const uint32_t (&a)[4], SharedMatrix b) {
  FUSEGEN_WARPGROUP_PRODUCT_64("bf16");
}
FUSEGEN_DEVICE void warpgroup_product(FormatF16, float (&d)[8][4], const uint32_t (&a)[4], SharedMatrix b) {
  FUSEGEN_WARPGROUP_PRODUCT_64("f16");
}
#undef FUSEGEN_WARPGROUP_PRODUCT_32
#undef FUSEGEN_WARPGROUP_PRODUCT_64
#else
FUSEGEN_DEVICE void begin_products() {}
FUSEGEN_DEVICE void end_product_group() {}
template <int open>
FUSEGEN_DEVICE void product_groups_done() {}
template <int across_a, int across_b, class Format>
FUSEGEN_DEVICE void warpgroup_product(Format, float (&)[16][4], SharedMatrix, SharedMatrix) {}
template <class Format, int kColumns8>
FUSEGEN_DEVICE void warpgroup_product(Format, float (&)[kColumns8][4], const uint32_t (&)[4], SharedMatrix) {}
#endif

}  // namespace fusegen::device
