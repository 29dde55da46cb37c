// The recurrence, forward: one direction of one layer, whole sequence.
//
// Steps go in chunks. For a chunk, the input product of all its rows is made at once (each weight panel is
// read once per chunk, not once per step), then the steps run: the recurrent product of a tile is summed in
// registers, the input product added, and the cell's maths follows while the tile is in L1. Only the state is
// exchanged between steps.
#pragma once
#include "inside.h"
#include "packed.h"
#include "sequence.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S, Cell cell>
class Forward : Sequence<RecurrentForward, S, cell> {
  using Base = Sequence<RecurrentForward, S, cell>;
  using Base::batches_, Base::bounds_, Base::fresh_, Base::p_, Base::plan_, Base::relu_, Base::project_;
  using Base::G, Base::L;
  using typename Base::C, typename Base::V;
  static constexpr int NW = G == 1 ? kTileVectors : G;
  static constexpr bool kPairs = kStep<S> == Step::pair;

  // What the threads of one team share.
  struct TeamScratch {
    C* pre;        // [chunk rows][panel][NW][L] input product and biases
    C* x;          // [chunk rows][ldx] the input as the product reads it, where that is not how it is stored
    C* h[2];       // [rows][ldh] state before and after the step
    C* pairs[2];   // [rows][ldh] the same as pairs of bf16, where that is what the product reads
    C* masked[2];  // [rows][ldh] the same with the state's mask, where there is one and no pairs
    C* c;          // [rows][ldc]
    C* hidden;     // [rows][ldc] o tanh(c), what a projection reads
  };

  // Where a row's results of one step go.
  struct Outputs {
    S* y;
    S* gates;
    C* cells;
  };

  // One step of a team.
  struct TeamStep {
    const TeamScratch& s;
    int64_t step;
    int rows;           // that take part, the first so many
    int64_t first;      // of them in `pre`
    const C* const* h;  // the state before, of each
    const Outputs* outputs;
    const RowInside* inside;
  };

  Inside<S> inside_;
  const PanelShape shape_;
  const int64_t width_;  // of a row of `pre`
  const int64_t ldx_, ldh_, ldc_;

  const C *W_, *R_, *W_hr_;
  C* own_packed_ = nullptr;
  const bool fresh_W_, fresh_R_;
  C* bias_;    // [panel][NW][L]: b_ih + b_hh, of GRU's n only b_in
  C* bias_q_;  // [panel][L]: GRU's b_hn
  std::vector<TeamScratch> scratch_;

public:
  Forward(const RecurrentForward& p, const cpu::Plan& plan)
      : Base(p, plan, plan.chunk_rows * Base::teams(plan)),
        inside_(p),
        shape_{p.H, G},
        width_(shape_.count<C>() * NW * L),
        ldx_(padded<C>(steps<S>(p.I))),
        ldh_(padded<C>(p.P)),
        ldc_(padded<C>(p.H)),
        fresh_W_(!p.packed && this->reads_W_once()),
        fresh_R_(!p.packed && this->reads_R_once()) {}

  void run() {
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
#pragma omp parallel num_threads(plan_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      if (own_packed_)
        packed(own_packed_).pack(fresh_W_ ? Matrix{} : p_.W, fresh_R_ ? Matrix{} : p_.R, p_.W_hr, rank, size);
      fill_biases<S, cell>(shape_, {p_.b_ih, p_.b_hh}, bias_, bias_q_, rank, size);
#pragma omp barrier
      this->each_team(rank, size, [&](int k, const Team& team) { run_team(k, team); });
    }
  }

private:
  Packed<S> packed(void* base) const { return {cell, p_.I, p_.H, p_.P, project_, base}; }

  void lay_out(cpu::Arena& arena) {
    Packed<S> weights = packed(const_cast<void*>(p_.packed));
    if (!p_.packed) {
      own_packed_ = arena.take<C>(weights.elements());
      weights = packed(own_packed_);
    }
    W_ = weights.W;
    R_ = weights.R;
    W_hr_ = weights.W_hr;
    fresh_ = arena.take<C>(fresh_W_ || fresh_R_ ? plan_.threads * kFreshElements<C> : 0);
    inside_.lay_out(arena);
    bias_ = arena.take<C>(width_);
    bias_q_ = arena.take<C>(cell == Cell::gru ? shape_.count<C>() * L : 0);
    scratch_.assign(batches_.size(), {});
    for (size_t k = 0; k < batches_.size(); ++k) {
      const int64_t rows = largest_chunk({batches_[k]}, bounds_);
      const int64_t n = batches_[k].size();
      TeamScratch& s = scratch_[k];
      s.pre = arena.take<C>(rows * width_);
      s.x = arena.take<C>(sizeof(S) == sizeof(C) ? 0 : rows * ldx_);
      s.h[0] = arena.take<C>(n * ldh_);
      s.h[1] = arena.take<C>(n * ldh_);
      for (C*& pairs : s.pairs) pairs = arena.take<C>(kPairs ? n * ldh_ : 0);
      for (C*& masked : s.masked) masked = arena.take<C>(masked_apart() ? n * ldh_ : 0);
      s.c = arena.take<C>(cell == Cell::lstm ? n * ldc_ : 0);
      s.hidden = arena.take<C>(project_ ? n * ldc_ : 0);
    }
  }

  bool masked_apart() const { return !kPairs && inside_.drops_state(); }

  void run_team(int k, const Team& team) {
    const Batch& batch = batches_[k];
    const TeamScratch& s = scratch_[k];
    const Range panels = share(shape_.count<C>(), team);
    const Range projection = share(PanelShape{p_.P, 1}.template count<C>(), team);
    start(batch, s, team);
    team.barrier();

    std::vector<const C*> x_rows, h_rows[2], hidden_rows;
    std::vector<Outputs> outputs(batch.size());
    StepInside inside{
        .units = elements(shape_, panels),
        .states = project_ ? elements(PanelShape{p_.P, 1}, projection) : elements(shape_, panels)};
    for (int i = 0; i < batch.size(); ++i) {
      for (int k = 0; k < 2; ++k)
        h_rows[k].push_back((kPairs ? s.pairs[k] : masked_apart() ? s.masked[k] : s.h[k]) + i * ldh_);
      hidden_rows.push_back(s.hidden + i * ldc_);
    }
    for (size_t chunk = 0; chunk + 1 < bounds_.size(); ++chunk) {
      const int64_t begin = bounds_[chunk], end = std::min(bounds_[chunk + 1], batch.steps());
      // teams whose sequences have all ended; only teams of one thread get here early
      if (begin >= end) break;
      input_rows(batch, s, {begin, end}, team, x_rows);
      input_product(x_rows, s, panels, team);
      TeamStep now{s, begin, 0, 0, nullptr, outputs.data(), nullptr};
      for (; now.step < end; now.first += now.rows, ++now.step) {
        now.rows = batch.active(now.step);
        now.h = h_rows[now.step % 2].data();
        locate(batch, now.step, now.rows, outputs);
        if (inside_) {
          inside_.at_step(batch, now.step, now.rows, inside);
          now.inside = inside.rows.data();
        }
        with_panels(fresh_R_, p_.R, R_, p_.P, team, [&](const auto& source) { recur(now, panels, source); });
        team.barrier();
        if constexpr (cell == Cell::lstm) {
          if (!project_) continue;
          project(now, hidden_rows, projection);
          team.barrier();
        }
      }
    }
    finish(batch, s, team);
  }

  void start(const Batch& batch, const TeamScratch& s, const Team& team) {
    const Range mine = share(batch.size(), team);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t b = batch.row[i];
      const bool begins = inside_.begins(batch, static_cast<int>(i), 0);
      inside_.make_dropped(b);
      copy_in(begins ? p_.resets.h : p_.h0, b, p_.P, s.h[0] + i * ldh_);
      for (int64_t u = 0; u < p_.P; u += L) {
        const V h = load(s.h[0] + i * ldh_ + u);
        if (inside_.drops_state())
          keep_state_inside(s, 0, i, u, h, lanes_left<C>(p_.P, u), {.b = b, .dropped = inside_.dropped(b)});
        else keep_state(s, 0, i, u, h, lanes_left<C>(p_.P, u));
      }
      if constexpr (cell == Cell::lstm) copy_in(begins ? p_.resets.c : p_.c0, b, p_.H, s.c + i * ldc_);
      for (int64_t t = batch.length[i]; t < p_.T; ++t) {
        std::memset(static_cast<void*>(row_of<S>(p_.y, t, b)), 0, p_.P * sizeof(S));
        if (p_.gates.data)
          std::memset(static_cast<void*>(row_of<S>(p_.gates, t, b)), 0, saved_gates(cell) * p_.H * sizeof(S));
        if (p_.cells.data && !p_.recompute) clear_cell(t, b);
      }
      for (int64_t n = p_.recompute ? batch.length[i] / p_.recompute : 0; n < kept_cells(); ++n)
        clear_cell(n, b);
    }
  }

  void clear_cell(int64_t t, int64_t b) const {
    std::memset(static_cast<void*>(row_of<C>(p_.cells, t, b)), 0, p_.H * sizeof(C));
  }
  // How many steps' cells are kept for gates to be made again.
  int64_t kept_cells() const { return p_.cells.data && p_.recompute ? (p_.T - 1) / p_.recompute : 0; }

  static void copy_in(const Rows& from, int64_t b, int64_t n, C* to) {
    for (int64_t u = 0; u < n; u += L)
      *reinterpret_cast<V*>(to + u) = from.data ? load(row_of<S>(from, 0, b) + u, lanes_left<C>(n, u)) : V{};
  }

  // L units of a row's state, from u on, for the next step; lanes past the last unit hold zero, since a
  // product of pairs reads one of them: with an infinite input they come as NaN.
  void keep_state(const TeamScratch& s, int64_t buffer, int64_t row, int64_t u, V h, int lanes) const {
    if constexpr (kPairs) h = first_lanes<C>(h, lanes);
    store(s.h[buffer] + row * ldh_ + u, rounded<S>(h));
    if constexpr (kPairs) store(reinterpret_cast<S*>(s.pairs[buffer] + row * ldh_) + u, h);
  }

  // The same where it begins anew, or R reads it masked.
  void keep_state_inside(const TeamScratch& s, int64_t buffer, int64_t row, int64_t u, V h, int lanes,
                         const RowInside& inside) const {
    if (inside.ends) h = inside_.start_h(inside.b, u, lanes);
    if (!inside.dropped) return keep_state(s, buffer, row, u, h, lanes);
    h = rounded<S>(first_lanes<C>(h, lanes));
    store(s.h[buffer] + row * ldh_ + u, h);
    const V masked = inside_.drop_state(inside.dropped, u, h);
    if constexpr (kPairs) store(reinterpret_cast<S*>(s.pairs[buffer] + row * ldh_) + u, masked);
    else store(s.masked[buffer] + row * ldh_ + u, masked);
  }

  // h_n and c_n: a row's last state stays where its last step left it.
  void finish(const Batch& batch, const TeamScratch& s, const Team& team) {
    const Range mine = share(batch.size(), team);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t b = batch.row[i];
      const C* h = s.h[batch.length[i] % 2] + i * ldh_;
      for (int64_t u = 0; u < p_.P; u += L)
        store(row_of<S>(p_.h_n, 0, b) + u, load(h + u), lanes_left<C>(p_.P, u));
      if constexpr (cell == Cell::lstm)
        for (int64_t u = 0; u < p_.H; u += L)
          store(row_of<S>(p_.c_n, 0, b) + u, load(s.c + i * ldc_ + u), lanes_left<C>(p_.H, u));
    }
  }

  // Where the chunk's input rows are, in the order of `pre`.
  void input_rows(const Batch& batch, const TeamScratch& s, const Range& steps_of_chunk, const Team& team,
                  std::vector<const C*>& rows) const {
    rows.clear();
    for (int64_t step = steps_of_chunk.begin; step < steps_of_chunk.end; ++step) {
      const int n = batch.active(step);
      for (int i = 0; i < n; ++i) {
        const S* x = row_of<S>(p_.x, batch.time(i, step), batch.row[i]);
        if constexpr (sizeof(S) == sizeof(C)) {
          rows.push_back(x);
        } else {
          C* to = s.x + static_cast<int64_t>(rows.size()) * ldx_;
          if (static_cast<int>(rows.size()) % team.size == team.rank)
            for (int64_t k = 0, K = steps<S>(p_.I); k < K; k += L)
              *reinterpret_cast<V*>(to + k) = load_steps(x, p_.I, k, lanes_left<C>(K, k));
          rows.push_back(to);
        }
      }
    }
    if constexpr (sizeof(S) != sizeof(C)) team.barrier();
  }

  void input_product(const std::vector<const C*>& rows, const TeamScratch& s, const Range& panels,
                     const Team& team) const {
    with_panels(fresh_W_, p_.W, W_, p_.I, team, [&](const auto& source) {
      multiply_rows<C, NW, kStep<S>>(ProductRows<C>(rows, steps<S>(p_.I)), source, Sweep{panels},
                                     Nothing<C>{}, each_row([&](int row, int64_t panel, const auto& sums) {
                                       store_input_product(s, row, panel, sums);
                                     }));
    });
  }
  void store_input_product(const TeamScratch& s, int row, int64_t panel, const RowSums<C, NW>& sums) const {
    C* out = pre(s, row, panel);
    const C* b = bias_ + panel * NW * L;
#pragma GCC unroll 4
    for (int j = 0; j < NW; ++j) store(out + j * L, load(sums[j]) + load(b + j * L));
  }

  void locate(const Batch& batch, int64_t step, int n, std::vector<Outputs>& outputs) const {
    // of the cells kept, or -1
    const int64_t nth = !p_.recompute || (step + 1) % p_.recompute ? -1 : (step + 1) / p_.recompute - 1;
    const bool keeps = p_.cells.data && (!p_.recompute || (nth >= 0 && nth < kept_cells()));
    for (int i = 0; i < n; ++i) {
      const int64_t t = batch.time(i, step), b = batch.row[i];
      outputs[i] = {row_of<S>(p_.y, t, b), p_.gates.data ? row_of<S>(p_.gates, t, b) : nullptr,
                    keeps ? row_of<C>(p_.cells, p_.recompute ? nth : t, b) : nullptr};
    }
  }

  template <class F>
  void with_panels(bool fresh, const Matrix& m, const C* packed, int64_t K, const Team& team,
                   const F& f) const {
    if (!fresh) return f(PackedPanels<C, NW>{packed, steps<S>(K)});
    const WeightRows<S> w{static_cast<const S*>(m.data), m.stride, K};
    const auto pack = [&](const PanelBlock& block, C* buffer) { pack_panel(shape_, w, block, buffer); };
    f(FreshPanels{pack, fresh_ + team.rank * kFreshElements<C>});
  }

  template <class Source>
  void recur(const TeamStep& now, const Range& panels, const Source& source) const {
    multiply_rows<C, NW, kStep<S>>(
        ProductRows<C>(now.h, now.rows, steps<S>(p_.P)), source, Sweep{panels, now.step},
        [&](int row, int64_t panel) {
          return TileAddend<C>{pre(now.s, now.first + row, panel), width_,
                               cell == Cell::gru ? bias_q_ + panel * L : nullptr};
        },
        [&](int row, int rows, int64_t panel, auto& sums) {
          activate_gates(sums, rows);
          if (now.inside) return finish_rows_inside(now, row, rows, panel, sums);
          for (int r = 0; r < rows; ++r) finish_row<false>(now, row + r, panel, sums.value[r]);
        });
  }
  void project(const TeamStep& now, const std::vector<const C*>& hidden, const Range& panels) const {
    multiply_rows<C, kTileVectors>(ProductRows<C>(hidden.data(), now.rows, p_.H),
                                   PackedPanels<C, kTileVectors>{W_hr_, p_.H}, Sweep{panels, now.step},
                                   Nothing<C>{}, each_row([&](int row, int64_t panel, const auto& sums) {
                                     if (now.inside) finish_projection<true>(now, row, panel, sums);
                                     else finish_projection<false>(now, row, panel, sums);
                                   }));
  }
  C* pre(const TeamScratch& s, int64_t row, int64_t panel) const {
    return s.pre + row * width_ + panel * NW * L;
  }

  // The gates of a tile's rows, in place. Rows do not wait for each other here, nor in finish_row: a row's
  // whole maths is one long chain, of which a processor holds little more than one at a time.
  static FUSEGEN_INLINE void activate_gates([[maybe_unused]] TileSums<C, NW>& sums,
                                            [[maybe_unused]] int rows) {
    if constexpr (cell == Cell::lstm) {
      for (int r = 0; r < rows; ++r) {
        auto& a = sums.value[r];
        const auto gates = cells::lstm_gates<Math>(load(a[0]), load(a[1]), load(a[2]), load(a[3]));
        store(a[0], gates.i);
        store(a[1], gates.f);
        store(a[2], gates.g);
        store(a[3], gates.o);
      }
    } else if constexpr (cell == Cell::gru) {
      for (int r = 0; r < rows; ++r) {
        auto& a = sums.value[r];
        const auto gates = cells::gru_gates<Math>(load(a[0]), load(a[1]));
        store(a[0], gates.r);
        store(a[1], gates.z);
      }
    }
  }

  // The cell's state from its gates, for one row of a tile. `inside`: whether anything happens there.
  template <bool inside>
  FUSEGEN_INLINE void finish_row(const TeamStep& now, int row, int64_t panel, const RowSums<C, NW>& a) const {
    [[maybe_unused]] const int64_t H = p_.H;
    const TeamScratch& s = now.s;
    const Outputs& to = now.outputs[row];
    if constexpr (cell == Cell::lstm) {
      const int64_t u = panel * L;
      const int lanes = shape_.lanes<C>(panel, 0);
      C* c = s.c + row * ldc_ + u;
      const cells::LstmGates<V> gates{load(a[0]), load(a[1]), load(a[2]), load(a[3])};
      V h, c_next;
      if constexpr (inside) {
        const RowInside& in = now.inside[row];
        auto state = cells::lstm_state<Math>(
            {gates.i, gates.f, inside_.drop_candidate(in, u, gates.g), gates.o}, load(c));
        h = state.h;
        c_next = inside_.zone_c(in, u, load(c), state.c);
        store(c, in.ends ? inside_.start_c(in.b, u, lanes) : c_next);
      } else {
        const auto state = cells::lstm_state<Math>(gates, load(c));
        h = state.h;
        c_next = state.c;
        store(c, c_next);
      }
      if (project_) store(s.hidden + row * ldc_ + u, h);
      else finish_state<inside>(now, row, u, lanes, h);
      if (to.gates) {
        S* saved = to.gates + u;
        store(saved, gates.i, lanes);
        store(saved + H, gates.f, lanes);
        store(saved + 2 * H, gates.g, lanes);
        store(saved + 3 * H, gates.o, lanes);
      }
      if (to.cells) store(to.cells + u, c_next, lanes);
    } else if constexpr (cell == Cell::gru) {
      const int64_t u = panel * L;
      const int lanes = shape_.lanes<C>(panel, 0);
      const cells::GruGates<V> gates{load(a[0]), load(a[1])};
      // n still needs its input product apart.
      const C* x_n = pre(s, now.first + row, panel) + 2 * L;
      const V h_prev = before(now, row, u);
      const auto state = cells::gru_state<Math>(gates, load(x_n), load(a[2]), h_prev);
      V h = state.h;
      if constexpr (inside) {
        const V n = inside_.drop_candidate(now.inside[row], u, state.n);
        h = n + state.z * (h_prev - n);
      }
      finish_state<inside>(now, row, u, lanes, h);
      if (to.gates) {
        S* saved = to.gates + u;
        store(saved, state.r, lanes);
        store(saved + H, state.z, lanes);
        store(saved + 2 * H, state.n, lanes);
        store(saved + 3 * H, load(a[2]), lanes);
      }
    } else {
      for (int j = 0; j < kTileVectors; ++j) {
        const int lanes = shape_.lanes<C>(panel, j);
        if (!lanes) break;
        const int64_t u = shape_.row<C>(panel, j);
        V h = cells::rnn<Math>(relu_, load(a[j]));
        if constexpr (inside) {
          h = inside_.drop_candidate(now.inside[row], u, h);
          if (to.gates) store(to.gates + u, h, lanes);
        }
        finish_state<inside>(now, row, u, lanes, h);
      }
    }
  }

  // Apart, so that the plain way is compiled as if there were no other.
  __attribute__((noinline)) void finish_rows_inside(const TeamStep& now, int row, int rows, int64_t panel,
                                                    const TileSums<C, NW>& sums) const {
    for (int r = 0; r < rows; ++r) finish_row<true>(now, row + r, panel, sums.value[r]);
  }

  // h of the step before, without masks.
  V before(const TeamStep& now, int row, int64_t u) const {
    return load(now.s.h[now.step % 2] + row * ldh_ + u);
  }

  template <bool inside>
  FUSEGEN_INLINE void finish_state(const TeamStep& now, int row, int64_t u, int lanes, V h) const {
    const int64_t after = (now.step + 1) % 2;
    if constexpr (inside) {
      const RowInside& in = now.inside[row];
      if (inside_.zones_h()) h = inside_.zone_h(in, u, before(now, row, u), h);
      keep_state_inside(now.s, after, row, u, h, lanes, in);
    } else {
      keep_state(now.s, after, row, u, h, lanes);
    }
    store(now.outputs[row].y + u, h, lanes);
  }

  template <bool inside>
  void finish_projection(const TeamStep& now, int row, int64_t panel,
                         const RowSums<C, kTileVectors>& sums) const {
    const PanelShape shape{p_.P, 1};
    for (int j = 0; j < kTileVectors; ++j) {
      const int lanes = shape.lanes<C>(panel, j);
      if (!lanes) break;
      finish_state<inside>(now, row, shape.row<C>(panel, j), lanes, load(sums[j]));
    }
  }

  // The units that these panels hold.
  static Range elements(const PanelShape& shape, const Range& panels) {
    const int64_t width = L * (shape.gates == 1 ? kTileVectors : 1);
    return {panels.begin * width, std::min(shape.units, panels.end * width)};
  }
};

template <Cell cell>
void sequence_forward(const RecurrentForward& p, const cpu::Plan& plan) {
  with_storage(p.dtype, [&](auto s) { Forward<decltype(s), cell>(p, plan).run(); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
