// A step's rows, forward: layer norms of W x, R h', or their sum, then the cell's maths, and of an LSTM the
// norm of its state. 32 to 256 lanes share a row; each has every so many-th unit, all gates of it.
//
// A row of gates is read once for its mean, once for its deviation (of the differences: a difference of sums
// of squares would lose what the mean is larger by) and once for the gates, out of L1: H 1024, LSTM: 24 KB of
// 16-bit numbers and R h'.
#pragma once
#include "../../../cells.h"
#include "rows.h"

namespace fusegen::cuda::normalised {

struct Lstm {
  static constexpr int kGates = 4, kGroups = 1;
  static constexpr Cell kCell = Cell::lstm;
};
struct Gru {
  static constexpr int kGates = 3, kGroups = 2;
  static constexpr Cell kCell = Cell::gru;
};
struct Rnn {
  static constexpr int kGates = 1, kGroups = 1;
  static constexpr Cell kCell = Cell::rnn_tanh;  // or relu
};

template <class C, class T>
class ForwardRow {
public:
  using Pass = NormalisedForwardPass;

  FUSEGEN_DEVICE explicit ForwardRow(const RowArguments<Pass>& a)
      : a_(a),
        p_(a.pass),
        row_(a),
        v_(a.pass.vectors[row_.d]),
        state_(row_.state(a.pass) * a.pass.H),
        units_(row_.live ? a.pass.H : 0),
        apart_(norms_apart(a.pass.norm)),
        summed_(a.pass.norm == Norm::dreamer) {
    gx_ = static_cast<const T*>(p_.gx) + row_.call(p_, row_.live ? row_.t : 0) * C::kGates * p_.H;
    gates_ = a.gates + row_.state(p_) * C::kGates * p_.H;
    saved_ = p_.saved && row_.live ? static_cast<T*>(p_.saved) +
                                         row_.saved(p_, row_.t) * normalised_saved(p_.norm, C::kCell) * p_.H
                                   : nullptr;
    stats_ = p_.stats && row_.live ? p_.stats + row_.saved(p_, row_.t) * kNormStats : nullptr;
  }

  FUSEGEN_DEVICE void run() {
    if constexpr (C::kGates > 1) measure();
    // the same of each row's lanes, whatever state it is in
    const bool anew = row_.anew(p_, a_.step + 1);
    if constexpr (C::kCell == Cell::lstm) {
      lstm(anew);
    } else {
      each([&](int u) { finish(u, C::kCell == Cell::gru ? gru(u) : rnn(u), anew); });
    }
    if (row_.there && !row_.live) rest();
  }

private:
  template <class F>
  FUSEGEN_DEVICE void each(const F& f) const {
    each_unit(row_.lane, a_.log_lanes, units_, f);
  }
  FUSEGEN_DEVICE float x_at(int gate, int u) const { return device::widen(gx_[gate * p_.H + u]); }
  FUSEGEN_DEVICE float h_at(int gate, int u) const { return gates_[a_.places.of(gate, u)]; }

  // The lane's part of sums of `of`(number, place) over each group of W x, then of R h' or the sum.
  template <class Of>
  FUSEGEN_DEVICE void add_up(float (&to)[2 * C::kGroups], const Of& of) const {
    each([&](int u) {
#pragma unroll
      for (int gate = 0; gate < C::kGates; ++gate) {
        const int group = C::kGroups == 2 ? group_of(p_.norm, C::kCell, gate) : 0;
        const float x = x_at(gate, u), h = h_at(gate, u) + (summed_ ? x : 0.0f);
#pragma unroll
        for (int g = 0; g < C::kGroups; ++g) {
          to[g] += g == group ? of(x, g) : 0.0f;
          to[C::kGroups + g] += g == group ? of(h, C::kGroups + g) : 0.0f;
        }
      }
    });
  }

  // Of each group, the mean and 1 / the deviation of W x and of R h' or the sum.
  FUSEGEN_DEVICE void measure() {
    if (p_.norm == Norm::none) return;
    constexpr int N = 2 * C::kGroups;
    float sum[N] = {}, square[N] = {};
    add_up(sum, [](float v, int) { return v; });
    add_over_row(sum, a_.log_lanes, 0);
#pragma unroll
    for (int i = 0; i < N; ++i) mean_[i] = sum[i] * a_.of_group[i % C::kGroups];
    add_up(square, [&](float v, int i) { return (v - mean_[i]) * (v - mean_[i]); });
    add_over_row(square, a_.log_lanes, 1);
#pragma unroll
    for (int i = 0; i < N; ++i)
      rstd_[i] = reciprocal_deviation(square[i] * a_.of_group[i % C::kGroups] + p_.eps);
    if (!stats_ || row_.lane != 0) return;
#pragma unroll
    for (int g = 0; g < C::kGroups; ++g) {
      stats_[g] = rstd_[g];
      stats_[2 + g] = rstd_[C::kGroups + g];
    }
  }

  // W x and R h' of a gate as the cell reads them; of a sum all of it is in `h`.
  struct Parts {
    float x, h;
  };
  FUSEGEN_DEVICE Parts parts(int gate, int u) const {
    const int i = gate * p_.H + u;
    const float x = x_at(gate, u), h = h_at(gate, u);
    if (!apart_ && !summed_) return {x + read_or_zero<T>(v_.b_ih, i), h + read_or_zero<T>(v_.b_hh, i)};
    const int group = C::kGroups == 2 ? group_of(p_.norm, C::kCell, gate) : 0;
    const auto normal = [&](float v, int of) {
      // no index into registers
      const float mean = C::kGroups == 2 && group == 1 ? mean_[of + C::kGroups - 1] : mean_[of],
                  rstd = C::kGroups == 2 && group == 1 ? rstd_[of + C::kGroups - 1] : rstd_[of];
      return (v - mean) * rstd;
    };
    constexpr int kPlain = 4;  // saved_gates of what has norms
    if (summed_) {
      const float hat = normal(x + h, C::kGroups);
      save(kPlain * p_.H + i, hat);
      return {0, hat * read<T>(v_.g_ih, i) + read_or_zero<T>(v_.b_ih, i)};
    }
    const float x_hat = normal(x, 0), h_hat = normal(h, C::kGroups);
    save(kPlain * p_.H + i, x_hat);
    save((kPlain + C::kGates) * p_.H + i, h_hat);
    return {x_hat * read<T>(v_.g_ih, i) + read_or_zero<T>(v_.b_ih, i),
            h_hat * read<T>(v_.g_hh, i) + read_or_zero<T>(v_.b_hh, i)};
  }
  FUSEGEN_DEVICE float both(int gate, int u) const {
    const Parts v = parts(gate, u);
    return v.x + v.h;
  }
  FUSEGEN_DEVICE void save(int i, float v) const {
    if (saved_) saved_[i] = device::narrow<T>(v);
  }

  FUSEGEN_DEVICE void lstm(bool anew) {
    const int H = p_.H;
    const bool of_state = apart_;
    float sum[1] = {}, square[1] = {};
    each([&](int u) {
      const auto g = cells::lstm_gates<Math>(both(0, u), both(1, u), both(2, u), both(3, u));
      const float c = g.f * a_.c[state_ + u] + g.i * g.g;
      a_.c[state_ + u] = c;
      gates_[a_.places.of(3, u)] = g.o;  // where R h' of it was
      sum[0] += c;
      save(u, g.i);
      save(H + u, g.f);
      save(2 * H + u, g.g);
      save(3 * H + u, g.o);
    });
    float mean = 0, rstd = 1;
    if (of_state) {
      add_over_row(sum, a_.log_lanes, 0);
      mean = sum[0] * a_.of_state;
      each([&](int u) {
        const float off = a_.c[state_ + u] - mean;
        square[0] += off * off;
      });
      add_over_row(square, a_.log_lanes, 1);
      rstd = reciprocal_deviation(square[0] * a_.of_state + p_.eps);
      if (stats_ && row_.lane == 0) {
        stats_[1] = mean;
        stats_[3] = rstd;
      }
    }
    each([&](int u) {
      const float c = a_.c[state_ + u];
      float seen = c;
      if (of_state) seen = (c - mean) * rstd * read<T>(v_.g_c, u) + read_or_zero<T>(v_.b_c, u);
      if (p_.cells) p_.cells[row_.saved(p_, row_.t) * H + u] = c;
      if (row_.last) write<T>(p_.c_n, state_ + u, c);
      if (anew) a_.c[state_ + u] = read_or_zero<T>(p_.boundaries.c, state_ + u);
      finish(u, gates_[a_.places.of(3, u)] * Math::tanh(seen), anew);
    });
  }

  FUSEGEN_DEVICE float gru(int u) const {
    const int H = p_.H;
    const float r = both(0, u), z = both(1, u);
    const Parts n = parts(2, u);
    const auto g = cells::gru_gates<Math>(
        r, z * static_cast<float>(keep_sign(p_.norm)) + static_cast<float>(keep_shift(p_.norm)));
    const auto s = cells::gru_state<Math>(g, n.x, n.h, read<T>(a_.read, state_ + u));
    save(u, s.r);
    save(H + u, s.z);
    save(2 * H + u, s.n);
    save(3 * H + u, n.h);
    return s.h;
  }

  FUSEGEN_DEVICE float rnn(int u) const { return cells::rnn<Math>(p_.cell == Cell::rnn_relu, both(0, u)); }

  // y, and what R reads next.
  FUSEGEN_DEVICE void finish(int u, float h, bool anew) const {
    write<T>(p_.y, row_.call(p_, row_.t) * p_.H + u, h);
    if (row_.last) write<T>(p_.h_n, state_ + u, h);
    write<T>(a_.read, state_ + u, anew ? read_or_zero<T>(p_.boundaries.h, state_ + u) : h);
  }

  // Past a sequence's end. One without a step hands its start on; one whose length is no length is NaN.
  FUSEGEN_DEVICE void rest() const {
    const bool bad = row_.bad(), ends = row_.length <= 0 && a_.step == 0;
    if (bad && ends && row_.lane == 0) device::store_first(p_.error, error_of_length(row_.b));
    each_unit(row_.lane, a_.log_lanes, p_.H, [&](int u) {
      write<T>(p_.y, row_.call(p_, row_.t) * p_.H + u, bad ? device::not_a_number() : 0.0f);
      if (!ends) return;
      write<T>(p_.h_n, state_ + u, bad ? device::not_a_number() : read_or_zero<T>(p_.h0, state_ + u));
      if constexpr (C::kCell == Cell::lstm)
        write<T>(p_.c_n, state_ + u, bad ? device::not_a_number() : read_or_zero<T>(p_.c0, state_ + u));
    });
  }

  const RowArguments<Pass>& a_;
  const Pass& p_;
  const Row<Pass> row_;
  const NormalisedVectors& v_;
  const int64_t state_;
  const int units_;
  const bool apart_, summed_;
  const T* gx_;
  float* gates_;
  T* saved_;
  float* stats_;
  float mean_[2 * C::kGroups], rstd_[2 * C::kGroups];
};

template <class C, class T>
FUSEGEN_KERNEL void rows_forward_kernel(FUSEGEN_ARGUMENT RowArguments<NormalisedForwardPass> a) {
  ForwardRow<C, T>(a).run();
}

// h as R reads it at the first step, and c: a lane for each number.
template <class T>
FUSEGEN_KERNEL void start_rows_kernel(FUSEGEN_ARGUMENT StartArguments a) {
  const NormalisedForwardPass& p = a.pass;
  const int64_t i = static_cast<int64_t>(device::block()) * device::kThreads + device::thread(),
                of_direction = static_cast<int64_t>(p.B) * p.H;
  if (i >= p.D * of_direction) return;
  const int d = i >= of_direction ? 1 : 0, b = static_cast<int>((i - d * of_direction) / p.H);
  const bool anew = p.boundaries.at && starts_anew(p, d, 0, b);
  write<T>(a.read, i, read_or_zero<T>(anew ? p.boundaries.h : p.h0, i));
  if (p.cell == Cell::lstm) a.c[i] = read_or_zero<T>(anew ? p.boundaries.c : p.c0, i);
}

}  // namespace fusegen::cuda::normalised
