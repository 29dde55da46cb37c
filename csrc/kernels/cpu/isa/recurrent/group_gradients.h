// Gradients of the weights apart for each group of the batch, from the gates' gradients of whole sequences: a
// product of a group's own steps a weight. What bounds it is the writing, groups times the weights' bytes.
//
// A thread runs groups of its own, or where there are fewer than threads, its columns of every group. A
// group's rows lie B apart, often on the same cache sets, so they are brought together first.
#pragma once
#include "kernels/cpu/isa/vector/vmath.h"
#include "kernels/group_gradients.h"
#include "weight_gradients.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S, Cell cell>
class PerGroup {
  using C = Compute<S>;
  using V = Vector<C>;
  static constexpr int L = kLanes<C>;
  static constexpr bool kNarrow = sizeof(S) != sizeof(C);

  struct Token {
    int64_t t, b;
    bool first;  // its state came from h0
  };
  // A thread's own.
  struct Scratch {
    C *dgates, *dh, *hidden;  // [steps of a group][ldg], [ldp], [ldc]
    C* panels;                // the right-hand side of a product
    C* sums;                  // a gradient that is stored in 16 bits
    double* of_columns;       // [columns]
  };
  // A group's part of a gradient [rows, N], and where it is summed.
  struct Result {
    S* to;
    int64_t rows, N;
    Range columns;  // of the left-hand side
    int64_t first;  // row of the result that its column 0 belongs to
  };

  const GroupGradients& p_;
  const GateColumns<cell> columns_{p_.H};
  const int64_t GH_ = gate_count(cell) * p_.H;
  const int64_t ldg_ = padded<C>(columns_.count()), ldc_ = padded<C>(p_.H), ldp_ = padded<C>(p_.P);
  const int64_t of_group_ = p_.groups ? p_.B / p_.groups : 0;
  S* zero_row_ = nullptr;
  std::vector<Scratch> scratch_;

public:
  explicit PerGroup(const GroupGradients& p) : p_(p) {}

  void run() {
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
    std::memset(static_cast<void*>(zero_row_), 0, p_.P * sizeof(S));
#pragma omp parallel num_threads(p_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      const bool apart = p_.groups >= size;
      const Range groups = apart ? share(p_.groups, rank, size) : Range{0, p_.groups};
      const Team team = apart ? Team{0, 1} : Team{rank, size};
      std::vector<Token> tokens;
      for (int64_t g = groups.begin; g < groups.end; ++g) run_group(g, team, scratch_[rank], tokens);
    }
  }

private:
  void lay_out(cpu::Arena& arena) {
    const int64_t steps = p_.T * of_group_;
    zero_row_ = arena.take<S>(ldp_);
    scratch_.assign(p_.threads, {});
    for (Scratch& s : scratch_) {
      s.dgates = arena.take<C>(steps * ldg_);
      s.dh = arena.take<C>(p_.dW_hr ? steps * ldp_ : 0);
      s.hidden = arena.take<C>(p_.dW_hr ? steps * ldc_ : 0);
      const int64_t widest = std::max({p_.dW ? p_.I : 0, p_.dR ? p_.P : 0, p_.dW_hr ? p_.H : 0});
      s.panels = arena.take<C>(PanelShape{widest, 1}.template size<C>(steps));
      s.sums = arena.take<C>(kNarrow ? std::max(GH_, p_.P) * widest : 0);
      s.of_columns = arena.take<double>(ldg_);
    }
  }

  void run_group(int64_t g, const Team& team, const Scratch& s, std::vector<Token>& tokens) const {
    list_tokens(g, tokens);
    const int64_t K = static_cast<int64_t>(tokens.size());
    for (int64_t k = 0; k < K; ++k)
      std::copy_n(row_of<C>(p_.dgates, tokens[k].t, tokens[k].b), columns_.count(), s.dgates + k * ldg_);
    const Range columns = share(GH_, team.rank, team.size, kGradientColumns);
    const ColumnRows<C> of_x{s.dgates, ldg_, K}, of_h{s.dgates + columns_.recurrent(), ldg_, K};
    if (p_.dW)
      multiply<S>(of_x, {of_group(p_.dW, g, GH_ * p_.I), GH_, p_.I, columns, columns_.input_row(0)}, s,
                  [&](int64_t k) { return row_of<S>(p_.x, tokens[k].t, tokens[k].b); });
    if (p_.dR)
      multiply<S>(of_h, {of_group(p_.dR, g, GH_ * p_.P), GH_, p_.P, columns, 0}, s,
                  [&](int64_t k) { return state_before(tokens[k]); });
    if (p_.dW_hr) {
      for (int64_t k = 0; k < K; ++k) make_projected(tokens[k], s.dh + k * ldp_, s.hidden + k * ldc_);
      const Range rows = share(p_.P, team.rank, team.size, kGradientColumns);
      multiply<C>({s.dh, ldp_, K}, {of_group(p_.dW_hr, g, p_.P * p_.H), p_.P, p_.H, rows, 0}, s,
                  [&](int64_t k) { return s.hidden + k * ldc_; });
    }
    if (p_.db_ih) add_up(of_x, columns, s, of_group(p_.db_ih, g, GH_), true);
    if (p_.db_hh) add_up(of_h, columns, s, of_group(p_.db_hh, g, GH_), false);
  }

  void list_tokens(int64_t g, std::vector<Token>& tokens) const {
    tokens.clear();
    for (int64_t b = g * of_group_; b < (g + 1) * of_group_; ++b) {
      const int64_t length = p_.lengths ? p_.lengths[b] : p_.T;
      for (int64_t t = 0; t < length; ++t) tokens.push_back({t, b, t == (p_.reverse ? length - 1 : 0)});
    }
  }

  static S* of_group(void* gradient, int64_t g, int64_t elements) {
    return static_cast<S*>(gradient) + g * elements;
  }

  const S* state_before(const Token& token) const {
    if (!token.first) return row_of<S>(p_.y, p_.reverse ? token.t + 1 : token.t - 1, token.b);
    return p_.h0.data ? row_of<S>(p_.h0, 0, token.b) : zero_row_;
  }

  // The two sides of a projection's gradient: dh, and o tanh(c).
  void make_projected(const Token& token, C* dh, C* hidden) const {
    std::copy_n(row_of<C>(p_.dh, token.t, token.b), p_.P, dh);
    const S* o = row_of<S>(p_.gates, token.t, token.b) + 3 * p_.H;
    const C* c = row_of<C>(p_.cells, token.t, token.b);
    for (int64_t u = 0; u < p_.H; u += L) {
      const int lanes = lanes_left<C>(p_.H, u);
      store(hidden + u, load(o + u, lanes) * Math::tanh(load(c + u, lanes)), lanes);
    }
  }

  // The rows row(k), of type X, are the right-hand side.
  template <class X, class RowPointer>
  void multiply(const ColumnRows<C>& a, const Result& result, const Scratch& s, const RowPointer& row) const {
    const auto [to, rows, N, columns, first] = result;
    const auto out_row = [&](int64_t m) { return (first + m < rows ? first + m : first + m - rows) * N; };
    if (!a.K) {
      for (int64_t m = columns.begin; m < columns.end; ++m)
        std::memset(static_cast<void*>(to + out_row(m)), 0, N * sizeof(S));
      return;
    }
    for (int64_t q = 0, count = PanelShape{N, 1}.template count<C>(); q < count; ++q)
      pack_rows<X>(row, N, 0, a.K, q, s.panels + q * a.K * kTileColumns<C>);
    C* out = s.sums;
    if constexpr (!kNarrow) out = to;
    multiply_columns(ColumnProduct<C>{.a = a.data,
                                      .stride = a.stride,
                                      .columns = columns,
                                      .b = s.panels,
                                      .N = N,
                                      .K = a.K,
                                      .add = false,
                                      .out = out,
                                      .first = first,
                                      .rows = rows});
    if constexpr (kNarrow)
      for (int64_t m = columns.begin; m < columns.end; ++m)
        for (int64_t n = out_row(m), end = n + N; n < end; ++n) from_float(s.sums[n], to[n]);
  }

  void add_up(const ColumnRows<C>& a, const Range& columns, const Scratch& s, S* to, bool input) const {
    for (int64_t m = columns.begin; m < columns.end; m += L) {
      add_columns<C>({a.data + m, a.stride, a.K}, false, s.of_columns);
      for (int64_t l = 0, n = std::min<int64_t>(L, columns.end - m); l < n; ++l)
        from_float(static_cast<C>(s.of_columns[l]), to[input ? columns_.input_row(m + l) : m + l]);
    }
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
