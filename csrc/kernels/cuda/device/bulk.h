// Bulk copies: boxes of a matrix of 16-bit numbers that the memory system brings to shared memory by itself,
// asked for by one lane, and counted in bytes on a barrier there (exchange.h). They and products of a
// warpgroup (warpgroup.h) are the asynchronous proxy: what ordinary stores wrote they see only behind a
// fence of it.
//
// A box is 64 rows of 64 numbers, word w of row r at place w ^ r % 8, from 1024-byte aligned shared memory on
// (PTX ISA, "swizzling modes", 128 bytes). Numbers past the matrix's edges come as zeros, and count.
#pragma once
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include <device/shared.h>
#include <device/warpgroup.h>

namespace fusegen::device {

constexpr int kBox = 64, kBoxBytes = kBox * kBox * 2;

// Where a matrix lies, as the memory system reads it: among the arguments of a kernel.
struct alignas(128) TensorMap {
  CUtensorMap encoded;
};

namespace detail {

// The driver's own function, found at run time: nothing links libcuda, which machines without a GPU lack.
inline PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
#else
  const cudaError_t status =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
  if (status != cudaSuccess || result != cudaDriverEntryPointSuccess)
    throw std::runtime_error("CUDA: the driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
}

}  // namespace detail

// [rows][width] numbers, rows `stride` bytes apart; both the first and the distance are multiples of 16
// bytes. Host; neither allocates nor waits, so a CUDA graph can be captured around it.
inline TensorMap tensor_map(const void* data, int64_t width, int64_t rows, int64_t stride) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = detail::encoder();
  const cuuint64_t size[2] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride)};
  const cuuint32_t box[2] = {kBox, kBox}, each[2] = {1, 1};
  TensorMap map;
  // UINT16: the bits of either format, as they are.
  const CUresult result =
      encode(&map.encoded, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(data), size, strides, box,
             each, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw std::runtime_error("CUDA: a tensor map: error " + std::to_string(result));
  return map;
}

// The first 16 numbers along K of two boxes on end: 128 rows that lie along K, or as many numbers of rows
// across it.
template <int across>
FUSEGEN_DEVICE SharedMatrix matrix_of_boxes(Shared start) {
  return {(start.at & 0x3ffff) >> 4 | static_cast<uint64_t>((across ? kBoxBytes : 16) >> 4) << 16 |
          uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62};
}
// The next 16. Addresses stay below 2^18, so nothing is carried out of theirs.
template <int across>
FUSEGEN_DEVICE SharedMatrix next_of_boxes(SharedMatrix m) {
  const uint32_t low = static_cast<uint32_t>(m.descriptor) + (across ? 16 * 2 * kBox : 2 * 16) / 16;
  return {m.descriptor >> 32 << 32 | low};
}

// This lane's warp, known to be the same for all of its lanes: what follows from it takes no register of
// each.
FUSEGEN_DEVICE int warp_of_all() { return __shfl_sync(0xffffffffu, warp(), 0); }

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// Before the barrier of the grid behind which bulk copies read what this lane has written.
FUSEGEN_DEVICE void fence_for_bulk_copies() { asm volatile("fence.proxy.async.global;" ::: "memory"); }
FUSEGEN_DEVICE void start(Shared barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier.at) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// True in one lane of a warp, all of which ask; the compiler knows that it is one.
FUSEGEN_DEVICE bool elected() {
  uint32_t me;
  asm volatile(
      "{\n.reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(me));
  return me;
}
// A map that copies will go by soon: the first one waits for it else.
FUSEGEN_DEVICE void prefetch(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// By one lane: the box of `map` that begins at number x of row y. Both may lie past the matrix.
FUSEGEN_DEVICE void copy_box(Shared to, const TensorMap* map, int x, int y, Shared barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(to.at),
      "l"(map), "r"(x), "r"(y), "r"(barrier.at)
      : "memory");
}
// As phase_over(), of bytes of this block alone: an acquire of more than the block empties its L1.
FUSEGEN_DEVICE bool boxes_there(Shared barrier, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(over)
      : "r"(barrier.at), "r"(parity)
      : "memory");
  return over;
}
#else
FUSEGEN_DEVICE void fence_for_bulk_copies() {}
FUSEGEN_DEVICE void start(Shared) {}
FUSEGEN_DEVICE bool elected() { return false; }
FUSEGEN_DEVICE void prefetch(const TensorMap*) {}
FUSEGEN_DEVICE void copy_box(Shared, const TensorMap*, int, int, Shared) {}
FUSEGEN_DEVICE bool boxes_there(Shared, uint32_t) { return true; }
#endif

}  // namespace fusegen::device
