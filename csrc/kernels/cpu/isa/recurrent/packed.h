// The weights of one direction of a layer as the kernels read them.
#pragma once
#include <vector>

#include "kernels/cpu/isa/vector/pack.h"
#include "kernels/cpu/isa/vector/team.h"

namespace fusegen::FUSEGEN_ISA_NS {

// Panels of W, then of R, then of W_hr.
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
      pack_panel(gates, WeightRows<S>{static_cast<const S*>(m.data), m.stride, K},
                 PanelBlock{i / passes, static_cast<int>(i % passes), 0, steps<S>(K)}, out + i * part);
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
      pack_panel(PanelShape{count, 1}, WeightRows<C>{rows.data(), K, K}, PanelBlock{0, 0, 0, K},
                 W_hr + p * panel);
    }
  }
};

// The biases as gates are summed from, this thread's part of them: b_ih + b_hh, of GRU's n b_ih alone, to
// bias [panel][vectors][L]; GRU's b_hn to bias_q [panel][L].
struct Biases {
  const void *b_ih, *b_hh;  // [G*H], or null
};
template <class S, Cell cell>
void fill_biases(const PanelShape& shape, const Biases& from, Compute<S>* bias, Compute<S>* bias_q, int rank,
                 int size) {
  using C = Compute<S>;
  constexpr int L = kLanes<C>;
  const auto value = [](const void* b, int64_t row) {
    return b ? to_float(static_cast<const S*>(b)[row]) : C(0);
  };
  const int vectors = shape.vectors();
  const Range mine = share(shape.count<C>(), rank, size);
  for (int64_t p = mine.begin; p < mine.end; ++p)
    for (int j = 0; j < vectors; ++j)
      for (int l = 0; l < L; ++l) {
        const bool is_n = cell == Cell::gru && j == 2, is_unit = l < shape.lanes<C>(p, j);
        const int64_t row = shape.row<C>(p, j) + l;
        const C b_ih = is_unit ? value(from.b_ih, row) : C(0), b_hh = is_unit ? value(from.b_hh, row) : C(0);
        bias[(p * vectors + j) * L + l] = is_n ? b_ih : b_ih + b_hh;
        if (is_n) bias_q[p * L + l] = b_hh;
      }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
