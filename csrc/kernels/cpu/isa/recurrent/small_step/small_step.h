// One step of a few rows: bound by reading each weight once, so they are read as they lie, nothing is packed;
// 16-bit weights are widened as they are loaded. What forward and backward share.
#pragma once
#include "kernels/cpu/isa/recurrent/kernel.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class Params, class S, Cell cell>
class SmallStep : protected RecurrentKernel<Params, S, cell> {
protected:
  using Base = RecurrentKernel<Params, S, cell>;
  using Base::G, Base::L, Base::p_;
  using typename Base::C, typename Base::V;

  const int64_t GH_, ldx_, ldh_, ldg_;
  C *x_, *h_;           // [B][ldx], [B][ldh] the input and state in the compute type
  C *input_, *hidden_;  // [B][ldg] of the products W x and R h, or their gradients; one array but for GRU

  SmallStep(const Params& p, const cpu::Plan& plan)
      : Base(p, plan), GH_(G * p.H), ldx_(padded<C>(p.I)), ldh_(padded<C>(p.H)), ldg_(padded<C>(GH_)) {}

  void lay_out(cpu::Arena& arena) {
    x_ = arena.take<C>(p_.B * ldx_);
    h_ = arena.take<C>(p_.B * ldh_);
    input_ = arena.take<C>(p_.B * ldg_);
    hidden_ = cell == Cell::gru ? arena.take<C>(p_.B * ldg_) : input_;
  }
  void widen_inputs() {
    widen(p_.x, p_.I, x_, ldx_);
    widen(p_.h0, p_.H, h_, ldh_);
  }

  // f(b, u, lanes) for every vector of the units that this thread has.
  template <class F>
  void each_unit(int rank, int size, const F& f) const {
    const Range units = share(p_.H, rank, size, L);
    for (int64_t b = 0; b < p_.B; ++b)
      for (int64_t u = units.begin; u < units.end; u += L) f(b, u, lanes_left<C>(p_.H, u));
  }

private:
  void widen(const Rows& from, int64_t n, C* to, int64_t stride) const {
    for (int64_t b = 0; b < p_.B; ++b)
      for (int64_t u = 0; u < n; u += L)
        store(to + b * stride + u, from.data ? load(row_of<S>(from, 0, b) + u, lanes_left<C>(n, u)) : V{});
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
