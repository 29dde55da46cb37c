// Random values that are exact in every dtype.
#pragma once
#include <algorithm>
#include <random>

#include "reference.h"

namespace fusegen::test {

// Multiples of 1/64, or of 1/1024 where that would be too coarse, up to about `range`.
inline Values draw(std::mt19937& random, int64_t n, double range) {
  const double grid = range < 0.25 ? 1024 : 64;
  const int most = std::max(1, static_cast<int>(range * grid));
  std::uniform_int_distribution<int> pick(-most, most);
  Values v(static_cast<size_t>(n));
  for (double& e : v) e = pick(random) / grid;
  return v;
}

}  // namespace fusegen::test
