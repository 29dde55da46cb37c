// One step of a few rows, forward: eight weight rows at a time against all batch rows, sums along k in
// vectors.
#pragma once
#include "small_step.h"

namespace fusegen::FUSEGEN_ISA_NS {

// out[n] += sum_k a[k] w[n][k] for N weight rows.
template <class S, int N>
void dot_rows(const Compute<S>* a, const S* w, int64_t stride, int64_t K, Compute<S>* out) {
  using C = Compute<S>;
  constexpr int L = kLanes<C>;
  Vector<C> acc[N] = {};
  int64_t k = 0;
  for (; k + L <= K; k += L) {
    const Vector<C> v = load(a + k);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) acc[n] += v * load(w + n * stride + k);
  }
  if (k < K) {
    const int lanes = static_cast<int>(K - k);
    const Vector<C> v = load(a + k, lanes);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) acc[n] += v * load(w + n * stride + k, lanes);
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) out[n] += sum_lanes<C>(acc[n]);
}

template <class S, Cell cell>
class SmallStepForward : SmallStep<RecurrentForward, S, cell> {
  using Base = SmallStep<RecurrentForward, S, cell>;
  using Base::G, Base::L;
  using Base::GH_, Base::h_, Base::hidden_, Base::input_, Base::ldg_, Base::ldh_, Base::ldx_, Base::p_,
      Base::plan_, Base::relu_, Base::x_;
  using typename Base::C, typename Base::V;
  static constexpr int kRowsAtOnce = 8;

public:
  SmallStepForward(const RecurrentForward& p, const cpu::Plan& plan) : Base(p, plan) {}

  void run() {
    cpu::Arena arena([&](cpu::Arena& a) { this->lay_out(a); });
    this->widen_inputs();
#pragma omp parallel num_threads(plan_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      const Range rows = share(GH_, rank, size, kRowsAtOnce);
      for (int64_t n = rows.begin; n < rows.end; n += kRowsAtOnce)
        products(n, static_cast<int>(std::min<int64_t>(kRowsAtOnce, rows.end - n)));
#pragma omp barrier
      this->each_unit(rank, size, [&](int64_t b, int64_t u, int lanes) { finish(b, u, lanes); });
    }
  }

private:
  void products(int64_t n, int count) const {
    for (int64_t b = 0; b < p_.B; ++b) {
      C *input = input_ + b * ldg_ + n, *hidden = hidden_ + b * ldg_ + n;
      for (int i = 0; i < count; ++i) {
        const C b_ih = p_.b_ih ? to_float(static_cast<const S*>(p_.b_ih)[n + i]) : C(0);
        const C b_hh = p_.b_hh ? to_float(static_cast<const S*>(p_.b_hh)[n + i]) : C(0);
        input[i] = cell == Cell::gru ? b_ih : b_ih + b_hh;
        if (cell == Cell::gru) hidden[i] = b_hh;
      }
      add_products(p_.W, x_ + b * ldx_, p_.I, n, count, input);
      add_products(p_.R, h_ + b * ldh_, p_.H, n, count, hidden);
    }
  }
  static void add_products(const Matrix& m, const C* a, int64_t K, int64_t n, int count, C* out) {
    const S* w = static_cast<const S*>(m.data) + n * m.stride;
    if (count == kRowsAtOnce) return dot_rows<S, kRowsAtOnce>(a, w, m.stride, K, out);
    for (int i = 0; i < count; ++i) dot_rows<S, 1>(a, w + i * m.stride, m.stride, K, out + i);
  }

  void finish(int64_t b, int64_t u, int lanes) const {
    const int64_t H = p_.H;
    const C *in = input_ + b * ldg_ + u, *hid = hidden_ + b * ldg_ + u;
    S* y = row_of<S>(p_.y, 0, b) + u;
    S* h_n = row_of<S>(p_.h_n, 0, b) + u;
    S* gates = p_.gates.data ? row_of<S>(p_.gates, 0, b) + u : nullptr;
    V h;
    if constexpr (cell == Cell::lstm) {
      const V c_prev = p_.c0.data ? load(row_of<S>(p_.c0, 0, b) + u, lanes) : V{};
      const auto state = cells::lstm<Math>(load(in, lanes), load(in + H, lanes), load(in + 2 * H, lanes),
                                           load(in + 3 * H, lanes), c_prev);
      h = state.h;
      store(row_of<S>(p_.c_n, 0, b) + u, state.c, lanes);
      if (gates) {
        store(gates, state.i, lanes);
        store(gates + H, state.f, lanes);
        store(gates + 2 * H, state.g, lanes);
        store(gates + 3 * H, state.o, lanes);
        store(row_of<C>(p_.cells, 0, b) + u, state.c, lanes);
      }
    } else if constexpr (cell == Cell::gru) {
      const V q = load(hid + 2 * H, lanes);
      const auto state =
          cells::gru<Math>(load(in, lanes) + load(hid, lanes), load(in + H, lanes) + load(hid + H, lanes),
                           load(in + 2 * H, lanes), q, load(h_ + b * ldh_ + u));
      h = state.h;
      if (gates) {
        store(gates, state.r, lanes);
        store(gates + H, state.z, lanes);
        store(gates + 2 * H, state.n, lanes);
        store(gates + 3 * H, q, lanes);
      }
    } else {
      h = cells::rnn<Math>(relu_, load(in, lanes));
    }
    store(y, h, lanes);
    store(h_n, h, lanes);
  }
};

template <Cell cell>
void small_step_forward(const RecurrentForward& p, const cpu::Plan& plan) {
  with_storage(p.dtype, [&](auto s) { SmallStepForward<decltype(s), cell>(p, plan).run(); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
