// The host's side of csrc/kernels/cuda/device/copy.h.
#pragma once
#include <device/number.h>

namespace fusegen::device {

inline void copy16_async(void* shared, const void* global) {
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % 16)
    throw simt::Stuck("misaligned copy");
  simt::copy_later(shared, global, 16);
}
inline void copy16_or_zero_async(void* shared, const void* global, bool there) {
  if (there) copy16_async(shared, global);
  else simt::copy_later(shared, nullptr, 16);
}
inline void end_copy_group() { simt::end_copy_group(); }
template <int open>
void copy_groups_done() {
  simt::copy_groups_done(open);
}
inline void copies_done() { simt::copies_done(); }

}  // namespace fusegen::device
