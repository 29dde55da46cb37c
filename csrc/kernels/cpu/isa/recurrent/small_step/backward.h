// One step of a few rows, backward: dx and dh0 are sums of weight rows, dW and dR outer products, each
// written once.
#pragma once
#include "small_step.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S, Cell cell>
class SmallStepBackward : SmallStep<RecurrentBackward, S, cell> {
  using Base = SmallStep<RecurrentBackward, S, cell>;
  using Base::G, Base::L;
  using Base::GH_, Base::h_, Base::hidden_, Base::input_, Base::ldg_, Base::ldh_, Base::ldx_, Base::p_,
      Base::plan_, Base::relu_, Base::x_;
  using typename Base::C, typename Base::V;

  C *dx_sums_, *dh_sums_;  // [threads][B][ldx] and [threads][B][ldh]
  C* direct_;              // [B][ldh] GRU: the part of dh0 that does not pass through R

public:
  SmallStepBackward(const RecurrentBackward& p, const cpu::Plan& plan) : Base(p, plan) {}

  void run() {
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
    this->widen_inputs();
#pragma omp parallel num_threads(plan_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      this->each_unit(rank, size, [&](int64_t b, int64_t u, int lanes) { gates(b, u, lanes); });
#pragma omp barrier
      const Range rows = share(GH_, rank, size, 16);
      if (p_.dx.data) row_sums({input_, p_.W, p_.I, dx_sums_ + rank * p_.B * ldx_, ldx_}, rows);
      if (p_.dh0.data) row_sums({hidden_, p_.R, p_.H, dh_sums_ + rank * p_.B * ldh_, ldh_}, rows);
      for (int64_t n = rows.begin; n < rows.end; ++n) {
        if (p_.dW.data) outer(input_ + n, x_, ldx_, p_.I, static_cast<S*>(p_.dW.data) + n * p_.I);
        if (p_.dR.data) outer(hidden_ + n, h_, ldh_, p_.H, static_cast<S*>(p_.dR.data) + n * p_.H);
        if (p_.db_ih) from_float(column(input_, n), static_cast<S*>(p_.db_ih)[n]);
        if (p_.db_hh) from_float(column(hidden_, n), static_cast<S*>(p_.db_hh)[n]);
      }
#pragma omp barrier
      if (p_.dx.data) add_partials({dx_sums_, nullptr, p_.I, ldx_}, p_.dx, p_.add_dx, rank, size);
      if (p_.dh0.data)
        add_partials({dh_sums_, cell == Cell::gru ? direct_ : nullptr, p_.H, ldh_}, p_.dh0, false, rank,
                     size);
    }
  }

private:
  // sums[b][c] = sum_n dgates[b][n] w[n][c], c < N.
  struct RowSumsOf {
    const C* dgates;
    const Matrix& w;
    int64_t N;
    C* sums;
    int64_t stride;
  };
  // Of each thread, and what is added to the sum of all.
  struct Partials {
    const C *sums, *extra;
    int64_t N, stride;
  };

  void lay_out(cpu::Arena& arena) {
    Base::lay_out(arena);
    dx_sums_ = arena.take<C>(p_.dx.data ? plan_.threads * p_.B * ldx_ : 0);
    dh_sums_ = arena.take<C>(p_.dh0.data ? plan_.threads * p_.B * ldh_ : 0);
    direct_ = arena.take<C>(cell == Cell::gru ? p_.B * ldh_ : 0);
  }

  C column(const C* dgates, int64_t n) const {
    C sum = 0;
    for (int64_t b = 0; b < p_.B; ++b) sum += dgates[b * ldg_ + n];
    return sum;
  }

  void gates(int64_t b, int64_t u, int lanes) {
    const int64_t H = p_.H;
    V dh{};
    if (p_.dy.data) dh += load(row_of<S>(p_.dy, 0, b) + u, lanes);
    if (p_.dh_n.data) dh += load(row_of<S>(p_.dh_n, 0, b) + u, lanes);
    C *in = input_ + b * ldg_ + u, *hid = hidden_ + b * ldg_ + u;
    if constexpr (cell == Cell::lstm) {
      const S* s = row_of<S>(p_.gates, 0, b) + u;
      const V dc = p_.dc_n.data ? load(row_of<S>(p_.dc_n, 0, b) + u, lanes) : V{};
      const V c_prev = p_.c0.data ? load(row_of<S>(p_.c0, 0, b) + u, lanes) : V{};
      const auto d = cells::lstm_backward<Math>(load(s, lanes), load(s + H, lanes), load(s + 2 * H, lanes),
                                                load(s + 3 * H, lanes), c_prev,
                                                load(row_of<C>(p_.cells, 0, b) + u, lanes), dh, dc);
      store(in, d.i, lanes);
      store(in + H, d.f, lanes);
      store(in + 2 * H, d.g, lanes);
      store(in + 3 * H, d.o, lanes);
      if (p_.dc0.data) store(row_of<S>(p_.dc0, 0, b) + u, d.c_prev, lanes);
    } else if constexpr (cell == Cell::gru) {
      const S* s = row_of<S>(p_.gates, 0, b) + u;
      const auto d = cells::gru_backward(load(s, lanes), load(s + H, lanes), load(s + 2 * H, lanes),
                                         load(s + 3 * H, lanes), load(h_ + b * ldh_ + u), dh);
      store(in, d.r, lanes);
      store(in + H, d.z, lanes);
      store(in + 2 * H, d.n, lanes);
      store(hid, d.r, lanes);
      store(hid + H, d.z, lanes);
      store(hid + 2 * H, d.q, lanes);
      store(direct_ + b * ldh_ + u, d.h_prev);
    } else {
      const V h = load(row_of<S>(p_.y, 0, b) + u, lanes);
      store(in, cells::rnn_backward(relu_, h, dh), lanes);
    }
  }

  // Over the rows n of this thread: the weight streams by once, eight rows at a time, for all b; the sums
  // stay in L1.
  void row_sums(const RowSumsOf of, const Range rows) const {
    constexpr int kRows = 8;
    // Of its own: what is stored could be any of the members, which would be read again each time.
    const int64_t B = p_.B, N = of.N, stride = of.stride, w_stride = of.w.stride, ldg = ldg_;
    const C* const dgates = of.dgates;
    C* const sums = of.sums;
    for (int64_t i = 0; i < B * stride; i += L) store(sums + i, V{});
    for (int64_t n = rows.begin; n < rows.end; n += kRows) {
      const int count = static_cast<int>(std::min<int64_t>(kRows, rows.end - n));
      const S* row = static_cast<const S*>(of.w.data) + n * w_stride;
      for (int64_t c = 0; c < N; c += L) {
        const int lanes = lanes_left<C>(N, c);
        V value[kRows];
        for (int i = 0; i < kRows; ++i) value[i] = i < count ? load(row + i * w_stride + c, lanes) : V{};
        for (int64_t b = 0; b < B; ++b) {
          const C* d = dgates + b * ldg + n;
          C* sum = sums + b * stride + c;
          V s = load(sum);
#pragma GCC unroll 8
          for (int i = 0; i < kRows; ++i) s += splat(i < count ? d[i] : C(0)) * value[i];
          store(sum, s);
        }
      }
    }
  }

  // out[b][c] = the threads' partial sums in order (+ extra[b][c]).
  void add_partials(const Partials& of, const Rows& out, bool add, int rank, int size) const {
    const Range columns = share(of.N, rank, size, L);
    for (int64_t b = 0; b < p_.B; ++b)
      for (int64_t c = columns.begin; c < columns.end; c += L) {
        const int lanes = lanes_left<C>(of.N, c);
        S* to = row_of<S>(out, 0, b) + c;
        V sum = add ? load(to, lanes) : V{};
        if (of.extra) sum += load(of.extra + b * of.stride + c);
        for (int k = 0; k < size; ++k) sum += load(of.sums + (k * p_.B + b) * of.stride + c);
        store(to, sum, lanes);
      }
  }

  // out[c] = sum_b dgates[b] a[b][c], of one column of dgates.
  void outer(const C* dgates, const C* a, int64_t stride, int64_t N, S* out) const {
    const int64_t B = p_.B, ldg = ldg_;
    for (int64_t c = 0; c < N; c += L) {
      V sum{};
      for (int64_t b = 0; b < B; ++b) sum += splat(dgates[b * ldg]) * load(a + b * stride + c);
      store(out + c, sum, lanes_left<C>(N, c));
    }
  }
};

template <Cell cell>
void small_step_backward(const RecurrentBackward& p, const cpu::Plan& plan) {
  with_storage(p.dtype, [&](auto s) { SmallStepBackward<decltype(s), cell>(p, plan).run(); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
