// What a kernel leaves for the host in a word of its memory: a code in the low bits, and behind it what it is
// about. One word, so that it is never read half written.
#pragma once
#include <cstdint>

namespace fusegen::cuda {

// The outputs are NaN then. kNoClusters: the code that runs here was not compiled for clusters.
enum Error : int { kNoError = 0, kTimedOut = 1, kBadLength = 2, kNoClusters = 3 };

constexpr Error code_of(int64_t word) { return static_cast<Error>(word & 7); }

// A wait in vain: block `rank` of a group for what block `awaited` of it was to publish at this turn.
struct Wait {
  int direction, group, rank, awaited, turn;
};
constexpr int kAnyBlock = 511;  // awaited: what a cluster waits on counts bytes, whosever they are

// 3 bits of code, 1 of direction, 11 of group, 9 of each rank, 31 of turn.
constexpr int64_t error_of(const Wait& w) {
  return static_cast<int64_t>(
      kTimedOut | static_cast<uint64_t>(w.direction & 1) << 3 | static_cast<uint64_t>(w.group & 2047) << 4 |
      static_cast<uint64_t>(w.rank & 511) << 15 | static_cast<uint64_t>(w.awaited & 511) << 24 |
      static_cast<uint64_t>(w.turn) << 33);
}
constexpr Wait wait_of(int64_t word) {
  const auto bits = [u = static_cast<uint64_t>(word)](int first, int count) {
    return static_cast<int>(u >> first & ((1ull << count) - 1));
  };
  return {bits(3, 1), bits(4, 11), bits(15, 9), bits(24, 9), bits(33, 31)};
}

// Of row b of the batch.
constexpr int64_t error_of_length(int b) { return kBadLength | static_cast<int64_t>(b) << 3; }
constexpr int row_of_length(int64_t word) { return static_cast<int>(word >> 3); }

}  // namespace fusegen::cuda
