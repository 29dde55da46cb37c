// The host's side of csrc/kernels/cuda/device/bulk.h.
#pragma once
#include <device/shared.h>
#include <device/warpgroup.h>

#include "../bulk.h"

namespace fusegen::device {

constexpr int kBox = 64, kBoxBytes = kBox * kBox * 2;

using TensorMap = simt::TensorMap;

inline TensorMap tensor_map(const void* data, int64_t width, int64_t rows, int64_t stride) {
  return simt::checked_map(
      {static_cast<const unsigned char*>(data), width, rows, stride, 2, kBox, kBox, 128});
}

template <int across>
SharedMatrix matrix_of_boxes(Shared start) {
  return detail::shared_matrix(start.at, across ? kBoxBytes : 16, 1024, 1);
}
template <int across>
SharedMatrix next_of_boxes(SharedMatrix m) {
  return {m.descriptor + (across ? 16 * 2 * kBox : 2 * 16) / 16};
}

inline void start(Shared barrier) { simt::start_barrier(barrier.at, 1); }
inline int warp_of_all() { return warp(); }
inline bool elected() { return lane() == 0; }

inline void fence_for_bulk_copies() { simt::memory::fence_proxy(simt::memory::Space::global); }

inline void prefetch(const TensorMap*) {}
inline void copy_box(Shared to, const TensorMap* map, int x, int y, Shared barrier) {
  simt::bring_box(*map, to.at, barrier.at, x, y);
}
inline bool boxes_there(Shared barrier, uint32_t parity) { return simt::phase_is_over(barrier.at, parity); }

}  // namespace fusegen::device
