// A layer whose weights have 8 bits, forward, for inference: one direction, whole sequence.
//
// As in forward.h, the input products of a chunk of steps are made at once, then the steps run. Activations
// are quantised row by row as they come: x once, h by every thread for itself, which costs less than a second
// barrier at each step. Scales, biases and the cell's maths are float32.
#pragma once
#include <optional>

#include "int8_weights.h"
#include "kernel.h"

namespace fusegen::FUSEGEN_ISA_NS {

// The rows of a product: integers with a scale each, or float32.
struct Int8Rows {
  const Activation* const* quantized;
  const float* scale;
  const float* const* plain;  // where weights alone have 8 bits
  int count;
};

// epilogue(row, rows, panel, a) ends a tile: a[r][NW * L] are the finished sums of its rows, in float32.
template <int NW, class Epilogue>
void int8_product(const Int8Rows& rows, const Int8Matrix& m, const Range& panels, const Epilogue& epilogue) {
  constexpr int L = kLanes<float>, V = kPassVectors<NW>, kRows = kInt8Rows<V>, kWidth = NW * L;
  alignas(64) int32_t sums[kRows][kWidth];
  alignas(64) float plain[kRows][kWidth];
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    const int8_t* const w = m.data + p * m.panel_bytes();
    const int32_t* const start = m.start + p * kWidth;
    const float* const scale = m.scale + p * kWidth;
    for (int row = 0; row < rows.count;) {
      const int most = rows.plain ? kWeightOnlyRows<V> : kRows, left = rows.count - row,
                tiles = (left + most - 1) / most, height = (left + tiles - 1) / tiles;
      [&]<int... i>(std::integer_sequence<int, i...>) {
        (void)((height == i + 1 &&
                ([&] {
                  for (int pass = 0; pass < kPasses<NW>; ++pass) {
                    const int8_t* const of_pass = w + pass * m.steps() * m.step * V * L;
                    if constexpr (i < kWeightOnlyRows<V>) {
                      if (rows.plain) {
                        weight_only_tile<V, i + 1>(rows.plain + row, of_pass, m.steps(), plain[0] + pass * V * L,
                                                   kWidth);
                        continue;
                      }
                    }
                    int8_tile<V, i + 1>(rows.quantized + row, of_pass, m.steps(), start + pass * V * L,
                                        sums[0] + pass * V * L, kWidth);
                  }
                }(),
                true)) ||
               ...);
      }(std::make_integer_sequence<int, kRows>{});
      for (int r = 0; r < height; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < NW; ++j) {
          float* const a = plain[r] + j * L;
          const Vector<float> v = rows.plain ? load(a)
                                             : __builtin_convertvector(load(sums[r] + j * L), Vector<float>) *
                                                   rows.scale[row + r];
          store(a, v * load(scale + j * L));
        }
      }
      epilogue(row, height, p, plain);
      row += height;
    }
  }
}

// The epilogue that calls f(row, panel, a) for each row of a tile.
template <class F>
FUSEGEN_INLINE auto each_row_of_floats(F f) {
  return [f](int row, int rows, int64_t panel, const auto* a) {
    for (int r = 0; r < rows; ++r) f(row + r, panel, a[r]);
  };
}

template <class S, Cell cell>
class Int8Kernel {
  using C = float;
  using V = Vector<float>;
  static constexpr int L = kLanes<float>, G = gate_count(cell), NW = G == 1 ? kTileVectors : G;
  static constexpr int64_t kRows = 96;  // steps times batch, whose input product is made at once, or one step

  const Int8Forward& p_;
  const Range batch_;  // of p's rows
  const int64_t B_, chunk_, steps_;
  const Int8Weights weights_;
  const PanelShape shape_, projection_;
  const int64_t width_, ldx_, ldh_, ldc_, ldq_;
  const bool relu_;
  const int team_;
  float *pre_, *x_, *h_[2], *c_, *hidden_;
  Activation *xq_, *hq_;       // [chunk * B][ldx], [team][B][ldq]
  float *x_scale_, *h_scale_;  // [chunk * B], [team][B]
  const float** plain_;        // [team][chunk * B]
  const Activation** quantized_;

public:
  Int8Kernel(const Int8Forward& p, const Range& batch, int team, cpu::Arena& arena)
      : p_(p),
        batch_(batch),
        B_(batch.end - batch.begin),
        chunk_(std::max<int64_t>(1, kRows / std::max<int64_t>(1, B_))),
        steps_(longest(p, batch)),
        weights_(Int8Pack{.cell = p.cell,
                          .I = p.I,
                          .H = p.H,
                          .P = p.P,
                          .project = p.project,
                          .weight_only = p.weight_only,
                          .W = nullptr,
                          .R = nullptr,
                          .W_hr = nullptr,
                          .s_W = nullptr,
                          .s_R = nullptr,
                          .s_hr = nullptr,
                          .b_ih = nullptr,
                          .b_hh = nullptr,
                          .packed = nullptr},
                 const_cast<void*>(p.packed)),
        shape_{p.H, G},
        projection_{p.P, 1},
        width_(shape_.count<C>() * NW * L),
        ldx_(padded<C>(p.I)),
        ldh_(padded<C>(p.P)),
        ldc_(padded<C>(p.H)),
        ldq_(padded<C>(std::max(p.P, p.H))),
        relu_(p.cell == Cell::rnn_relu),
        team_(team) {
    const int64_t rows = chunk_ * B_;
    pre_ = arena.take<float>(rows * width_);
    x_ = arena.take<float>(rows * ldx_);
    for (float*& h : h_) h = arena.take<float>(B_ * ldh_);
    c_ = arena.take<float>(cell == Cell::lstm ? B_ * ldc_ : 0);
    hidden_ = arena.take<float>(p.project ? B_ * ldc_ : 0);
    xq_ = arena.take<Activation>(p.weight_only ? 0 : rows * ldx_);
    hq_ = arena.take<Activation>(p.weight_only ? 0 : team * B_ * ldq_);
    x_scale_ = arena.take<float>(rows);
    h_scale_ = arena.take<float>(team * B_);
    plain_ = arena.take<const float*>(team * rows);
    quantized_ = arena.take<const Activation*>(team * rows);
  }

  void run(const Team& team) const {
    const Range panels = share(shape_.count<C>(), team);
    begin(team);
    team.barrier();
    for (int64_t first = 0; first < steps_; first += chunk_) {
      const int64_t n = std::min(chunk_, steps_ - first);
      int8_product<NW>(input_rows(first, n, team), weights_.W, panels,
                       each_row_of_floats([&](int row, int64_t panel, const float* a) {
                         float* const out = pre_ + row * width_ + panel * NW * L;
                         for (int j = 0; j < NW; ++j)
                           store(out + j * L, load(a + j * L) + load(weights_.bias + (panel * NW + j) * L));
                       }));
      for (int64_t step = first; step < first + n; ++step) {
        const float* const pre = pre_ + (step - first) * B_ * width_;
        int8_product<NW>(state_rows(h_[step % 2], ldh_, p_.P, team), weights_.R, panels,
                         [&](int row, int rows, int64_t panel, float (*a)[NW * L]) {
                           activate_gates(pre, row, rows, panel, a);
                           for (int r = 0; r < rows; ++r) finish(step, pre, row + r, panel, a[r]);
                         });
        team.barrier();
        if constexpr (cell == Cell::lstm)
          if (p_.project) {
            int8_product<kTileVectors>(state_rows(hidden_, ldc_, p_.H, team), weights_.W_hr,
                                       share(projection_.count<C>(), team),
                                       each_row_of_floats([&](int row, int64_t panel, const float* a) {
                                         give(step, projection_, row, panel, a);
                                       }));
            team.barrier();
          }
      }
    }
    end(team);
  }

private:
  static int64_t length(const Int8Forward& p, int64_t b) { return p.lengths ? p.lengths[b] : p.T; }
  int64_t length(int64_t row) const { return length(p_, batch_.begin + row); }
  static int64_t longest(const Int8Forward& p, const Range& batch) {
    int64_t most = 0;
    for (int64_t b = batch.begin; b < batch.end; ++b) most = std::max(most, length(p, b));
    return most;
  }
  // Of a row's step; any time of one that has ended.
  int64_t time(int64_t row, int64_t step) const {
    return p_.reverse && step < length(row) ? length(row) - 1 - step : step;
  }

  void begin(const Team& team) const {
    const Range mine = share(B_, team);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t b = batch_.begin + i;
      copy_in(p_.h0, b, p_.P, h_[0] + i * ldh_);
      if (cell == Cell::lstm) copy_in(p_.c0, b, p_.H, c_ + i * ldc_);
      for (int64_t t = length(i); t < p_.T; ++t)
        std::memset(static_cast<void*>(row_of<S>(p_.y, t, b)), 0, p_.P * sizeof(S));
    }
  }
  void end(const Team& team) const {
    const Range mine = share(B_, team);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t b = batch_.begin + i;
      copy_out(h_[steps_ % 2] + i * ldh_, p_.P, row_of<S>(p_.h_n, 0, b));
      if (cell == Cell::lstm) copy_out(c_ + i * ldc_, p_.H, row_of<S>(p_.c_n, 0, b));
    }
  }
  static void copy_in(const Rows& from, int64_t b, int64_t n, float* to) {
    for (int64_t u = 0; u < n; u += L)
      store(to + u, from.data ? load(row_of<S>(from, 0, b) + u, lanes_left<C>(n, u)) : V{});
  }
  static void copy_out(const float* from, int64_t n, S* to) {
    for (int64_t u = 0; u < n; u += L) store(to + u, load(from + u), lanes_left<C>(n, u));
  }

  // Those of steps first .. first + n; ends with a barrier.
  Int8Rows input_rows(int64_t first, int64_t n, const Team& team) const {
    const int64_t count = n * B_, own = team.rank * chunk_ * B_;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = i % B_;
      plain_[own + i] = x_ + i * ldx_;
      quantized_[own + i] = xq_ + i * ldx_;
      if (i % team.size != team.rank) continue;
      const S* const x = row_of<S>(p_.x, time(row, first + i / B_), batch_.begin + row);
      for (int64_t u = 0; u < p_.I; u += L) store(x_ + i * ldx_ + u, load(x + u, lanes_left<C>(p_.I, u)));
      if (!p_.weight_only) quantize_row(x_ + i * ldx_, p_.I, xq_ + i * ldx_, x_scale_ + i);
    }
    team.barrier();
    return rows_of(own, x_scale_, count);
  }
  Int8Rows state_rows(const float* state, int64_t ld, int64_t n, const Team& team) const {
    const int64_t own = team.rank * chunk_ * B_;
    float* const scale = h_scale_ + team.rank * B_;
    for (int64_t i = 0; i < B_; ++i) {
      Activation* const q = hq_ + (team.rank * B_ + i) * ldq_;
      plain_[own + i] = state + i * ld;
      quantized_[own + i] = q;
      if (!p_.weight_only) quantize_row(state + i * ld, n, q, scale + i);
    }
    return rows_of(own, scale, B_);
  }
  Int8Rows rows_of(int64_t own, const float* scale, int64_t count) const {
    return {quantized_ + own, scale, p_.weight_only ? plain_ + own : nullptr, static_cast<int>(count)};
  }

  // The gates of a tile's rows, in place. As in forward.h, rows do not wait for each other here.
  FUSEGEN_INLINE void activate_gates(const float* pre, int row, int rows, int64_t panel,
                                     float (*a)[NW * L]) const {
    for (int r = 0; r < rows; ++r) {
      const float* const x = pre + (row + r) * width_ + panel * NW * L;
      const auto sum = [&](int j) { return load(a[r] + j * L) + load(x + j * L); };
      if constexpr (cell == Cell::lstm) {
        const auto gates = cells::lstm_gates<Math>(sum(0), sum(1), sum(2), sum(3));
        store(a[r], gates.i);
        store(a[r] + L, gates.f);
        store(a[r] + 2 * L, gates.g);
        store(a[r] + 3 * L, gates.o);
      } else if constexpr (cell == Cell::gru) {
        const auto gates = cells::gru_gates<Math>(sum(0), sum(1));
        store(a[r], gates.r);
        store(a[r] + L, gates.z);
      } else {
        for (int j = 0; j < kTileVectors; ++j) store(a[r] + j * L, cells::rnn<Math>(relu_, sum(j)));
      }
    }
  }

  // The state from the gates, for a panel's units of one row.
  void finish(int64_t step, const float* pre, int row, int64_t panel, const float* a) const {
    const int64_t u = panel * L;
    if constexpr (cell == Cell::lstm) {
      float* const c = c_ + row * ldc_ + u;
      const cells::LstmGates<V> gates{load(a), load(a + L), load(a + 2 * L), load(a + 3 * L)};
      const auto state = cells::lstm_state<Math>(gates, load(c));
      if (step < length(row)) store(c, state.c);
      if (p_.project) store(hidden_ + row * ldc_ + u, state.h);
      else give(step, row, u, state.h, shape_.lanes<C>(panel, 0));
    } else if constexpr (cell == Cell::gru) {
      const cells::GruGates<V> gates{load(a), load(a + L)};
      const V x_n = load(pre + row * width_ + (panel * NW + 2) * L);
      const V q = load(a + 2 * L) + load(weights_.bias_q + (panel * NW + 2) * L);
      const auto state = cells::gru_state<Math>(gates, x_n, q, load(h_[step % 2] + row * ldh_ + u));
      give(step, row, u, state.h, shape_.lanes<C>(panel, 0));
    } else {
      give(step, shape_, row, panel, a);
    }
  }
  void give(int64_t step, const PanelShape& shape, int row, int64_t panel, const float* h) const {
    for (int j = 0; j < kTileVectors; ++j)
      if (const int lanes = shape.lanes<C>(panel, j))
        give(step, row, shape.row<C>(panel, j), load(h + j * L), lanes);
  }
  void give(int64_t step, int64_t row, int64_t u, V h, int lanes) const {
    float* const after = h_[(step + 1) % 2] + row * ldh_ + u;
    if (step >= length(row)) return store(after, load(h_[step % 2] + row * ldh_ + u));
    store(after, rounded<S>(h));
    store(row_of<S>(p_.y, time(row, step), batch_.begin + row) + u, h, lanes);
  }
};

// Rows are quantised once, then threads share the panels.
template <class S>
void int8_linear(const Int8Linear& p) {
  constexpr int L = kLanes<float>;
  const Int8LinearWeights weights(p.I, p.O, p.weight_only, const_cast<void*>(p.packed));
  const int64_t ld = padded<float>(p.I);
  float *x, *scale;
  Activation* q;
  const float** plain;
  const Activation** quantized;
  const cpu::Arena arena([&](cpu::Arena& a) {
    x = a.take<float>(p.n * ld);
    q = a.take<Activation>(p.weight_only ? 0 : p.n * ld);
    scale = a.take<float>(p.n);
    plain = a.take<const float*>(p.n);
    quantized = a.take<const Activation*>(p.n);
  });
#pragma omp parallel num_threads(p.threads)
  {
    const Team team{omp_get_thread_num(), omp_get_num_threads()};
    const Range mine = share(p.n, team);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      plain[i] = x + i * ld;
      quantized[i] = q + i * ld;
      const S* const from = static_cast<const S*>(p.x) + i * p.I;
      for (int64_t u = 0; u < p.I; u += L) store(x + i * ld + u, load(from + u, lanes_left<float>(p.I, u)));
      if (!p.weight_only) quantize_row(x + i * ld, p.I, q + i * ld, scale + i);
    }
    team.barrier();
    int8_product<kTileVectors>(
        {quantized, scale, p.weight_only ? plain : nullptr, static_cast<int>(p.n)}, weights.W,
        share(weights.W.panels(), team), each_row_of_floats([&](int row, int64_t panel, const float* a) {
          for (int j = 0; j < kTileVectors; ++j) {
            const int lanes = weights.W.shape.template lanes<float>(panel, j);
            if (!lanes) break;
            const int64_t u = weights.W.shape.template row<float>(panel, j);
            store(static_cast<S*>(p.y) + row * p.O + u, load(a + j * L) + load(weights.bias + u), lanes);
          }
        }));
  }
}

template <Cell cell>
void int8_forward(const Int8Forward& p, const cpu::Plan& plan) {
  const auto run = [&]<class S>(S) {
    const auto kernel = [&](const Range& batch, int team, const auto& work) {
      std::optional<Int8Kernel<S, cell>> laid_out;
      const cpu::Arena arena([&](cpu::Arena& a) { laid_out.emplace(p, batch, team, a); });
      work(*laid_out);
    };
    if (plan.over_rows) {
#pragma omp parallel num_threads(plan.threads)
      {
        const Range mine = share(p.B, omp_get_thread_num(), omp_get_num_threads());
        if (mine.begin < mine.end) kernel(mine, 1, [](const auto& k) { k.run({0, 1}); });
      }
      return;
    }
    kernel({0, p.B}, plan.threads, [&](const auto& k) {
      if (plan.threads == 1) return k.run({0, 1});
#pragma omp parallel num_threads(plan.threads)
      k.run({omp_get_thread_num(), omp_get_num_threads()});
    });
  };
  switch (p.dtype) {
    case Dtype::bf16: return run(bf16{});
    case Dtype::f16: return run(f16{});
    case Dtype::f32:
    case Dtype::f64: return run(float{});  // float64 is refused before
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
