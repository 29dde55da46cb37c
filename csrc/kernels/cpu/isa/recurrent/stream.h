// A stack of layers, a few steps at a time: nothing is packed, allocated or laid out at a call that could
// have been before the first one.
//
// At one row a step is bound by reading the weights, so they are panels that are read from one end to the
// other. A call of many steps makes the input products of a chunk of them at once, then runs the steps.
// Threads share the panels, at a barrier a step.
#pragma once
#include "kernel.h"
#include "kernels/cpu/isa/vector/product.h"
#include "packed.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S, Cell cell>
class StreamKernel {
  using C = Compute<S>;
  using V = Vector<C>;
  static constexpr int L = kLanes<C>, G = gate_count(cell), NW = G == 1 ? kTileVectors : G;
  static constexpr bool kPairs = kStep<S> == Step::pair;
  static constexpr int64_t kRows = 48;  // steps times batch, whose input product is made at once, or one step

  // What a layer keeps from call to call.
  struct Kept {
    C* bias;      // [panel][NW][L]: b_ih + b_hh, of GRU's n only b_in
    C* bias_q;    // [panel][L]: GRU's b_hn
    C* h[2];      // [B][ldh] before and after a step, by turns
    C* pairs[2];  // [B][ldh] the same as pairs of bf16, where that is what the product reads
    C* c;         // [B][ldc]
  };

  // One step of a layer.
  struct Now {
    const Kept& kept;
    int64_t before, after;  // of kept.h
    const C* pre;           // [B][panel][NW][L]
    Rows y;                 // [B,P]
  };

  const Stream& p_;
  const PanelShape shape_, projection_;
  const int64_t chunk_;  // steps
  const int64_t width_, ldx_, ldh_, ldc_;
  const bool relu_;
  const int64_t layer_bytes_;
  unsigned char* layers_;  // [depth][layer_bytes]
  // Of the layer that runs.
  C* pre_;          // [chunk][B][panel][NW][L] input product and biases
  C* x_;            // [chunk][B][ldx] the input as the product reads it, where that is not how it is stored
  C* hidden_;       // [B][ldc] o tanh(c), what a projection reads
  S* between_[2];   // [chunk][B][P] what a layer hands to the next
  const C** rows_;  // [threads][chunk * B] of a product

public:
  StreamKernel(const Stream& p, cpu::Arena& arena)
      : p_(p),
        shape_{p.H, G},
        projection_{p.P, 1},
        chunk_(std::max<int64_t>(1, kRows / std::max<int64_t>(1, p.B))),
        width_(shape_.count<C>() * NW * L),
        ldx_(padded<C>(steps<S>(widest_input(p)))),
        ldh_(padded<C>(p.P)),
        ldc_(padded<C>(p.H)),
        relu_(p.cell == Cell::rnn_relu),
        layer_bytes_(bytes_of_layer()) {
    const int64_t rows = chunk_ * p.B;
    layers_ = arena.take<unsigned char>(p.depth * layer_bytes_);
    pre_ = arena.take<C>(rows * width_);
    x_ = arena.take<C>(sizeof(S) == sizeof(C) ? 0 : rows * ldx_);
    hidden_ = arena.take<C>(p.project ? p.B * ldc_ : 0);
    for (S*& between : between_) between = arena.take<S>(p.depth > 1 ? rows * p.P : 0);
    rows_ = arena.take<const C*>(p.threads * rows);
  }

  void begin() const {
    for (int64_t l = 0; l < p_.depth; ++l) {
      const Kept kept = kept_of(l);
      fill_biases<S, cell>(shape_, {p_.layers[l].b_ih, p_.layers[l].b_hh}, kept.bias, kept.bias_q, 0, 1);
      for (int i = 0; i < 2; ++i) {
        std::fill_n(kept.h[i], p_.B * ldh_, C(0));
        if (kPairs) std::fill_n(kept.pairs[i], p_.B * ldh_, C(0));
      }
      if (cell == Cell::lstm) std::fill_n(kept.c, p_.B * ldc_, C(0));
    }
  }

  void run(const StreamRun& p) const {
    const auto work = [&](const Team& team) {
      for (int64_t t = 0; t < p.T; t += chunk_) {
        const int64_t n = std::min(chunk_, p.T - t);
        Rows x = from_step(p.x, t);
        for (int64_t l = 0; l < p_.depth; ++l) {
          const Rows own{between_[l % 2], p_.B * p_.P, p_.P};
          const Rows y = l + 1 == p_.depth ? from_step(p.y, t) : own;
          run_layer(l, p_.taken + t, n, x, y, team);
          x = y;
        }
      }
    };
    if (p_.threads == 1) return work({0, 1});
#pragma omp parallel num_threads(p_.threads)
    work({omp_get_thread_num(), omp_get_num_threads()});
  }

  void states(const StreamStates& p) const {
    const int64_t now = p_.taken % 2;
    for (int64_t l = 0; l < p_.depth; ++l) {
      const Kept kept = kept_of(l);
      for (int64_t i = 0; i < p.count; ++i) {
        const int64_t b = p.rows[i];
        for (int64_t u = 0; u < p_.P; u += L) {
          const int lanes = lanes_left<C>(p_.P, u);
          if (p.set) keep_h(kept, now, b, u, given(p.h, l, i, u, lanes), lanes);
          else store(row_of<S>(p.h, l, i) + u, load(kept.h[now] + b * ldh_ + u), lanes);
        }
        for (int64_t u = 0; cell == Cell::lstm && u < p_.H; u += L) {
          const int lanes = lanes_left<C>(p_.H, u);
          C* c = kept.c + b * ldc_ + u;
          if (p.set) store(c, given(p.c, l, i, u, lanes));
          else store(row_of<S>(p.c, l, i) + u, load(c), lanes);
        }
      }
    }
  }

private:
  static int64_t widest_input(const Stream& p) {
    int64_t widest = 0;
    for (int64_t l = 0; l < p.depth; ++l) widest = std::max(widest, p.layers[l].I);
    return widest;
  }
  static Rows from_step(Rows r, int64_t t) {
    r.data = row_of<S>(r, t, 0);
    return r;
  }
  static V given(const Rows& r, int64_t l, int64_t b, int64_t u, int lanes) {
    return r.data ? load(row_of<S>(r, l, b) + u, lanes) : V{};
  }

  Kept kept_in(cpu::Arena& arena) const {
    const int64_t panels = shape_.count<C>();
    Kept k{};
    k.bias = arena.take<C>(width_);
    k.bias_q = arena.take<C>(cell == Cell::gru ? panels * L : 0);
    for (C*& h : k.h) h = arena.take<C>(p_.B * ldh_);
    for (C*& pairs : k.pairs) pairs = arena.take<C>(kPairs ? p_.B * ldh_ : 0);
    k.c = arena.take<C>(cell == Cell::lstm ? p_.B * ldc_ : 0);
    return k;
  }
  int64_t bytes_of_layer() const {
    cpu::Arena measure{cpu::Arena::Measure{}};
    kept_in(measure);
    return static_cast<int64_t>(measure.used());
  }
  Kept kept_of(int64_t l) const {
    cpu::Arena arena(layers_ + l * layer_bytes_);
    return kept_in(arena);
  }

  // Steps first .. first + n of the stream: x [n,B,I], y [n,B,P].
  void run_layer(int64_t l, int64_t first, int64_t n, const Rows& x, const Rows& y, const Team& team) const {
    const StreamLayer& layer = p_.layers[l];
    const Kept kept = kept_of(l);
    const Packed<S> weights(cell, layer.I, p_.H, p_.P, p_.project, const_cast<void*>(layer.packed));
    const Range panels = share(shape_.count<C>(), team);
    const C** const rows = rows_ + team.rank * chunk_ * p_.B;
    input_rows(layer.I, n, x, rows, team);
    multiply_rows<C, NW, kStep<S>>(ProductRows<C>(rows, static_cast<int>(n * p_.B), steps<S>(layer.I)),
                                   PackedPanels<C, NW>{weights.W, steps<S>(layer.I)}, Sweep{panels, first},
                                   Nothing<C>{}, each_row([&](int row, int64_t panel, const auto& sums) {
                                     keep_input_product(kept, row, panel, sums);
                                   }));
    for (int64_t t = 0; t < n; ++t) {
      const int64_t before = (first + t) % 2;
      const Now now{kept, before, 1 - before, pre_ + t * p_.B * width_, from_step(y, t)};
      for (int64_t b = 0; b < p_.B; ++b) rows[b] = (kPairs ? kept.pairs : kept.h)[before] + b * ldh_;
      recur(now, ProductRows<C>(rows, static_cast<int>(p_.B), steps<S>(p_.P)), weights.R,
            Sweep{panels, first + t + 1});
      team.barrier();
      if constexpr (cell == Cell::lstm)
        if (p_.project) {
          for (int64_t b = 0; b < p_.B; ++b) rows[b] = hidden_ + b * ldc_;
          project(now, ProductRows<C>(rows, static_cast<int>(p_.B), p_.H), weights.W_hr, team);
          team.barrier();
        }
    }
  }

  void input_rows(int64_t I, int64_t n, const Rows& x, const C** rows, const Team& team) const {
    for (int64_t i = 0; i < n * p_.B; ++i) {
      const S* const from = row_of<S>(x, i / p_.B, i % p_.B);
      if constexpr (sizeof(S) == sizeof(C)) {
        rows[i] = from;
      } else {
        rows[i] = x_ + i * ldx_;
        if (i % team.size != team.rank) continue;
        for (int64_t k = 0, K = steps<S>(I); k < K; k += L)
          *reinterpret_cast<V*>(x_ + i * ldx_ + k) = load_steps(from, I, k, lanes_left<C>(K, k));
      }
    }
    if constexpr (sizeof(S) != sizeof(C)) team.barrier();
  }
  void keep_input_product(const Kept& kept, int row, int64_t panel, const RowSums<C, NW>& sums) const {
    C* out = pre_ + row * width_ + panel * NW * L;
    const C* b = kept.bias + panel * NW * L;
#pragma GCC unroll 4
    for (int j = 0; j < NW; ++j) store(out + j * L, load(sums[j]) + load(b + j * L));
  }

  void recur(const Now& now, const ProductRows<C>& rows, const C* R, const Sweep& sweep) const {
    multiply_rows<C, NW, kStep<S>>(
        rows, PackedPanels<C, NW>{R, rows.K}, sweep,
        [&](int row, int64_t panel) {
          return TileAddend<C>{now.pre + row * width_ + panel * NW * L, width_,
                               cell == Cell::gru ? now.kept.bias_q + panel * L : nullptr};
        },
        each_row([&](int row, int64_t panel, const auto& sums) { finish(now, row, panel, sums); }));
  }
  void project(const Now& now, const ProductRows<C>& rows, const C* W_hr, const Team& team) const {
    const Range panels = share(projection_.template count<C>(), team);
    multiply_rows<C, kTileVectors>(rows, PackedPanels<C, kTileVectors>{W_hr, rows.K},
                                   Sweep{panels, now.before}, Nothing<C>{},
                                   each_row([&](int row, int64_t panel, const auto& sums) {
                                     give(now, projection_, row, panel, sums);
                                   }));
  }

  // The cell's maths for a panel's units of one row.
  void finish(const Now& now, int row, int64_t panel, const RowSums<C, NW>& a) const {
    const int64_t u = panel * L;
    if constexpr (cell == Cell::lstm) {
      C* c = now.kept.c + row * ldc_ + u;
      const auto state = cells::lstm<Math>(load(a[0]), load(a[1]), load(a[2]), load(a[3]), load(c));
      store(c, state.c);
      if (p_.project) store(hidden_ + row * ldc_ + u, state.h);
      else give(now, row, u, state.h, shape_.lanes<C>(panel, 0));
    } else if constexpr (cell == Cell::gru) {
      const C* x_n = now.pre + row * width_ + (panel * NW + 2) * L;
      const auto state = cells::gru<Math>(load(a[0]), load(a[1]), load(x_n), load(a[2]),
                                          load(now.kept.h[now.before] + row * ldh_ + u));
      give(now, row, u, state.h, shape_.lanes<C>(panel, 0));
    } else {
      C h[kTileVectors][L];
      for (int j = 0; j < kTileVectors; ++j) store(h[j], cells::rnn<Math>(relu_, load(a[j])));
      give(now, shape_, row, panel, h);
    }
  }
  void give(const Now& now, const PanelShape& shape, int row, int64_t panel,
            const RowSums<C, kTileVectors>& h) const {
    for (int j = 0; j < kTileVectors; ++j)
      if (const int lanes = shape.lanes<C>(panel, j))
        give(now, row, shape.row<C>(panel, j), load(h[j]), lanes);
  }
  void give(const Now& now, int64_t row, int64_t u, V h, int lanes) const {
    keep_h(now.kept, now.after, row, u, h, lanes);
    store(row_of<S>(now.y, 0, row) + u, h, lanes);
  }
  // Lanes past the last unit hold zero: a product of pairs reads one of them.
  void keep_h(const Kept& kept, int64_t buffer, int64_t row, int64_t u, V h, int lanes) const {
    if constexpr (kPairs) h = first_lanes<C>(h, lanes);
    store(kept.h[buffer] + row * ldh_ + u, rounded<S>(h));
    if constexpr (kPairs) store(reinterpret_cast<S*>(kept.pairs[buffer] + row * ldh_) + u, h);
  }
};

template <Cell cell, class F>
void with_stream(const Stream& p, const F& f) {
  with_storage(p.dtype, [&](auto s) {
    cpu::Arena arena(p.memory);
    f(StreamKernel<decltype(s), cell>(p, arena));
  });
}

template <Cell cell>
int64_t stream_bytes(const Stream& p) {
  cpu::Arena measure{cpu::Arena::Measure{}};
  with_storage(p.dtype, [&](auto s) { StreamKernel<decltype(s), cell>(p, measure); });
  return static_cast<int64_t>(measure.used()) + 64;  // borrowed memory is used from a boundary on
}
template <Cell cell>
void stream_begin(const Stream& p) {
  with_stream<cell>(p, [](const auto& kernel) { kernel.begin(); });
}
template <Cell cell>
void stream_run(const StreamRun& p) {
  with_stream<cell>(p, [&](const auto& kernel) { kernel.run(p); });
}
template <Cell cell>
void stream_states(const StreamStates& p) {
  with_stream<cell>(p, [&](const auto& kernel) { kernel.states(p); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
