// Which rows run at which step. Step s counts from 0 whatever the direction; a row's time is s, or its own
// end minus s in the reverse direction. Rows lie longest first, so those alive at a step are always the first
// few.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/params.h"

namespace fusegen::FUSEGEN_ISA_NS {

// The rows of one team.
struct Batch {
  std::vector<int32_t> row;  // index in the caller's batch
  std::vector<int64_t> length;
  bool reverse = false;

  int size() const { return static_cast<int>(row.size()); }
  int64_t steps() const { return length.empty() ? 0 : length.front(); }
  int64_t time(int i, int64_t s) const { return reverse ? length[i] - 1 - s : s; }
  bool last(int i, int64_t s) const { return s == length[i] - 1; }
  int active(int64_t s) const {  // rows with length > s
    return static_cast<int>(
        std::partition_point(length.begin(), length.end(), [s](int64_t n) { return n > s; }) -
        length.begin());
  }
  int64_t tokens(int64_t s0, int64_t s1) const {  // rows alive, summed over the steps [s0, s1)
    int64_t n = 0;
    for (int64_t len : length) {
      if (len <= s0) break;
      n += std::min(len, s1) - s0;
    }
    return n;
  }
};

// Deals the sorted rows out to `teams`, so that each has its share of the long ones.
inline std::vector<Batch> make_batches(const RecurrentSizes& p, int teams) {
  std::vector<int32_t> order(p.B);
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](int32_t b) { return p.lengths ? p.lengths[b] : p.T; };
  if (p.lengths)
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return length(a) > length(b); });
  std::vector<Batch> batches(teams);
  for (int k = 0; k < teams; ++k) {
    Batch& batch = batches[k];
    batch.reverse = p.reverse;
    const int64_t begin = p.lengths ? k : p.B * k / teams;
    const int64_t end = p.lengths ? p.B : p.B * (k + 1) / teams;
    for (int64_t i = begin; i < end; i += p.lengths ? teams : 1) {
      batch.row.push_back(order[i]);
      batch.length.push_back(length(order[i]));
    }
  }
  return batches;
}

// Cuts the steps into ranges of about `rows` tokens over all batches; the last range may be shorter.
inline std::vector<int64_t> make_chunks(const std::vector<Batch>& batches, int64_t rows) {
  int64_t steps = 0;
  for (const Batch& b : batches) steps = std::max(steps, b.steps());
  std::vector<int64_t> bounds{0};
  int64_t count = 0;
  for (int64_t s = 0; s < steps; ++s) {
    int64_t alive = 0;
    for (const Batch& b : batches) alive += b.active(s);
    if (count && count + alive > rows) {
      bounds.push_back(s);
      count = 0;
    }
    count += alive;
  }
  if (steps) bounds.push_back(steps);
  return bounds;
}

inline int64_t largest_chunk(const std::vector<Batch>& batches, const std::vector<int64_t>& bounds) {
  int64_t most = 0;
  for (size_t c = 0; c + 1 < bounds.size(); ++c) {
    int64_t rows = 0;
    for (const Batch& b : batches) rows += b.tokens(bounds[c], bounds[c + 1]);
    most = std::max(most, rows);
  }
  return most;
}

}  // namespace fusegen::FUSEGEN_ISA_NS
