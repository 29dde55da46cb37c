#include "barrier.h"

#include <cstring>
#include <string>
#include <unordered_map>

#include "emulator.h"
#include "memory.h"

namespace simt {
namespace {

// What the counters of an mbarrier hold (PTX, "Size and alignment of mbarrier object").
constexpr int64_t kMostBytes = (1 << 20) - 1, kMostArrivals = (1 << 20) - 1;

struct Barrier {
  int64_t arrivals, pending;  // of a phase; still expected
  int64_t bytes = 0;          // still expected; below zero where they came before they were expected
  uint32_t parity = 0;        // of the phase under way
  int64_t landed = 0;         // bytes of the phase under way
  bool unseen = false;        // bytes of a phase that ended and that nobody has waited for
  memory::Gathered phase;
  memory::Seen over;  // of the last phase that ended
};
std::unordered_map<const void*, Barrier> barriers;

Barrier& at(const void* barrier) {
  const auto found = barriers.find(barrier);
  if (found == barriers.end()) throw Stuck("a byte barrier is used that was never started");
  return found->second;
}

void check(Barrier& b) {
  if (b.bytes > kMostBytes || b.bytes < -kMostBytes)
    throw Stuck("a byte barrier counts to 2^20-1, not to " + std::to_string(b.bytes));
  if (b.pending) return;
  if (b.bytes < 0) throw Stuck("a byte barrier gets more bytes than its phase expects");
  if (b.bytes > 0) return;
  b.pending = b.arrivals;
  b.parity ^= 1;
  b.unseen = b.landed > 0;
  b.landed = 0;
  b.over = b.phase.take();
}

struct Sent {
  void *to, *barrier;
  unsigned char bytes[16];
  memory::Release by;
};

void land(const Sent& s) {
  if (ended(s.to)) throw Stuck("a store arrives at a block that has ended");
  memory::access_as(s.by, s.to, 16, memory::kWrite);
  std::memcpy(s.to, s.bytes, 16);
  bytes_arrive(s.barrier, 16, s.by);
}

}  // namespace

void start_barrier(void* barrier, uint32_t arrivals) {
  if (reinterpret_cast<uintptr_t>(barrier) % 8) throw Stuck("misaligned byte barrier");
  if (arrivals < 1 || arrivals > kMostArrivals) throw Stuck("a byte barrier counts 1 to 2^20-1 arrivals");
  memory::access(barrier, 8, memory::kWrite);
  barriers[barrier] = {.arrivals = arrivals, .pending = arrivals, .phase = {}, .over = {}};
}

void arrive_at(void* barrier, uint32_t bytes) {
  Barrier& b = at(barrier);
  memory::access(barrier, 8, memory::kWrite | memory::kStrong);
  if (ended(barrier)) throw Stuck("a lane arrives at a block that has ended");
  if (b.arrivals == 1 && !b.pending) throw Stuck("a byte barrier is armed twice in one phase");
  if (!b.pending) throw Stuck("a byte barrier gets more arrivals than its phase expects");
  --b.pending;
  b.bytes += bytes;
  b.phase.add(memory::release());
  check(b);
}

void bytes_arrive(void* barrier, int64_t bytes, const memory::Release& by) {
  Barrier& b = at(barrier);
  memory::access_as(by, barrier, 8, memory::kWrite | memory::kStrong);
  b.phase.add(by);
  b.bytes -= bytes;
  b.landed += bytes;
  check(b);
}

bool phase_is_over(void* barrier, uint32_t parity) {
  Barrier& b = at(barrier);
  memory::access(barrier, 8, memory::kRead | memory::kStrong);
  if (b.parity == parity) return false;
  memory::acquire(b.over);
  b.unseen = false;
  return true;
}

void store_async(void* to, void* barrier, const void* bytes) {
  if (reinterpret_cast<uintptr_t>(to) % 16) throw Stuck("misaligned store into another block");
  Sent s{to, barrier, {}, memory::release()};
  std::memcpy(s.bytes, bytes, 16);
  later([s = std::move(s)] { land(s); });
}

namespace detail {

void forget_barriers() { barriers.clear(); }

void end_barriers(const void* shared, size_t bytes) {
  const auto* first = static_cast<const unsigned char*>(shared);
  for (const auto& [place, b] : barriers) {
    const auto* p = static_cast<const unsigned char*>(place);
    if (p >= first && p < first + bytes && (b.landed || b.unseen))
      throw Stuck("a block ends and has not waited for bytes that were sent to it");
  }
}

}  // namespace detail

}  // namespace simt
