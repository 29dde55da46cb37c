// What forward and backward of normalised cells share: how a row's gates lie, and where sequences start anew.
#pragma once
#include "blocks.h"
#include "kernels/cpu/isa/recurrent/sequence.h"
#include "kernels/normalised.h"
#include "layer_norm.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class Params, class S, Cell cell>
class NormalisedKernel : protected Sequence<Params, S, cell> {
protected:
  using Base = Sequence<Params, S, cell>;
  using Base::G, Base::L;
  using Base::p_;
  using typename Base::C, typename Base::V;

  const bool apart_, summed_;  // W x and R h' are normalised apart; their sum is
  const bool of_state_;        // c is
  const int64_t GH_, ldg_, ldh_;
  const Blocks blocks_;
  // Of gains and biases, as the kernels read them: [GH] four times, [H] twice.
  C *g_ih_, *b_ih_, *g_hh_, *b_hh_, *g_c_, *b_c_;

  NormalisedKernel(const Params& p, const cpu::Plan& plan, int64_t chunk_rows)
      : Base(p, plan, chunk_rows),
        apart_(norms_apart(p.norm)),
        summed_(p.norm == Norm::dreamer),
        of_state_(norms_state(p.norm, p.cell)),
        GH_(G * p.H),
        ldg_(padded<C>(GH_)),
        ldh_(padded<C>(p.H)),
        blocks_{p.H, G, p.blocks} {}

  // A step of fewer weights than a whole R has.
  static RecurrentSizes planned(const Params& p) {
    RecurrentSizes s = p;
    s.P = p.H / p.blocks;
    return s;
  }

  void take_vectors(cpu::Arena& arena) {
    for (C** v : {&g_ih_, &b_ih_, &g_hh_, &b_hh_}) *v = arena.take<C>(ldg_);
    for (C** v : {&g_c_, &b_c_}) *v = arena.take<C>(ldh_);
  }
  void read_vectors() const {
    const auto read = [](const void* from, int64_t n, C absent, C* to) {
      for (int64_t i = 0; i < n; ++i) to[i] = from ? to_float(static_cast<const S*>(from)[i]) : absent;
    };
    read(p_.g_ih, GH_, 1, g_ih_);
    read(p_.b_ih, GH_, 0, b_ih_);
    read(p_.g_hh, GH_, 1, g_hh_);
    read(p_.b_hh, GH_, 0, b_hh_);
    read(p_.g_c, p_.H, 1, g_c_);
    read(p_.b_c, p_.H, 0, b_c_);
  }

  // f(group, first, count) for each group of a row of gates that a layer norm averages over.
  template <class F>
  FUSEGEN_INLINE void each_group(const F& f) const {
    if (norm_groups(p_.norm, p_.cell) == 1) return f(0, int64_t{0}, GH_);
    f(0, int64_t{0}, 2 * p_.H);
    f(1, 2 * p_.H, p_.H);
  }

  // The values that forward saved of a row, behind those of a plain cell.
  static constexpr int64_t kPlain = saved_gates(cell);
  template <class X>
  X* saved_x(X* row) const {
    return row + kPlain * p_.H;
  }
  template <class X>
  X* saved_h(X* row) const {
    return row + kPlain * p_.H + (apart_ ? GH_ : 0);
  }

  // Whether row i's sequence starts anew before its step `step`, which it has.
  bool starts_anew(const Batch& batch, int i, int64_t step) const {
    if (!p_.resets.at) return false;
    const int64_t t = batch.time(i, step) + (batch.reverse ? 1 : 0);
    return t < batch.length[i] && p_.resets.at[t * p_.resets.stride_t + batch.row[i] * p_.resets.stride_b];
  }

  static FUSEGEN_INLINE V load_or_zero(const Rows& from, int64_t b, int64_t u, int lanes) {
    return from.data ? load(row_of<S>(from, 0, b) + u, lanes) : V{};
  }

  // A weight [rows][K] packed for products with rows of K on the left.
  template <class RowPointer>
  static void pack_right(const RowPointer& row, int64_t N, int64_t K, C* out, int rank, int size) {
    const Range mine = share(PanelShape{N, 1}.template count<C>(), rank, size);
    for (int64_t p = mine.begin; p < mine.end; ++p)
      pack_columns<S>(row, N, K, p, out + p * K * kTileColumns<C>);
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
