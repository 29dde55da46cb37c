// A step's rows, backward: the gradient of the cell's maths and of its layer norms, which gives those of W x
// and of R h'. What R' makes of the latter comes in from the step before it. The gradients of gains and
// biases are added up for each row of the batch, in float32 in the workspace, and over the batch at the end.
#pragma once
#include "../../../cells.h"
#include "forward.h"

namespace fusegen::cuda::normalised {

template <class C, class T>
class BackwardRow {
public:
  using Pass = NormalisedBackwardPass;

  FUSEGEN_DEVICE explicit BackwardRow(const RowArguments<Pass>& a)
      : a_(a),
        p_(a.pass),
        row_(a),
        v_(a.pass.vectors[row_.d]),
        at_(vector_sums(a.pass.norm, C::kCell, a.pass.H)),
        state_(row_.state(a.pass) * a.pass.H),
        units_(row_.live ? a.pass.H : 0),
        apart_(norms_apart(a.pass.norm)),
        summed_(a.pass.norm == Norm::dreamer) {
    order_ = static_cast<int>(p_.T) - 1 - a.step;
    cut_ = row_.anew(p_, order_ + 1);
    fresh_ = row_.last || row_.length <= 0;
    seen_ = a.gates + row_.state(p_) * 4 * p_.H;
    sums_ = a.sums + row_.state(p_) * at_.all;
    if (!row_.live) return;
    const int64_t saved = row_.saved(p_, row_.t);
    if (p_.saved)
      saved_ = static_cast<const T*>(p_.saved) + saved * normalised_saved(p_.norm, C::kCell) * p_.H;
    if (p_.stats) stats_ = p_.stats + saved * kNormStats;
  }

  FUSEGEN_DEVICE void run() {
    const bool leaves = row_.there && !row_.bad() && (row_.reverse ? row_.t == row_.length : row_.t < 0);
    if (leaves) leave();
    if (row_.there && row_.bad() && a_.step == 0) spoil();
    if constexpr (C::kCell == Cell::lstm) {
      lstm();
    } else if constexpr (C::kCell == Cell::gru) {
      const float sign = static_cast<float>(keep_sign(p_.norm));
      each([&](int u) {
        const auto d = cells::gru_backward(saved(u), saved(p_.H + u), saved(2 * p_.H + u),
                                           saved(3 * p_.H + u), h_before(u), dh_of(u));
        a_.c[state_ + u] = d.h_prev;
        see(0, u, d.r);
        see(1, u, d.z * sign);
        see(2, u, d.n);
        see(3, u, d.q);
      });
    } else {
      each([&](int u) {
        const float y = read<T>(p_.y, row_.call(p_, row_.t) * p_.H + u);
        see(0, u, cells::rnn_backward(p_.cell == Cell::rnn_relu, y, dh_of(u)));
      });
    }
    parts();
    if (row_.there && !row_.live && row_.t >= 0 && row_.t < p_.T) rest();
  }

private:
  template <class F>
  FUSEGEN_DEVICE void each(const F& f) const {
    each_unit(row_.lane, a_.log_lanes, units_, f);
  }
  FUSEGEN_DEVICE float saved(int i) const { return device::widen(saved_[i]); }
  // Of what the activations saw: LSTM i, f, g, o; GRU r, z, n and q, R's part of n.
  FUSEGEN_DEVICE void see(int gate, int u, float d) const { seen_[gate * p_.H + u] = d; }

  // What the step behind this one, of time or of its direction, sends back of h and of c: read once, and not
  // past a boundary.
  FUSEGEN_DEVICE float arrives_h(int u) const {
    if (fresh_) return read_or_zero<T>(p_.dh_n, state_ + u);
    const float d = a_.dh[state_ + u] + (C::kCell == Cell::gru ? a_.c[state_ + u] : 0.0f);
    if (!cut_) return d;
    if (p_.dreset_h) p_.dreset_h[state_ + u] += d;
    return 0;
  }
  FUSEGEN_DEVICE float arrives_c(int u) const {
    if (fresh_) return read_or_zero<T>(p_.dc_n, state_ + u);
    const float d = a_.c[state_ + u];
    if (!cut_) return d;
    if (p_.dreset_c) p_.dreset_c[state_ + u] += d;
    return 0;
  }
  FUSEGEN_DEVICE float dh_of(int u) const {
    return arrives_h(u) + read_or_zero<T>(p_.dy, row_.call(p_, row_.t) * p_.H + u);
  }

  // Behind its first step.
  FUSEGEN_DEVICE void leave() const {
    each_unit(row_.lane, a_.log_lanes, p_.H, [&](int u) {
      write_if_wanted<T>(p_.dh0, state_ + u, arrives_h(u));
      if constexpr (C::kCell == Cell::lstm) write_if_wanted<T>(p_.dc0, state_ + u, arrives_c(u));
    });
  }
  FUSEGEN_DEVICE void spoil() const {
    if (row_.lane == 0) device::store_first(p_.error, error_of_length(row_.b));
    each_unit(row_.lane, a_.log_lanes, p_.H, [&](int u) {
      write_if_wanted<T>(p_.dh0, state_ + u, device::not_a_number());
      if constexpr (C::kCell == Cell::lstm) write_if_wanted<T>(p_.dc0, state_ + u, device::not_a_number());
    });
  }

  FUSEGEN_DEVICE int before() const { return row_.reverse ? row_.t + 1 : row_.t - 1; }
  FUSEGEN_DEVICE float h_before(int u) const {
    if (row_.anew(p_, order_)) return read_or_zero<T>(p_.boundaries.h, state_ + u);
    if (row_.first) return read_or_zero<T>(p_.h0, state_ + u);
    return read<T>(p_.y, row_.call(p_, before()) * p_.H + u);
  }
  FUSEGEN_DEVICE float c_before(int u) const {
    if (row_.anew(p_, order_)) return read_or_zero<T>(p_.boundaries.c, state_ + u);
    if (row_.first) return read_or_zero<T>(p_.c0, state_ + u);
    return p_.cells[row_.saved(p_, before()) * p_.H + u];
  }

  FUSEGEN_DEVICE void lstm() const {
    const int H = p_.H;
    const float* const cells_now = p_.cells + (row_.live ? row_.saved(p_, row_.t) : 0) * H;
    const float mean = apart_ && row_.live ? stats_[1] : 0.0f, rstd = apart_ && row_.live ? stats_[3] : 1.0f;
    float sum[2] = {};
    each([&](int u) {
      const float o = saved(3 * H + u), dh = dh_of(u), c = cells_now[u];
      float seen = c, hat = 0;
      if (apart_) {
        hat = (c - mean) * rstd;
        seen = hat * read<T>(v_.g_c, u) + read_or_zero<T>(v_.b_c, u);
      }
      const float tc = Math::tanh(seen);
      see(3, u, dh * tc * o * (1 - o));
      float e = dh * o * (1 - tc * tc);
      if (apart_) {
        sums_[at_.g_c + u] += e * hat;
        sums_[at_.b_c + u] += e;
        e *= read<T>(v_.g_c, u);
        sum[0] += e;
        sum[1] += e * hat;
      }
      see(0, u, e);
    });
    if (apart_) add_over_row(sum, a_.log_lanes, 1);
    const float middle = sum[0] * a_.of_state, tilt = sum[1] * a_.of_state;
    each([&](int u) {
      const float i = saved(u), f = saved(H + u), g = saved(2 * H + u);
      float d = seen_[u];
      if (apart_) d = rstd * (d - middle - (cells_now[u] - mean) * rstd * tilt);
      d += arrives_c(u);
      see(0, u, d * g * i * (1 - i));
      see(1, u, d * c_before(u) * f * (1 - f));
      see(2, u, d * i * (1 - g * g));
      a_.c[state_ + u] = d * f;
    });
  }

  // Of what the activations saw, the gradient of W x's part of a gate and of R h''s; of a sum the latter.
  FUSEGEN_DEVICE float of_x(int gate, int u) const { return seen_[gate * p_.H + u]; }
  FUSEGEN_DEVICE float of_h(int gate, int u) const {
    return seen_[(C::kCell == Cell::gru && gate == 2 ? 3 : gate) * p_.H + u];
  }

  // From those to the gradients of W x and R h'.
  FUSEGEN_DEVICE void parts() const {
    const int H = p_.H;
    const int64_t row = row_.live ? row_.call(p_, row_.t) * C::kGates * H : 0;
    T *const dx = static_cast<T*>(p_.dx_part) + row, *const dh = p_.dh_part
                                                                     ? static_cast<T*>(p_.dh_part) + row
                                                                     : nullptr;
    if (C::kGates == 1 || p_.norm == Norm::none) {
      each([&](int u) {
#pragma unroll
        for (int gate = 0; gate < C::kGates; ++gate) {
          const int i = gate * H + u;
          const float x = of_x(gate, u), h = of_h(gate, u);
          sums_[at_.b_ih + i] += x;
          if (at_.b_hh >= 0) sums_[at_.b_hh + i] += h;
          dx[i] = device::narrow<T>(x);
          if (dh) dh[a_.places.of(gate, u)] = device::narrow<T>(h);
        }
      });
      return;
    }
    constexpr int kPlain = 4;
    const auto hat = [&](int first, int i) { return saved(first * H + i); };
    const int of_h_hat = kPlain + (apart_ ? C::kGates : 0);
    const void* const g_h = summed_ ? v_.g_ih : v_.g_hh;
    // of each group of W x and then of R h', the sums of the gradients times gain, and times what was
    // normalised
    constexpr int kGroups = C::kGroups, N = 4 * kGroups;
    float sum[N] = {};
    each([&](int u) {
#pragma unroll
      for (int gate = 0; gate < C::kGates; ++gate) {
        const int i = gate * H + u, group = kGroups == 2 ? group_of(p_.norm, C::kCell, gate) : 0;
        const float h = of_h(gate, u), n = hat(of_h_hat, i), e = h * read<T>(g_h, i);
        const auto add = [&](int first, float e_, float n_) {
#pragma unroll
          for (int g = 0; g < kGroups; ++g) {
            sum[first + 2 * g] += g == group ? e_ : 0.0f;
            sum[first + 2 * g + 1] += g == group ? e_ * n_ : 0.0f;
          }
        };
        add(2 * kGroups, e, n);
        sums_[(summed_ ? at_.g_ih : at_.g_hh) + i] += h * n;
        if (summed_) {
          sums_[at_.b_ih + i] += h;
          continue;
        }
        const float x = of_x(gate, u), m = hat(kPlain, i);
        add(0, x * read<T>(v_.g_ih, i), m);
        sums_[at_.g_ih + i] += x * m;
        sums_[at_.b_ih + i] += x;
        if (at_.b_hh >= 0) sums_[at_.b_hh + i] += h;
      }
    });
    add_over_row(sum, a_.log_lanes, 0);
    each([&](int u) {
#pragma unroll
      for (int gate = 0; gate < C::kGates; ++gate) {
        const int i = gate * H + u, group = kGroups == 2 ? group_of(p_.norm, C::kCell, gate) : 0;
        const auto normal = [&](int first, float rstd, float e, float n) {
          const bool second = kGroups == 2 && group == 1;
          const float s = second ? sum[first + 2 * (kGroups - 1)] : sum[first],
                      t = second ? sum[first + 2 * (kGroups - 1) + 1] : sum[first + 1],
                      mean = a_.of_group[group];
          return rstd * (e - s * mean - n * (t * mean));
        };
        const float h =
            normal(2 * kGroups, stats_[2 + group], of_h(gate, u) * read<T>(g_h, i), hat(of_h_hat, i));
        const float x =
            summed_ ? h : normal(0, stats_[group], of_x(gate, u) * read<T>(v_.g_ih, i), hat(kPlain, i));
        dx[i] = device::narrow<T>(x);
        if (dh) dh[a_.places.of(gate, u)] = device::narrow<T>(h);
      }
    });
  }

  // Past a sequence's end.
  FUSEGEN_DEVICE void rest() const {
    const float nothing = row_.bad() ? device::not_a_number() : 0.0f;
    const int64_t row = row_.call(p_, row_.t) * C::kGates * p_.H;
    each_unit(row_.lane, a_.log_lanes, C::kGates * p_.H, [&](int i) {
      write<T>(p_.dx_part, row + i, nothing);
      write_if_wanted<T>(p_.dh_part, row + i, nothing);
    });
  }

  const RowArguments<Pass>& a_;
  const Pass& p_;
  const Row<Pass> row_;
  const NormalisedVectors& v_;
  const VectorSums at_;
  const int64_t state_;
  const int units_;
  const bool apart_, summed_;
  int order_;
  bool cut_, fresh_;
  float *seen_, *sums_;
  const T* saved_ = nullptr;
  const float* stats_ = nullptr;
};

template <class C, class T>
FUSEGEN_KERNEL void rows_backward_kernel(FUSEGEN_ARGUMENT RowArguments<NormalisedBackwardPass> a) {
  BackwardRow<C, T>(a).run();
}

// The gradients of gains and biases, added up over the batch in its order: a lane for each number.
template <class T>
FUSEGEN_KERNEL void total_rows_kernel(FUSEGEN_ARGUMENT TotalArguments a) {
  const NormalisedBackwardPass& p = a.pass;
  const VectorSums at = vector_sums(p.norm, p.cell, p.H);
  const int64_t lane = static_cast<int64_t>(device::block()) * device::kThreads + device::thread();
  if (lane >= static_cast<int64_t>(p.D) * at.all) return;
  const int d = lane >= at.all ? 1 : 0, i = static_cast<int>(lane - static_cast<int64_t>(d) * at.all);
  const float* from = a.sums + static_cast<int64_t>(d) * p.B * at.all + i;
  double sum = 0;
#pragma unroll 4
  for (int b = 0; b < p.B; ++b) sum += static_cast<double>(from[static_cast<int64_t>(b) * at.all]);
  const auto give = [&](int first, int n, void* to) {
    if (first >= 0 && i >= first && i < first + n) write_if_wanted<T>(to, i - first, static_cast<float>(sum));
  };
  const NormalisedVectorGradients& g = p.dvectors[d];
  const int GH = gate_count(p.cell) * p.H;
  give(at.b_ih, GH, g.b_ih);
  give(at.g_ih, GH, g.g_ih);
  give(at.g_hh, GH, g.g_hh);
  give(at.b_hh >= 0 ? at.b_hh : at.b_ih, GH, g.b_hh);
  give(at.g_c, p.H, g.g_c);
  give(at.b_c, p.H, g.b_c);
}

}  // namespace fusegen::cuda::normalised
