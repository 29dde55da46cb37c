// The host's side of csrc/kernels/cuda/device/shared.h.
#pragma once
#include <device/copy.h>
#include <device/exchange.h>

namespace fusegen::device {

struct Shared {
  unsigned char* at;
  Shared operator+(int bytes) const { return {at + bytes}; }
};

inline int in_register(int x) { return x; }
inline Shared in_register(Shared x) { return x; }
inline float select(bool first, float a, float b) { return first ? a : b; }

inline Shared shared_start() { return {shared_memory()}; }

inline Word4 load16(Shared from) {
  if (reinterpret_cast<uintptr_t>(from.at) % 16) throw simt::Stuck("misaligned load from shared memory");
  return load16(static_cast<const void*>(from.at));
}
inline void store16(Shared to, Word4 v) {
  if (reinterpret_cast<uintptr_t>(to.at) % 16) throw simt::Stuck("misaligned store to shared memory");
  store16(static_cast<void*>(to.at), v);
}
inline void store8(Shared to, float x, float y) {
  if (reinterpret_cast<uintptr_t>(to.at) % 8) throw simt::Stuck("misaligned store to shared memory");
  const float both[2] = {x, y};
  std::memcpy(to.at, both, sizeof both);
}
template <class N>
N load(Shared from) {
  N v;
  std::memcpy(&v, from.at, sizeof v);
  return v;
}
template <class N>
void store(Shared to, N v) {
  std::memcpy(to.at, &v, sizeof v);
}

inline void copy16_async(Shared to, const void* global) { copy16_async(static_cast<void*>(to.at), global); }
inline void copy_some_of_16_async(Shared to, const void* global, int bytes) {
  if ((reinterpret_cast<uintptr_t>(to.at) | reinterpret_cast<uintptr_t>(global)) % 16)
    throw simt::Stuck("misaligned copy");
  simt::copy_later(to.at + bytes, nullptr, static_cast<size_t>(16 - bytes));
  simt::copy_later(to.at, global, static_cast<size_t>(bytes));
}
inline void arm(Shared b, uint32_t bytes) { arm(reinterpret_cast<ByteBarrier*>(b.at), bytes); }
inline bool phase_over(Shared b, uint32_t parity) {
  return phase_over(reinterpret_cast<ByteBarrier*>(b.at), parity);
}
inline Remote remote(Shared here, int rank) { return remote(static_cast<const void*>(here.at), rank); }

}  // namespace fusegen::device
