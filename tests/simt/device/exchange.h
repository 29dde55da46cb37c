// The host's side of csrc/kernels/cuda/device/exchange.h.
#pragma once
#include <device/number.h>

namespace fusegen::device {

// A hung block hears of the others' first two turns, and of nothing after.
inline uint32_t load_acquire(const uint32_t* p) { return simt::hung() && *p > 2 ? 2 : *p; }
inline Word4 load_acquire16(const uint32_t* p) {
  if (reinterpret_cast<uintptr_t>(p) % 16) throw simt::Stuck("misaligned load of flags");
  return {load_acquire(p), load_acquire(p + 1), load_acquire(p + 2), load_acquire(p + 3)};
}
inline void store_release(uint32_t* p, uint32_t v) { *p = v; }
inline void store_first(int64_t* p, int64_t v) {
  if (*p == 0) *p = v;
}

inline bool has_clusters() { return !simt::settings().old_code; }

using ByteBarrier = uint64_t;

namespace detail {

struct BarrierState {  // in the 8 bytes of a ByteBarrier
  int32_t bytes;       // still expected; below zero where they came before arm()
  uint8_t arrivals;    // still expected
  uint8_t parity;      // of the phase under way
  uint16_t started;
};
constexpr uint16_t kStarted = 0x5a5a;

inline BarrierState& state(ByteBarrier* b) {
  auto& s = *reinterpret_cast<BarrierState*>(b);
  if (s.started != kStarted) throw simt::Stuck("a byte barrier is used that was never started");
  return s;
}
inline void end_phase_if_due(BarrierState& s) {
  if (s.arrivals || s.bytes) return;
  s.arrivals = 1;
  s.parity ^= 1;
}

struct Sent {
  unsigned char* to;
  ByteBarrier* barrier;
  Word4 v;
};
inline void arrive(void* data) {
  Sent s;
  std::memcpy(&s, data, sizeof s);
  std::memcpy(s.to, &s.v, 16);
  BarrierState& b = state(s.barrier);
  b.bytes -= 16;
  end_phase_if_due(b);
}

}  // namespace detail

inline void cluster_sync() { simt::sync_cluster(); }
inline void start(ByteBarrier* b) {
  *reinterpret_cast<detail::BarrierState*>(b) = {0, 1, 0, detail::kStarted};
}
inline void arm(ByteBarrier* b, uint32_t bytes) {
  auto& s = detail::state(b);
  if (!s.arrivals) throw simt::Stuck("a byte barrier is armed twice in one phase");
  --s.arrivals;
  s.bytes += static_cast<int32_t>(bytes);
  detail::end_phase_if_due(s);
}
inline bool phase_over(ByteBarrier* b, uint32_t parity) {
  return !(simt::hung() && parity == 1) && detail::state(b).parity != parity;
}
using Remote = unsigned char*;
inline Remote remote(const void* shared, int rank) {
  return simt::in_block(static_cast<unsigned char*>(const_cast<void*>(shared)), rank);
}
inline void send16(Remote to, Remote barrier, Word4 v) {
  const detail::Sent s{to, reinterpret_cast<ByteBarrier*>(barrier), v};
  if (reinterpret_cast<uintptr_t>(to) % 16) throw simt::Stuck("misaligned store into another block");
  simt::later(detail::arrive, &s, sizeof s);
}
inline void send16(void* shared, ByteBarrier* barrier, int rank, Word4 v) {
  send16(remote(shared, rank), remote(barrier, rank), v);
}

}  // namespace fusegen::device
