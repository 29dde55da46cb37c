// Batch normalisation and the activation behind it, of tensors [blocks][pixels][channels][width] of which the
// first n samples are real ones. Threads share channels.
#pragma once
#include <omp.h>

#include <array>
#include <cmath>

#include "kernels/activations.h"
#include "kernels/cpu/isa/vector/segments.h"
#include "kernels/cpu/plan.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class C>
class BatchNormPass {
protected:
  using V = Vector<C>;
  static constexpr int L = kLanes<C>;
  static constexpr int64_t kChunk = 4;  // pixels summed as they come, then in double, as torch sums all

  const BatchNormShape& s_;
  const double count_;  // values of a channel
  const int threads_;

  explicit BatchNormPass(const BatchNormShape& s)
      : s_(s),
        count_(static_cast<double>(s.n) * static_cast<double>(s.pixels)),
        threads_(cpu::plan_threads(s)) {}

  int lanes(int64_t block, int64_t u) const {
    const int64_t left = s_.n - block * s_.width - u;
    return left <= 0 ? 0 : left < L ? static_cast<int>(left) : L;
  }

  // f(channel, offset, lanes) for every vector of the channels in `mine`, pixel by pixel in [begin, end).
  template <class F>
  FUSEGEN_INLINE void vectors(Range mine, int64_t begin, int64_t end, const F& f) const {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t c = mine.begin; c < mine.end; ++c)
        for (int64_t u = 0; u < s_.width; u += L)
          f(c, (i * s_.C + c) * s_.width + u, lanes(i / s_.pixels, u));
  }

  // total[i][c] = sum of terms(channel, offset)[i] over the lanes that hold samples.
  template <size_t n, class Terms>
  std::array<std::vector<double>, n> sums(Range mine, const Terms& terms) const {
    const int64_t channels = mine.end - mine.begin, all = s_.blocks * s_.pixels;
    std::array<std::vector<double>, n> total;
    total.fill(std::vector<double>(channels));
    std::vector<std::array<V, n>> part(channels);
    for (int64_t begin = 0; begin < all; begin += kChunk) {
      std::fill(part.begin(), part.end(), std::array<V, n>{});
      vectors(mine, begin, std::min(all, begin + kChunk), [&](int64_t c, int64_t at, int lanes) {
        if (!lanes) return;
        const std::array<V, n> values = terms(c, at);
        for (size_t i = 0; i < n; ++i) part[c - mine.begin][i] += first_lanes<C>(values[i], lanes);
      });
      for (int64_t c = 0; c < channels; ++c)
        for (size_t i = 0; i < n; ++i) total[i][c] += static_cast<double>(sum_lanes<C>(part[c][i]));
    }
    return total;
  }
};

template <class C>
class BatchNormForwardPass : BatchNormPass<C> {
  using Base = BatchNormPass<C>;
  using typename Base::V;
  const BatchNormForward& p_;

public:
  explicit BatchNormForwardPass(const BatchNormForward& p) : Base(p), p_(p) {}

  void run() {
#pragma omp parallel num_threads(this->threads_)
    normalise(share(p_.C, omp_get_thread_num(), omp_get_num_threads()));
  }

private:
  void normalise(Range mine) const {
    const C *x = static_cast<const C*>(p_.x), *weight = static_cast<const C*>(p_.weight),
            *bias = static_cast<const C*>(p_.bias);
    C *mean = static_cast<C*>(p_.mean), *var = static_cast<C*>(p_.var), *y = static_cast<C*>(p_.y);
    const C slope = static_cast<C>(p_.slope);
    std::vector<double> sum =
        this->template sums<1>(mine, [&](int64_t, int64_t at) { return std::array<V, 1>{load(x + at)}; })[0];
    for (int64_t c = mine.begin; c < mine.end; ++c)
      mean[c] = static_cast<C>(sum[c - mine.begin] / this->count_);
    sum = this->template sums<1>(mine, [&](int64_t c, int64_t at) {
      const V d = load(x + at) - splat(mean[c]);
      return std::array<V, 1>{d * d};
    })[0];
    std::vector<C> scale(sum.size());
    for (int64_t c = mine.begin; c < mine.end; ++c) {
      var[c] = static_cast<C>(sum[c - mine.begin] / this->count_);
      scale[c - mine.begin] =
          static_cast<C>((weight ? weight[c] : 1) / std::sqrt(sum[c - mine.begin] / this->count_ + p_.eps));
    }
    this->vectors(mine, 0, p_.blocks * p_.pixels, [&](int64_t c, int64_t at, int n) {
      V v = (load(x + at) - splat(mean[c])) * splat(scale[c - mine.begin]);
      if (bias) v += splat(bias[c]);
      store(y + at, n ? first_lanes<C>(activations::activated(v, slope), n) : V{});
    });
  }
};

template <class C>
class BatchNormBackwardPass : BatchNormPass<C> {
  using Base = BatchNormPass<C>;
  using typename Base::V;
  const BatchNormBackward& p_;

public:
  explicit BatchNormBackwardPass(const BatchNormBackward& p) : Base(p), p_(p) {}

  void run() {
#pragma omp parallel num_threads(this->threads_)
    gradients(share(p_.C, omp_get_thread_num(), omp_get_num_threads()));
  }

private:
  // The gradient before the activation.
  FUSEGEN_INLINE V gradient(int64_t at) const {
    const V dy = load(static_cast<const C*>(p_.dy) + at);
    if (p_.slope == 1) return dy;
    return activations::activation_gradient(load(static_cast<const C*>(p_.y) + at), dy,
                                            static_cast<C>(p_.slope));
  }

  void gradients(Range mine) const {
    const C *x = static_cast<const C*>(p_.x), *weight = static_cast<const C*>(p_.weight);
    const C *mean = static_cast<const C*>(p_.mean), *var = static_cast<const C*>(p_.var);
    const auto [sum, product] = this->template sums<2>(mine, [&](int64_t c, int64_t at) {
      const V dy = gradient(at);
      return std::array<V, 2>{dy, dy * (load(x + at) - splat(mean[c]))};
    });
    std::vector<C> scale(sum.size()), shift(sum.size()), lean(sum.size());
    for (size_t i = 0; i < sum.size(); ++i) {
      const int64_t c = mine.begin + static_cast<int64_t>(i);
      const double rstd = 1 / std::sqrt(static_cast<double>(var[c]) + p_.eps);
      scale[i] = static_cast<C>((weight ? weight[c] : 1) * rstd);
      shift[i] = static_cast<C>(sum[i] / this->count_);
      lean[i] = static_cast<C>(product[i] / this->count_ * rstd * rstd);
      static_cast<C*>(p_.dweight)[c] = static_cast<C>(product[i] * rstd);
      static_cast<C*>(p_.dbias)[c] = static_cast<C>(sum[i]);
    }
    if (!p_.dx) return;
    this->vectors(mine, 0, p_.blocks * p_.pixels, [&](int64_t c, int64_t at, int n) {
      const int64_t i = c - mine.begin;
      const V v = gradient(at) - splat(shift[i]) - (load(x + at) - splat(mean[c])) * splat(lean[i]);
      store(static_cast<C*>(p_.dx) + at, n ? first_lanes<C>(v * splat(scale[i]), n) : V{});
    });
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
