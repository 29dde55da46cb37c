// The discriminator step, forward: logits, loss and its derivative by each logit, adjoints, input gradients,
// penalty.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/losses.h"
#include "network.h"
#include "smooth.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S>
class MlpForwardStep : MlpRows<S> {
  using Base = MlpRows<S>;
  using Base::fresh_, Base::hidden_, Base::L, Base::p_, Base::rows_, Base::stride, Base::threads_,
      Base::width;
  using typename Base::C, typename Base::V;

  const MlpForward& out_;
  std::vector<int64_t> adjoint_rows_;  // those whose U is wanted
  std::vector<int64_t> input_rows_;    // those whose v is wanted
  // [rows][ld] the inputs in the compute type, where they are stored in another
  C* x_;
  C* last_;                 // weights of the last layer
  double *value_, *norm2_;  // [rows] term of the loss, squared norm of v
  C* logit_;                // [rows]

public:
  explicit MlpForwardStep(const MlpForward& p) : Base(p), out_(p) {
    for (int64_t row = 0; row < rows_; ++row) {
      const bool fake = row >= p.real && row < p.real + p.fake;
      const bool gradient = p.generator ? fake : p.weight_gradients && row < p.real + p.fake;
      const bool v = this->penalised(row) || this->input_gradient(row);
      if (gradient || v) adjoint_rows_.push_back(row);
      if (v) input_rows_.push_back(row);
    }
  }

  void run() {
    cpu::Arena saved_memory(out_.saved);
    MlpSaved<C> saved(p_, saved_memory);
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
#pragma omp parallel num_threads(threads_)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      prepare(saved, rank, size);
#pragma omp barrier
      for (int l = 1; l <= hidden_; ++l) {
        activations(saved, l, rank, size);
#pragma omp barrier
      }
      logits(saved, rank, size);
#pragma omp barrier
      slopes(saved, rank, size);
      if (!adjoint_rows_.empty()) {
        seed(saved, rank, size);
#pragma omp barrier
        for (int l = hidden_ - 1; l >= 1; --l) {
          adjoints(saved, l, rank, size);
#pragma omp barrier
        }
        input_gradients(saved, rank, size);
#pragma omp barrier
        norms(saved, rank, size);
      }
    }
    totals();
  }

private:
  void lay_out(cpu::Arena& arena) {
    fresh_ = arena.take<C>(threads_ * kFreshElements<C>);
    x_ = arena.take<C>(sizeof(S) == sizeof(C) ? 0 : rows_ * stride(0));
    last_ = arena.take<C>(stride(hidden_));
    value_ = arena.take<double>(rows_);
    norm2_ = arena.take<double>(rows_);
    logit_ = arena.take<C>(rows_);
  }

  const C* input_row(const MlpSaved<C>& saved, int64_t row) const {
    if (saved.x) return saved.x + row * stride(0);
    if constexpr (sizeof(S) == sizeof(C)) return this->input(row);
    else return x_ + row * stride(0);
  }
  const C* activation(const MlpSaved<C>& saved, int l, int64_t row) const {
    return l ? saved.H[l - 1] + row * stride(l) : input_row(saved, row);
  }

  // The masks, and the samples as the first layer reads them.
  void prepare(const MlpSaved<C>& saved, int rank, int size) {
    const Range mine = share(rows_, rank, size);
    for (int l = 0; l < p_.depth; ++l)
      if (saved.dropped[l]) draw(saved, l, mine);
    if (saved.x) {
      for (int64_t row = mine.begin; row < mine.end; ++row)
        for (int64_t u = 0; u < p_.inputs; u += L)
          store(saved.x + row * stride(0) + u,
                load(this->input(row) + u, lanes_left<C>(p_.inputs, u)) * this->kept(saved, 0, row, u));
    } else if constexpr (sizeof(S) != sizeof(C)) {
      for (int64_t row = mine.begin; row < mine.end; ++row)
        for (int64_t u = 0; u < p_.inputs; u += L)
          store(x_ + row * stride(0) + u, load(this->input(row) + u, lanes_left<C>(p_.inputs, u)));
    }
    if (rank == 0)
      for (int64_t u = 0, n = width(hidden_); u < n; u += L)
        store(last_ + u, load(this->weight_row(p_.depth, 0) + u, lanes_left<C>(n, u)));
  }

  void draw(const MlpSaved<C>& saved, int l, Range rows) const {
    const int64_t n = width(l), groups = mask_groups(n), first[] = {0, p_.real, p_.real + p_.fake};
    const int64_t own[] = {own_real(p_), own_fake(p_), p_.mixed};
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int g = this->group(row);
      const MaskRows mask(philox::Mask::discriminator, p_.key, static_cast<uint32_t>(3 * l + g),
                          p_.layers[l].dropout, n);
      mask.make((row - first[g]) % own[g], 0, groups, saved.dropped[l] + row * groups);
    }
  }

  void activations(MlpSaved<C>& saved, int l, int rank, int size) const {
    std::vector<const C*> a(rows_);
    for (int64_t row = 0; row < rows_; ++row) a[row] = activation(saved, l - 1, row);
    const DenseLayer& layer = p_.layers[l - 1];
    const S* b = static_cast<const S*>(layer.b);
    const C slope = static_cast<C>(layer.slope);
    this->forward_product(l, a, rank, size, [&](int64_t row, int64_t u, int lanes, V v) {
      if (b) v += load(b + u, lanes);
      if (smooth(layer.activation)) v = derivatives(saved, l, row, u, smooth_at<C>(layer, v));
      else v = activations::activated(v, slope);
      store(saved.H[l - 1] + row * stride(l) + u, saved.dropped[l] ? v * this->kept(saved, l, row, u) : v);
    });
  }
  // Keeps the derivatives of a smooth activation, and gives its value.
  V derivatives(const MlpSaved<C>& saved, int l, int64_t row, int64_t u,
                const activations::Smooth<V>& s) const {
    const V factor = saved.dropped[l] ? this->kept(saved, l, row, u) : splat(C(1));
    store(saved.first[l - 1] + row * stride(l) + u, s.first * factor);
    if (saved.second[l - 1] && this->penalised(row))
      store(this->second(saved, l, row) + u, s.second * factor);
    return s.y;
  }

  void logits(const MlpSaved<C>& saved, int rank, int size) {
    const DenseLayer& layer = p_.layers[hidden_];
    const C b = layer.b ? to_float(*static_cast<const S*>(layer.b)) : C(0);
    const int64_t n = width(hidden_);
    const Range mine = share(rows_, rank, size);
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const C* h = activation(saved, hidden_, row);
      V sum{};
      for (int64_t u = 0; u < n; u += L) {
        const int lanes = lanes_left<C>(n, u);
        sum += load(h + u, lanes) * load(last_ + u, lanes);
      }
      logit_[row] = sum_lanes<C>(sum) + b;
      // A mixed sample's logit is nobody's business, but its NaN would be.
      if (row < p_.real + p_.fake) from_float(logit_[row], static_cast<S*>(out_.logits)[row]);
    }
  }

  // The loss term of each row and its derivative by the row's logit, means taken.
  void slopes(MlpSaved<C>& saved, int rank, int size) {
    const Range mine = share(rows_, rank, size);
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const losses::Term<double> term = loss_term(row);
      const double n = static_cast<double>(row < p_.real ? own_real(p_) : own_fake(p_));
      value_[row] = term.value / n;
      saved.s[row] = static_cast<C>((term.slope + near_slope(row)) / n);
      saved.c[row] = 0;
      norm2_[row] = 0;
    }
  }
  losses::Term<double> loss_term(int64_t row) const {
    if (row >= p_.real + p_.fake) return {0, 0};
    const bool real = row < p_.real;
    const int64_t at = real ? row : row - p_.real;
    if (at >= (real ? own_real(p_) : own_fake(p_))) return {0, 0};
    const double z = logit_[row];
    if (p_.loss == GanLoss::relativistic) {
      const double other = logit_[real ? p_.real + at : at];
      const bool first = real != p_.generator;  // of the pair
      losses::Term<double> term = losses::pair(first ? z : other, first ? other : z);
      if (!first) term.slope = -term.slope;
      if (!real) term.value = 0;  // a pair counts once
      if (real && p_.generator) term.slope = 0;
      return term;
    }
    if (p_.generator) return real ? losses::Term<double>{0, 0} : losses::generator(p_.loss, z);
    return real ? losses::real(p_.loss, z, p_.target) : losses::fake(p_.loss, z);
  }
  // w (D(x + noise) - D(x)) for the row with noise, the opposite for the one without.
  double near_slope(int64_t row) const {
    if (row >= p_.real + p_.fake) return 0;
    const bool real = row < p_.real;
    const double weight = real ? p_.near_real : p_.near_fake;
    if (!(weight > 0)) return 0;
    const int64_t own = real ? own_real(p_) : own_fake(p_), at = real ? row : row - p_.real;
    const double other = logit_[at < own ? row + own : row - own];
    return weight * (static_cast<double>(logit_[row]) - other);
  }

  // U of the last hidden layer: the last weights through its activation.
  void seed(MlpSaved<C>& saved, int rank, int size) const {
    if (!hidden_) return;
    const int64_t n = width(hidden_);
    const Range mine = share(static_cast<int64_t>(adjoint_rows_.size()), rank, size);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t row = adjoint_rows_[i];
      for (int64_t u = 0; u < n; u += L) adjoint(saved, hidden_, row, u, load(last_ + u));
    }
  }
  // U before layer l's activation, of w behind it and its dropout.
  FUSEGEN_INLINE void adjoint(const MlpSaved<C>& saved, int l, int64_t row, int64_t u, V w) const {
    store(saved.U[l - 1] + row * stride(l) + u, this->gradient(saved, l, row, u, w));
    if (!saved.second[l - 1] || !this->penalised(row)) return;
    C* second = this->second(saved, l, row) + u;
    store(second, load(second) * w);
  }

  void adjoints(MlpSaved<C>& saved, int l, int rank, int size) const {
    std::vector<const C*> a;
    for (int64_t row : adjoint_rows_) a.push_back(saved.U[l] + row * stride(l + 1));
    this->adjoint_product(l + 1, a, rank, size,
                          [&](int64_t i, int64_t u, int, V v) { adjoint(saved, l, adjoint_rows_[i], u, v); });
  }

  C* input_gradient_row(const MlpSaved<C>& saved, int64_t row) const {
    return saved.v + (row - saved.v_begin) * stride(0);
  }
  void input_gradients(MlpSaved<C>& saved, int rank, int size) const {
    if (hidden_) {
      std::vector<const C*> a;
      for (int64_t row : input_rows_) a.push_back(saved.U[0] + row * stride(1));
      this->adjoint_product(1, a, rank, size, [&](int64_t i, int64_t u, int, V v) {
        input_gradient_at(saved, input_rows_[i], u, v);
      });
    } else {
      const Range mine = share(static_cast<int64_t>(input_rows_.size()), rank, size);
      for (int64_t i = mine.begin; i < mine.end; ++i)
        for (int64_t u = 0; u < p_.inputs; u += L)
          input_gradient_at(saved, input_rows_[i], u, load(last_ + u));
    }
  }
  FUSEGEN_INLINE void input_gradient_at(const MlpSaved<C>& saved, int64_t row, int64_t u, V v) const {
    store(input_gradient_row(saved, row) + u, saved.dropped[0] ? v * this->kept(saved, 0, row, u) : v);
  }

  // v without what does not count, ||v||^2 of each penalised row, and the factor that its penalty puts before
  // v in the tangent.
  void norms(MlpSaved<C>& saved, int rank, int size) {
    const Range mine = share(static_cast<int64_t>(input_rows_.size()), rank, size);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t row = input_rows_[i];
      C* v = input_gradient_row(saved, row);
      std::fill(v + p_.counted, v + p_.inputs, C(0));
      if (!this->penalised(row)) continue;
      V sum{};
      for (int64_t u = 0; u < p_.inputs; u += L) {
        const V part = load(v + u, lanes_left<C>(p_.inputs, u));
        sum += part * part;
      }
      const double n2 = norm2_[row] = static_cast<double>(sum_lanes<C>(sum));
      double c;
      if (row < p_.real) {
        c = p_.r1 / static_cast<double>(p_.real);
      } else if (row < p_.real + p_.fake) {
        c = p_.r2 / static_cast<double>(p_.fake);
      } else {
        const double norm = std::sqrt(n2);
        // 0 at 0, NaN through
        c = norm > 0 ? 2 * p_.gp * (norm - 1) / norm / static_cast<double>(p_.mixed) : norm;
      }
      saved.c[row] = static_cast<C>(c);
    }
  }

  // In the order of the rows, whatever the threads were.
  void totals() const {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto mean = [&](int64_t begin, int64_t n, const auto& of) {
      double sum = 0;
      for (int64_t row = begin; row < begin + n; ++row) sum += of(row);
      return n ? sum / static_cast<double>(n) : nan;
    };
    const auto logit = [&](int64_t row) { return static_cast<double>(logit_[row]); };
    const auto sign = [&](int64_t row) {
      return logit_[row] > 0 ? 1.0 : logit_[row] < 0 ? -1.0 : logit_[row] * 1.0;
    };
    const auto norm2 = [&](int64_t row) { return norm2_[row]; };
    const auto norm = [&](int64_t row) { return std::sqrt(norm2_[row]); };
    const auto off = [&](int64_t row) { return (std::sqrt(norm2_[row]) - 1) * (std::sqrt(norm2_[row]) - 1); };
    const int64_t fake = p_.real, mixed = p_.real + p_.fake, reals = own_real(p_), fakes = own_fake(p_);
    const auto near = [&](int64_t begin, int64_t own) {
      return mean(begin, own, [&](int64_t row) {
        const double off = static_cast<double>(logit_[row + own]) - static_cast<double>(logit_[row]);
        return off * off;
      });
    };
    double loss = 0, penalty = 0;
    for (int64_t row = 0; row < mixed; ++row) loss += value_[row];
    if (p_.r1 > 0) penalty += p_.r1 / 2 * mean(0, p_.real, norm2);
    if (p_.r2 > 0) penalty += p_.r2 / 2 * mean(fake, p_.fake, norm2);
    if (p_.near_real > 0) penalty += p_.near_real / 2 * near(0, reals);
    if (p_.near_fake > 0) penalty += p_.near_fake / 2 * near(fake, fakes);
    if (p_.mixed) penalty += p_.gp * mean(mixed, p_.mixed, off);
    double* s = out_.scalars;
    s[kLoss] = loss + penalty;
    s[kPenalty] = penalty;
    s[kMeanReal] = mean(0, reals, logit);
    s[kMeanFake] = mean(fake, fakes, logit);
    s[kSignReal] = mean(0, reals, sign);
    s[kSignFake] = mean(fake, fakes, sign);
    s[kNormReal] = p_.r1 > 0 ? mean(0, p_.real, norm) : nan;
    s[kNormFake] = p_.r2 > 0 ? mean(fake, p_.fake, norm) : nan;
    s[kNormMixed] = p_.mixed ? mean(mixed, p_.mixed, norm) : nan;
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
