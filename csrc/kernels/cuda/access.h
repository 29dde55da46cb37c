// Numbers of a call's tensors, read and written as float. A tensor that is not there is null: it gives zeros,
// and takes nothing.
#pragma once
#include <device/number.h>

#include <cstdint>

namespace fusegen::cuda {

template <class T>
FUSEGEN_DEVICE float read(const void* p, int64_t i) {
  return device::widen(static_cast<const T*>(p)[i]);
}
template <class T>
FUSEGEN_DEVICE float read_or_zero(const void* p, int64_t i) {
  return p ? read<T>(p, i) : 0.0f;
}
template <class T>
FUSEGEN_DEVICE void write(void* p, int64_t i, float x) {
  static_cast<T*>(p)[i] = device::narrow<T>(x);
}
template <class T>
FUSEGEN_DEVICE void write_if_wanted(void* p, int64_t i, float x) {
  if (p) write<T>(p, i, x);
}

}  // namespace fusegen::cuda
