// The recurrence, forward: one direction of one layer, whole sequence.
//
// Steps go in chunks. For a chunk, the input product of all its rows is made at once (each weight panel is
// read once per chunk, not once per step), then the steps run: the recurrent product of a tile is summed in
// registers, the input product added, and the cell's maths follows while the tile is in L1. Only the state is
// exchanged between steps.
#pragma once
#include <omp.h>

#include "kernels/cells.h"
#include "kernels/cpu/arena.h"
#include "kernels/cpu/isa/vector/product.h"
#include "kernels/cpu/isa/vector/vmath.h"
#include "kernels/cpu/plan.h"

namespace fusegen::FUSEGEN_ISA_NS {

// Row strides of scratch: whole vectors, and one more so that rows do not fall on the same cache sets.
template <class C>
constexpr int64_t padded(int64_t n) {
  return (n + kLanes<C> - 1) / kLanes<C> * kLanes<C> + kLanes<C>;
}

template <class S>
S* row_of(const Rows& r, int64_t t, int64_t b) {
  return static_cast<S*>(r.data) + t * r.stride_t + b * r.stride_b;
}

// The packed weights of one direction: W, then R, then W_hr.
template <class S>
struct Packed {
  using C = Compute<S>;
  PanelShape gates;  // of W and R
  PanelShape projection;
  int64_t I, P;  // of W and R, counted in elements; their panels count in steps
  C *W, *R, *W_hr;

  Packed(Cell cell, int64_t I, int64_t H, int64_t P, bool project, void* base)
      : gates{H, gate_count(cell)}, projection{project ? P : 0, 1}, I(I), P(P) {
    W = static_cast<C*>(base);
    R = W + gates.size<C>(steps<S>(I));
    W_hr = R + gates.size<C>(steps<S>(P));
  }
  int64_t elements() const {
    return gates.size<C>(steps<S>(I)) + gates.size<C>(steps<S>(P)) + projection.size<C>(gates.units);
  }

  // This thread's part of the panels; absent matrices are left out.
  void pack(const Matrix& w, const Matrix& r, const Matrix& w_hr, int rank, int size) const {
    if (w.data) pack_gates(w, I, W, rank, size);
    if (r.data) pack_gates(r, P, R, rank, size);
    if (w_hr.data) pack_projection(w_hr, rank, size);
  }

private:
  void pack_gates(const Matrix& m, int64_t K, C* out, int rank, int size) const {
    const int passes = gates.passes();
    const int64_t part = steps<S>(K) * gates.vectors() / passes * kLanes<C>;
    const Range mine = share(gates.count<C>() * passes, rank, size);
    for (int64_t i = mine.begin; i < mine.end; ++i)
      pack_panel(gates, static_cast<const S*>(m.data), m.stride, K, 0, steps<S>(K), i / passes,
                 static_cast<int>(i % passes), out + i * part);
  }
  // o tanh(c) is not rounded before it is projected, so these panels are in the compute type.
  void pack_projection(const Matrix& m, int rank, int size) const {
    constexpr int L = kLanes<C>;
    const int64_t K = gates.units, panel = K * projection.vectors() * L;
    const Range mine = share(projection.count<C>(), rank, size);
    std::vector<C> rows(kTileColumns<C> * K);
    for (int64_t p = mine.begin; p < mine.end; ++p) {
      const int64_t first = p * kTileColumns<C>, count = std::min<int64_t>(kTileColumns<C>, P - first);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t k = 0; k < K; ++k)
          rows[i * K + k] = to_float(static_cast<const S*>(m.data)[(first + i) * m.stride + k]);
      pack_panel(PanelShape{count, 1}, rows.data(), K, K, 0, K, 0, 0, W_hr + p * panel);
    }
  }
};

template <class S, Cell cell>
class Forward {
  using C = Compute<S>;
  using V = Vector<C>;
  static constexpr int L = kLanes<C>;
  static constexpr int G = gate_count(cell);
  static constexpr int NW = G == 1 ? kTileVectors : G;
  static constexpr bool kPairs = kStep<S> == Step::pair;

  // What the threads of one team share.
  struct TeamScratch {
    C* pre;       // [chunk rows][panel][NW][L] input product and biases
    C* x;         // [chunk rows][ldx] the input as the product reads it, where that is not how it is stored
    C* h[2];      // [rows][ldh] state before and after the step
    C* pairs[2];  // [rows][ldh] the same as pairs of bf16, where that is what the product reads
    C* c;         // [rows][ldc]
    C* hidden;    // [rows][ldc] o tanh(c), what a projection reads
  };

  // Where a row's results of one step go.
  struct Place {
    S* y;
    S* gates;
    C* cells;
  };

  const RecurrentForward& p_;
  const cpu::Plan plan_;
  const std::vector<Batch> batches_;
  const std::vector<int64_t> bounds_;
  const bool project_;
  const PanelShape shape_;
  const int64_t width_;  // of a row of `pre`
  const int64_t ldx_, ldh_, ldc_;

  const C *W_, *R_, *W_hr_;
  C* own_packed_ = nullptr;
  const bool fresh_W_, fresh_R_;  // used once in this call: packed block by block, when needed
  C* fresh_;                      // [threads][kFreshElements]
  C* bias_;                       // [panel][NW][L]: b_ih + b_hh, of GRU's n only b_in
  C* bias_q_;                     // [panel][L]: GRU's b_hn
  std::vector<TeamScratch> scratch_;

public:
  explicit Forward(const RecurrentForward& p)
      : p_(p),
        plan_(cpu::plan_forward(p)),
        batches_(make_batches(p, plan_.over_rows ? plan_.threads : 1)),
        bounds_(make_chunks(batches_, plan_.chunk_rows * static_cast<int64_t>(batches_.size()))),
        project_(p.project),
        shape_{p.H, G},
        width_(shape_.count<C>() * NW * L),
        ldx_(padded<C>(steps<S>(p.I))),
        ldh_(padded<C>(p.P)),
        ldc_(padded<C>(p.H)),
        fresh_W_(!p.packed && !plan_.over_rows && bounds_.size() == 2),
        fresh_R_(!p.packed && !plan_.over_rows && p.T == 1) {}

  void run() {
    cpu::Arena measure{cpu::Arena::Measure{}};
    lay_out(measure);
    cpu::Arena arena(measure.used());
    lay_out(arena);
#pragma omp parallel num_threads(plan_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      if (own_packed_)
        Packed<S>(cell, p_.I, p_.H, p_.P, project_, own_packed_)
            .pack(fresh_W_ ? Matrix{} : p_.W, fresh_R_ ? Matrix{} : p_.R, p_.W_hr, rank, size);
      pack_biases(rank, size);
#pragma omp barrier
      if (plan_.over_rows) {
        for (int k = rank; k < static_cast<int>(batches_.size()); k += size) run_team(k, {0, 1});
      } else {
        run_team(0, {rank, size});
      }
    }
  }

private:
  void lay_out(cpu::Arena& arena) {
    Packed<S> packed(cell, p_.I, p_.H, p_.P, project_, const_cast<void*>(p_.packed));
    if (!p_.packed) {
      own_packed_ = arena.take<C>(packed.elements());
      packed = Packed<S>(cell, p_.I, p_.H, p_.P, project_, own_packed_);
    }
    W_ = packed.W;
    R_ = packed.R;
    W_hr_ = packed.W_hr;
    fresh_ = arena.take<C>(fresh_W_ || fresh_R_ ? plan_.threads * kFreshElements<C> : 0);
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
      s.pairs[0] = arena.take<C>(kPairs ? n * ldh_ : 0);
      s.pairs[1] = arena.take<C>(kPairs ? n * ldh_ : 0);
      s.c = arena.take<C>(cell == Cell::lstm ? n * ldc_ : 0);
      s.hidden = arena.take<C>(project_ ? n * ldc_ : 0);
    }
  }

  C bias(const void* b, int64_t row) const { return b ? to_float(static_cast<const S*>(b)[row]) : C(0); }

  void pack_biases(int rank, int size) {
    const Range mine = share(shape_.count<C>(), rank, size);
    for (int64_t p = mine.begin; p < mine.end; ++p) {
      for (int j = 0; j < NW; ++j) {
        const int lanes = shape_.lanes<C>(p, j);
        const bool is_n = cell == Cell::gru && j == 2;
        for (int l = 0; l < L; ++l) {
          const int64_t row = shape_.row<C>(p, j) + l;
          const C b_ih = l < lanes ? bias(p_.b_ih, row) : C(0);
          const C b_hh = l < lanes ? bias(p_.b_hh, row) : C(0);
          bias_[(p * NW + j) * L + l] = is_n ? b_ih : b_ih + b_hh;
          if (is_n) bias_q_[p * L + l] = b_hh;
        }
      }
    }
  }

  void run_team(int k, const Team team) {
    const Batch& batch = batches_[k];
    const TeamScratch& s = scratch_[k];
    const Range panels = share(shape_.count<C>(), team);
    const Range projection = share(PanelShape{p_.P, 1}.template count<C>(), team);
    start(batch, s, team);
    team.barrier();

    std::vector<const C*> x_rows, h_rows[2], hidden_rows;
    std::vector<Place> places(batch.size());
    for (int i = 0; i < batch.size(); ++i) {
      for (int k = 0; k < 2; ++k) h_rows[k].push_back((kPairs ? s.pairs[k] : s.h[k]) + i * ldh_);
      hidden_rows.push_back(s.hidden + i * ldc_);
    }
    for (size_t chunk = 0; chunk + 1 < bounds_.size(); ++chunk) {
      const int64_t begin = bounds_[chunk], end = std::min(bounds_[chunk + 1], batch.steps());
      // teams whose sequences have all ended; only teams of one thread get here early
      if (begin >= end) break;
      input_rows(batch, s, begin, end, team, x_rows);
      with_panels(fresh_W_, p_.W, W_, p_.I, team, [&](const auto& source) {
        multiply_rows<C, NW, kStep<S>>(x_rows.data(), static_cast<int>(x_rows.size()), source, steps<S>(p_.I),
                                       panels, 0, Nothing<C>{},
                                       each_row([&](int row, int64_t panel, const auto& sums) {
                                         store_input_product(s, row, panel, sums);
                                       }));
      });
      int64_t offset = 0;
      for (int64_t step = begin; step < end; ++step) {
        const int n = batch.active(step);
        const C* const* h = h_rows[step % 2].data();
        locate(batch, step, n, places);
        with_panels(fresh_R_, p_.R, R_, p_.P, team,
                    [&](const auto& source) { recur(places, s, step, n, offset, h, panels, source); });
        team.barrier();
        if (project_) {
          multiply_rows<C, kTileVectors>(hidden_rows.data(), n, PackedPanels<C, kTileVectors>{W_hr_, p_.H},
                                         p_.H, projection, step, Nothing<C>{},
                                         each_row([&](int row, int64_t panel, const auto& sums) {
                                           finish_projection(places[row], s, step, row, panel, sums);
                                         }));
          team.barrier();
        }
        offset += n;
      }
    }
    finish(batch, s, team);
  }

  void start(const Batch& batch, const TeamScratch& s, const Team& team) {
    const Range mine = share(batch.size(), team);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t b = batch.row[i];
      copy_in(p_.h0, b, p_.P, s.h[0] + i * ldh_);
      for (int64_t u = 0; u < p_.P; u += L)
        keep_state(s, 0, i, u, load(s.h[0] + i * ldh_ + u), lanes_left(p_.P, u));
      if constexpr (cell == Cell::lstm) copy_in(p_.c0, b, p_.H, s.c + i * ldc_);
      for (int64_t t = batch.length[i]; t < p_.T; ++t) {
        std::memset(static_cast<void*>(row_of<S>(p_.y, t, b)), 0, p_.P * sizeof(S));
        if (p_.gates.data)
          std::memset(static_cast<void*>(row_of<S>(p_.gates, t, b)), 0, saved_gates(cell) * p_.H * sizeof(S));
        if (p_.cells.data) std::memset(static_cast<void*>(row_of<C>(p_.cells, t, b)), 0, p_.H * sizeof(C));
      }
    }
  }

  static void copy_in(const Rows& from, int64_t b, int64_t n, C* to) {
    for (int64_t u = 0; u < n; u += L)
      *reinterpret_cast<V*>(to + u) = from.data ? load(row_of<S>(from, 0, b) + u, lanes_left(n, u)) : V{};
  }

  // L units of a row's state, from u on, for the next step; lanes past the last unit hold zero, since a
  // product of pairs reads one of them: with an infinite input they come as NaN.
  void keep_state(const TeamScratch& s, int64_t buffer, int64_t row, int64_t u, V h, int lanes) const {
    if constexpr (kPairs) h = first_lanes<C>(h, lanes);
    store(s.h[buffer] + row * ldh_ + u, rounded<S>(h));
    if constexpr (kPairs) store(reinterpret_cast<S*>(s.pairs[buffer] + row * ldh_) + u, h);
  }

  static int lanes_left(int64_t n, int64_t u) { return n - u < L ? static_cast<int>(n - u) : L; }

  // h_n and c_n: a row's last state stays where its last step left it.
  void finish(const Batch& batch, const TeamScratch& s, const Team& team) {
    const Range mine = share(batch.size(), team);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t b = batch.row[i];
      const C* h = s.h[batch.length[i] % 2] + i * ldh_;
      for (int64_t u = 0; u < p_.P; u += L)
        store(row_of<S>(p_.h_n, 0, b) + u, load(h + u), lanes_left(p_.P, u));
      if constexpr (cell == Cell::lstm)
        for (int64_t u = 0; u < p_.H; u += L)
          store(row_of<S>(p_.c_n, 0, b) + u, load(s.c + i * ldc_ + u), lanes_left(p_.H, u));
    }
  }

  // Where the chunk's input rows are, in the order of `pre`.
  void input_rows(const Batch& batch, const TeamScratch& s, int64_t begin, int64_t end, const Team& team,
                  std::vector<const C*>& rows) {
    rows.clear();
    for (int64_t step = begin; step < end; ++step) {
      const int n = batch.active(step);
      for (int i = 0; i < n; ++i) {
        const S* x = row_of<S>(p_.x, batch.time(i, step), batch.row[i]);
        if constexpr (sizeof(S) == sizeof(C)) {
          rows.push_back(x);
        } else {
          C* to = s.x + static_cast<int64_t>(rows.size()) * ldx_;
          if (static_cast<int>(rows.size()) % team.size == team.rank)
            for (int64_t k = 0, K = steps<S>(p_.I); k < K; k += L)
              *reinterpret_cast<V*>(to + k) = load_steps(x, p_.I, k, lanes_left(K, k));
          rows.push_back(to);
        }
      }
    }
    if constexpr (sizeof(S) != sizeof(C)) team.barrier();
  }

  void store_input_product(const TeamScratch& s, int row, int64_t panel, const RowSums<C, NW>& sums) const {
    C* out = pre(s, row, panel);
    const C* b = bias_ + panel * NW * L;
#pragma GCC unroll 4
    for (int j = 0; j < NW; ++j) store(out + j * L, load(sums[j]) + load(b + j * L));
  }

  void locate(const Batch& batch, int64_t step, int n, std::vector<Place>& places) const {
    for (int i = 0; i < n; ++i) {
      const int64_t t = batch.time(i, step), b = batch.row[i];
      places[i] = {row_of<S>(p_.y, t, b), p_.gates.data ? row_of<S>(p_.gates, t, b) : nullptr,
                   p_.cells.data ? row_of<C>(p_.cells, t, b) : nullptr};
    }
  }

  template <class F>
  void with_panels(bool fresh, const Matrix& m, const C* packed, int64_t K, const Team& team,
                   const F& f) const {
    if (!fresh) return f(PackedPanels<C, NW>{packed, steps<S>(K)});
    const auto pack = [&](int64_t panel, int pass, int64_t k0, int64_t k1, C* buffer) {
      pack_panel(shape_, static_cast<const S*>(m.data), m.stride, K, k0, k1, panel, pass, buffer);
    };
    f(FreshPanels{pack, fresh_ + team.rank * kFreshElements<C>});
  }

  template <class Source>
  void recur(const std::vector<Place>& places, const TeamScratch& s, int64_t step, int n, int64_t offset,
             const C* const* h, const Range& panels, const Source& source) const {
    multiply_rows<C, NW, kStep<S>>(
        h, n, source, steps<S>(p_.P), panels, step,
        [&](int row, int64_t panel) {
          return TileAddend<C>{pre(s, offset + row, panel), width_,
                               cell == Cell::gru ? bias_q_ + panel * L : nullptr};
        },
        [&](int row, int rows, int64_t panel, auto& sums) {
          activate_gates(sums, rows);
          for (int r = 0; r < rows; ++r)
            finish_row(places[row + r], s, step, row + r, panel, pre(s, offset + row + r, panel),
                       sums.value[r]);
        });
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

  // The cell's state from its gates, for one row of a tile.
  // `input` is the row's input product, which GRU's n still needs apart.
  void finish_row(const Place& place, const TeamScratch& s, int64_t step, int row, int64_t panel,
                  [[maybe_unused]] const C* input, const RowSums<C, NW>& a) const {
    [[maybe_unused]] const int64_t H = p_.H;
    [[maybe_unused]] const C* h_prev = s.h[step % 2] + row * ldh_;
    S* y = place.y;
    if constexpr (cell == Cell::lstm) {
      const int64_t u = panel * L;
      const int lanes = shape_.lanes<C>(panel, 0);
      C* c = s.c + row * ldc_ + u;
      const cells::LstmGates<V> gates{load(a[0]), load(a[1]), load(a[2]), load(a[3])};
      const auto state = cells::lstm_state<Math>(gates, load(c));
      store(c, state.c);
      if (project_) {
        store(s.hidden + row * ldc_ + u, state.h);
      } else {
        keep_state(s, (step + 1) % 2, row, u, state.h, lanes);
        store(y + u, state.h, lanes);
      }
      if (place.gates) {
        S* saved = place.gates + u;
        store(saved, state.i, lanes);
        store(saved + H, state.f, lanes);
        store(saved + 2 * H, state.g, lanes);
        store(saved + 3 * H, state.o, lanes);
        store(place.cells + u, state.c, lanes);
      }
    } else if constexpr (cell == Cell::gru) {
      const int64_t u = panel * L;
      const int lanes = shape_.lanes<C>(panel, 0);
      const cells::GruGates<V> gates{load(a[0]), load(a[1])};
      const auto state = cells::gru_state<Math>(gates, load(input + 2 * L), load(a[2]), load(h_prev + u));
      keep_state(s, (step + 1) % 2, row, u, state.h, lanes);
      store(y + u, state.h, lanes);
      if (place.gates) {
        S* saved = place.gates + u;
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
        const V v = load(a[j]);
        const V h = cells::rnn<Math>(cell == Cell::rnn_relu, v);
        keep_state(s, (step + 1) % 2, row, u, h, lanes);
        store(y + u, h, lanes);
      }
    }
  }

  void finish_projection(const Place& place, const TeamScratch& s, int64_t step, int row, int64_t panel,
                         const RowSums<C, kTileVectors>& sums) const {
    const PanelShape shape{p_.P, 1};
    S* y = place.y;
    for (int j = 0; j < kTileVectors; ++j) {
      const int lanes = shape.lanes<C>(panel, j);
      if (!lanes) break;
      const int64_t u = shape.row<C>(panel, j);
      const V v = load(sums[j]);
      keep_state(s, (step + 1) % 2, row, u, v, lanes);
      store(y + u, v, lanes);
    }
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
