// The host's side of csrc/kernels/cuda/device/exchange.h.
#pragma once
#include <device/number.h>

#include "../barrier.h"
#include "../memory.h"

namespace fusegen::device {

// A hung block hears the others' first two turns, and nothing after.
inline uint32_t heard(uint32_t flag) { return simt::hung() && flag > 2 ? 2 : flag; }
inline uint32_t load_acquire(const uint32_t* p) {
  simt::memory::acquired(p, 4);
  return heard(simt::word(p));
}
inline Word4 load_acquire16(const uint32_t* p) {
  if (reinterpret_cast<uintptr_t>(p) % 16) throw simt::Stuck("misaligned load of flags");
  simt::memory::acquired(p, 16);
  return {heard(simt::word(p)), heard(simt::word(p + 1)), heard(simt::word(p + 2)), heard(simt::word(p + 3))};
}
inline void store_release(uint32_t* p, uint32_t v) {
  simt::memory::released(p, 4);
  simt::set_word(p, v);
}
inline void store_relaxed(uint32_t* p, uint32_t v) {
  simt::memory::stored(p, 4);
  simt::set_word(p, v);
}
inline void store_first(int64_t* p, int64_t v) {
  simt::memory::stored(p, 8);
  simt::set_first(p, v);
}

inline bool has_clusters() { return !simt::settings().old_code; }

using ByteBarrier = uint64_t;

inline void cluster_sync() { simt::sync_cluster(); }
inline void start(ByteBarrier* b) { simt::start_barrier(b, 1); }
inline void arm(ByteBarrier* b, uint32_t bytes) { simt::arrive_at(b, bytes); }
inline bool phase_over(ByteBarrier* b, uint32_t parity) {
  return !(simt::hung() && parity == 1) && simt::phase_is_over(b, parity);
}
using Remote = unsigned char*;
inline Remote remote(const void* shared, int rank) {
  return simt::in_block(static_cast<unsigned char*>(const_cast<void*>(shared)), rank);
}
inline void send16(Remote to, Remote barrier, Word4 v) { simt::store_async(to, barrier, &v); }
inline void send16(void* shared, ByteBarrier* barrier, int rank, Word4 v) {
  send16(remote(shared, rank), remote(barrier, rank), v);
}

}  // namespace fusegen::device
