// Layer norms of a row, forward and backward (Ba et al. 2016): (a - mean) / sqrt(variance + eps), the
// variance over n.
#pragma once
#include <cmath>

#include "kernels/cpu/isa/vector/rows.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class C>
struct NormStats {
  C mean, rstd;
};

// f(u, lanes) for each vector of n elements.
template <class C, class F>
FUSEGEN_INLINE void each_vector(int64_t n, const F& f) {
  int64_t u = 0;
  for (; u + kLanes<C> <= n; u += kLanes<C>) f(u, kLanes<C>);
  if (u < n) f(u, static_cast<int>(n - u));
}

// Two passes: a difference of sums of squares would lose what the mean is larger than the deviation.
template <class C>
NormStats<C> norm_stats(const C* a, int64_t n, double eps) {
  constexpr int L = kLanes<C>;
  using V = Vector<C>;
  V sum[4] = {};
  int64_t u = 0;
  for (; u + 4 * L <= n; u += 4 * L)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sum[j] += load(a + u + j * L);
  each_vector<C>(n - u, [&](int64_t v, int lanes) { sum[0] += load(a + u + v, lanes); });
  const C mean = sum_lanes<C>((sum[0] + sum[1]) + (sum[2] + sum[3])) / static_cast<C>(n);
  const V middle = splat(mean);
  V squares[4] = {};
  u = 0;
  for (; u + 4 * L <= n; u += 4 * L)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V d = load(a + u + j * L) - middle;
      squares[j] += d * d;
    }
  each_vector<C>(n - u, [&](int64_t v, int lanes) {
    const V d = first_lanes<C>(load(a + u + v, lanes) - middle, lanes);
    squares[0] += d * d;
  });
  const C variance = sum_lanes<C>((squares[0] + squares[1]) + (squares[2] + squares[3])) / static_cast<C>(n);
  return {mean, C(1) / std::sqrt(variance + static_cast<C>(eps))};
}

// a = gain * normalised a + bias, and + x where given; what is normalised goes to `hat` where given.
template <class S, class C>
void normalise(C* a, int64_t n, const NormStats<C>& stats, const C* gain, const C* bias, const C* x, S* hat) {
  using V = Vector<C>;
  const V mean = splat(stats.mean), rstd = splat(stats.rstd);
  each_vector<C>(n, [&](int64_t u, int lanes) {
    const V h = (load(a + u, lanes) - mean) * rstd;
    if (hat) store(hat + u, h, lanes);
    V out = h * load(gain + u, lanes) + load(bias + u, lanes);
    if (x) out += load(x + u, lanes);
    store(a + u, out, lanes);
  });
}

// to += row
template <class C>
FUSEGEN_INLINE void add_row(C* to, const C* row, int64_t n) {
  each_vector<C>(
      n, [&](int64_t u, int lanes) { store(to + u, load(to + u, lanes) + load(row + u, lanes), lanes); });
}

// The gradient of what was normalised, from that of the layer norm's output: `da` may be `out`. Sums for the
// gradients of gain and, where given, bias are added up.
template <class S, class C>
void norm_backward(const C* da, const S* hat, C rstd, const C* gain, int64_t n, C* sum_gain, C* sum_bias,
                   C* out) {
  using V = Vector<C>;
  V s{}, t{};
  each_vector<C>(n, [&](int64_t u, int lanes) {
    const V d = load(da + u, lanes), h = load(hat + u, lanes), e = d * load(gain + u, lanes);
    store(sum_gain + u, load(sum_gain + u, lanes) + d * h, lanes);
    if (sum_bias) store(sum_bias + u, load(sum_bias + u, lanes) + d, lanes);
    s += e;
    t += e * h;
  });
  const V mean = splat(sum_lanes<C>(s) / static_cast<C>(n)),
          slope = splat(sum_lanes<C>(t) / static_cast<C>(n)), scale = splat(rstd);
  each_vector<C>(n, [&](int64_t u, int lanes) {
    const V h = load(hat + u, lanes), e = load(da + u, lanes) * load(gain + u, lanes);
    store(out + u, scale * (e - mean - h * slope), lanes);
  });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
