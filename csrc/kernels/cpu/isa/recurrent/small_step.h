// One step of a few rows: bound by reading each weight once, so they are read as they lie, nothing is packed.
//
// Forward: eight weight rows at a time against all batch rows, sums along k in vectors. Backward: dx and dh0
// are sums of weight rows, dW and dR outer products, each written once. 16-bit weights are widened as they
// are loaded.
#pragma once
#include "backward.h"

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

// Rows of a caller's tensor in the compute type, or pointers to them where they are already.
template <class S>
void widen(const Rows& from, int64_t B, int64_t n, Compute<S>* to, int64_t stride) {
  constexpr int L = kLanes<Compute<S>>;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t u = 0; u < n; u += L) {
      const int lanes = n - u < L ? static_cast<int>(n - u) : L;
      store(to + b * stride + u, from.data ? load(row_of<S>(from, 0, b) + u, lanes) : Vector<Compute<S>>{});
    }
}

template <class S, Cell cell>
class SmallStepForward {
  using C = Compute<S>;
  using V = Vector<C>;
  static constexpr int L = kLanes<C>;
  static constexpr int G = gate_count(cell);
  static constexpr int kRowsAtOnce = 8;

  const RecurrentForward& p_;
  const cpu::Plan plan_;
  const int64_t GH_, ldx_, ldh_, ldg_;
  C *x_, *h_;
  C *input_, *hidden_;  // [B][ldg]: W x + b_ih and R h + b_hh; one sum but for GRU

public:
  explicit SmallStepForward(const RecurrentForward& p)
      : p_(p),
        plan_(cpu::plan_forward(p)),
        GH_(G * p.H),
        ldx_(padded<C>(p.I)),
        ldh_(padded<C>(p.H)),
        ldg_(padded<C>(GH_)) {}

  void run() {
    cpu::Arena measure{cpu::Arena::Measure{}};
    lay_out(measure);
    cpu::Arena arena(measure.used());
    lay_out(arena);
    widen<S>(p_.x, p_.B, p_.I, x_, ldx_);
    widen<S>(p_.h0, p_.B, p_.H, h_, ldh_);
#pragma omp parallel num_threads(plan_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      const Range rows = share(GH_, rank, size, kRowsAtOnce);
      for (int64_t n = rows.begin; n < rows.end; n += kRowsAtOnce)
        products(n, static_cast<int>(std::min<int64_t>(kRowsAtOnce, rows.end - n)));
#pragma omp barrier
      const Range units = share(p_.H, rank, size, L);
      for (int64_t b = 0; b < p_.B; ++b)
        for (int64_t u = units.begin; u < units.end; u += L)
          finish(b, u, p_.H - u < L ? static_cast<int>(p_.H - u) : L);
    }
  }

private:
  void lay_out(cpu::Arena& arena) {
    x_ = arena.take<C>(p_.B * ldx_);
    h_ = arena.take<C>(p_.B * ldh_);
    input_ = arena.take<C>(p_.B * ldg_);
    hidden_ = cell == Cell::gru ? arena.take<C>(p_.B * ldg_) : input_;
  }

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
      const V a = load(in, lanes);
      h = cells::rnn<Math>(cell == Cell::rnn_relu, a);
    }
    store(y, h, lanes);
    store(h_n, h, lanes);
  }
};

template <class S, Cell cell>
class SmallStepBackward {
  using C = Compute<S>;
  using V = Vector<C>;
  static constexpr int L = kLanes<C>;
  static constexpr int G = gate_count(cell);

  const RecurrentBackward& p_;
  const cpu::Plan plan_;
  const int64_t GH_, ldx_, ldh_, ldg_;
  C *x_, *h_;
  C *input_, *hidden_;     // [B][ldg] gradients of W x and of R h; one array but for GRU
  C *dx_sums_, *dh_sums_;  // [threads][B][ldx] and [threads][B][ldh]
  C* direct_;              // [B][ldh] GRU: the part of dh0 that does not pass through R

public:
  explicit SmallStepBackward(const RecurrentBackward& p)
      : p_(p),
        plan_(cpu::plan_backward(p)),
        GH_(G * p.H),
        ldx_(padded<C>(p.I)),
        ldh_(padded<C>(p.H)),
        ldg_(padded<C>(GH_)) {}

  void run() {
    cpu::Arena measure{cpu::Arena::Measure{}};
    lay_out(measure);
    cpu::Arena arena(measure.used());
    lay_out(arena);
    widen<S>(p_.x, p_.B, p_.I, x_, ldx_);
    widen<S>(p_.h0, p_.B, p_.H, h_, ldh_);
#pragma omp parallel num_threads(plan_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      const Range units = share(p_.H, rank, size, L);
      for (int64_t b = 0; b < p_.B; ++b)
        for (int64_t u = units.begin; u < units.end; u += L)
          gates(b, u, p_.H - u < L ? static_cast<int>(p_.H - u) : L);
#pragma omp barrier
      const Range rows = share(GH_, rank, size, 16);
      if (p_.dx.data) row_sums(input_, p_.W, p_.I, dx_sums_ + rank * p_.B * ldx_, ldx_, rows);
      if (p_.dh0.data) row_sums(hidden_, p_.R, p_.H, dh_sums_ + rank * p_.B * ldh_, ldh_, rows);
      for (int64_t n = rows.begin; n < rows.end; ++n) {
        if (p_.dW.data) outer(input_, n, x_, ldx_, p_.I, static_cast<S*>(p_.dW.data) + n * p_.I);
        if (p_.dR.data) outer(hidden_, n, h_, ldh_, p_.H, static_cast<S*>(p_.dR.data) + n * p_.H);
        if (p_.db_ih) from_float(column(input_, n), static_cast<S*>(p_.db_ih)[n]);
        if (p_.db_hh) from_float(column(hidden_, n), static_cast<S*>(p_.db_hh)[n]);
      }
#pragma omp barrier
      if (p_.dx.data) add_partials(dx_sums_, p_.I, ldx_, p_.dx, p_.add_dx, nullptr, rank, size);
      if (p_.dh0.data)
        add_partials(dh_sums_, p_.H, ldh_, p_.dh0, false, cell == Cell::gru ? direct_ : nullptr, rank, size);
    }
  }

private:
  void lay_out(cpu::Arena& arena) {
    x_ = arena.take<C>(p_.B * ldx_);
    h_ = arena.take<C>(p_.B * ldh_);
    input_ = arena.take<C>(p_.B * ldg_);
    hidden_ = cell == Cell::gru ? arena.take<C>(p_.B * ldg_) : input_;
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
      store(in, cells::rnn_backward(cell == Cell::rnn_relu, h, dh), lanes);
    }
  }

  // partial[b][c] = sum_n dgates[b][n] w[n][c] over the rows n of this thread: the weight streams by once,
  // eight rows at a time, for all b; the sums stay in L1.
  void row_sums(const C* dgates, const Matrix& w, int64_t N, C* partial, int64_t stride,
                const Range& rows) const {
    constexpr int kRows = 8;
    for (int64_t i = 0; i < p_.B * stride; i += L) store(partial + i, V{});
    for (int64_t n = rows.begin; n < rows.end; n += kRows) {
      const int count = static_cast<int>(std::min<int64_t>(kRows, rows.end - n));
      const S* row = static_cast<const S*>(w.data) + n * w.stride;
      for (int64_t c = 0; c < N; c += L) {
        const int lanes = N - c < L ? static_cast<int>(N - c) : L;
        V value[kRows];
        for (int i = 0; i < kRows; ++i) value[i] = i < count ? load(row + i * w.stride + c, lanes) : V{};
        for (int64_t b = 0; b < p_.B; ++b) {
          const C* d = dgates + b * ldg_ + n;
          C* sum = partial + b * stride + c;
          V s = load(sum);
#pragma GCC unroll 8
          for (int i = 0; i < kRows; ++i) s += splat(i < count ? d[i] : C(0)) * value[i];
          store(sum, s);
        }
      }
    }
  }

  // out[b][c] = the threads' partial sums in order (+ extra[b][c]).
  void add_partials(const C* partials, int64_t N, int64_t stride, const Rows& out, bool add, const C* extra,
                    int rank, int size) const {
    const Range columns = share(N, rank, size, L);
    for (int64_t b = 0; b < p_.B; ++b)
      for (int64_t c = columns.begin; c < columns.end; c += L) {
        const int lanes = N - c < L ? static_cast<int>(N - c) : L;
        S* to = row_of<S>(out, 0, b) + c;
        V sum = add ? load(to, lanes) : V{};
        if (extra) sum += load(extra + b * ldh_ + c);
        for (int k = 0; k < size; ++k) sum += load(partials + (k * p_.B + b) * stride + c);
        store(to, sum, lanes);
      }
  }

  // out[c] = sum_b dgates[b][n] a[b][c].
  void outer(const C* dgates, int64_t n, const C* a, int64_t stride, int64_t N, S* out) const {
    for (int64_t c = 0; c < N; c += L) {
      V sum{};
      for (int64_t b = 0; b < p_.B; ++b) sum += splat(dgates[b * ldg_ + n]) * load(a + b * stride + c);
      store(out + c, sum, N - c < L ? static_cast<int>(N - c) : L);
    }
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
