// From the gates' gradients of a chunk of steps, all threads together: dX, dW, dR, dW_hr and the biases',
// while they are in cache. Each element of every gradient is summed by one thread in one order.
//
// In pairs, which take a bf16 dot product and tensors of bf16, dgates are rounded to bf16 for the products
// with R, W, x and h, as torch rounds them; the biases' sums are of dgates as they were. The products with R
// and W pair neighbouring columns of dgates, those with x and h neighbouring rows.
//
// Columns of dgates: LSTM i|f|g|o, RNN a; GRU n_x|r|z|n_h, so that [0,3H) feeds dX and dW (rows n,r,z) and
// [H,4H) feeds dR and dh in torch's order.
#pragma once
#include "inside.h"
#include "sequence.h"

namespace fusegen::FUSEGEN_ISA_NS {

// The columns of dgates.
template <Cell cell>
struct GateColumns {
  static constexpr bool kGru = cell == Cell::gru;
  int64_t H;

  int64_t count() const { return (kGru ? 4 : gate_count(cell)) * H; }
  int64_t recurrent() const { return kGru ? H : 0; }  // the first that R sees
  // The weight row behind column k of the part that the input product sees.
  int64_t input_row(int64_t k) const { return kGru ? (k < H ? k + 2 * H : k - H) : k; }
};

// K rows of a vector, `stride` apart.
template <class C>
struct ColumnRows {
  const C* data;
  int64_t stride, K;
};

// sum[l] (+)= sum_k a[k][l]. Blocks of rows in the compute type, blocks together in double: over thousands
// of steps a single float sum loses more than torch does.
template <class C>
void add_columns(const ColumnRows<C>& a, bool add, double* sum) {
  constexpr int64_t kBlock = 16;
  constexpr int L = kLanes<C>;
  if (!add) std::fill(sum, sum + L, 0.0);
  for (int64_t k0 = 0; k0 < a.K; k0 += kBlock) {
    Vector<C> block{};
    for (int64_t k = k0, k1 = std::min(a.K, k0 + kBlock); k < k1; ++k) block += load(a.data + k * a.stride);
    for (int l = 0; l < L; ++l) sum[l] += block[l];
  }
}

// `operand`: of the products with dgates.
template <class S, Cell cell, Step operand>
class ChunkGradients : protected Sequence<RecurrentBackward, S, cell> {
  using Base = Sequence<RecurrentBackward, S, cell>;

protected:
  using Base::batches_, Base::bounds_, Base::fresh_, Base::p_, Base::plan_, Base::project_;
  using Base::G, Base::L;
  using typename Base::C, typename Base::V;
  static constexpr bool kPairs = operand == Step::pair;
  static constexpr int64_t steps(int64_t K) { return kPairs ? (K + 1) / 2 : K; }

  // A row at a step.
  struct Token {
    int32_t b;
    int64_t t;
    bool first;   // its state came from h0
    bool begins;  // or from where it starts anew
  };

  Inside<S> inside_;
  const GateColumns<cell> columns_;
  const int64_t recurrent_;  // first column that R sees
  const int64_t GH_;
  const int64_t ldg_, ldc_, ldp_;

  const bool fresh_W_;
  C* W_;              // packed for products with dgates on the left
  C* dgates_[2];      // [chunk rows][ldg], this chunk's and the one before it in time order reversed
  S* narrow_[2];      // the same rounded, where pairs are multiplied
  C* paired_;         // [(chunk rows + 1) / 2][ldg] words: rows 2k and 2k + 1 of this chunk's
  C *dhp_, *hidden_;  // projection: dh [chunk rows][ldp] and o tanh(c) [chunk rows][ldc]
  C *sum_W_, *sum_R_, *sum_hr_;               // sums of weight gradients where they are stored in 16 bits
  double* sum_b_;                             // [columns]
  C *x_panels_, *h_panels_, *hidden_panels_;  // right-hand sides of dW, dR and dW_hr, in plain panels
  C* masked_;                                 // [chunk rows][ldp] h as R read it, where it was masked
  S* zero_row_;

  ChunkGradients(const RecurrentBackward& p, const cpu::Plan& plan)
      : Base(p, plan, plan.chunk_rows),
        inside_(p),
        columns_{p.H},
        recurrent_(columns_.recurrent()),
        GH_(G * p.H),
        ldg_(padded<C>(columns_.count())),
        ldc_(padded<C>(p.H)),
        ldp_(padded<C>(p.P)),
        fresh_W_(this->reads_W_once()) {}

  void lay_out_gradients(cpu::Arena& arena) {
    const int64_t rows = std::max<int64_t>(1, largest_chunk(batches_, bounds_));
    const PanelShape to_h{p_.P, 1}, to_x{p_.I, 1}, to_hidden{p_.H, 1};
    W_ = arena.take<C>(p_.dx.data && !fresh_W_ ? to_x.size<C>(steps(GH_)) : 0);
    for (int i = 0; i < 2; ++i) {
      const int64_t size = i == 0 || bounds_.size() > 2 ? rows * ldg_ : 0;
      dgates_[i] = arena.take<C>(size);
      narrow_[i] = arena.take<S>(kPairs ? size : 0);
    }
    paired_ = arena.take<C>(kPairs ? steps(rows) * ldg_ : 0);
    dhp_ = arena.take<C>(project_ ? rows * ldp_ : 0);
    hidden_ = arena.take<C>(project_ ? rows * ldc_ : 0);
    constexpr bool narrow = sizeof(S) != sizeof(C);
    sum_W_ = arena.take<C>(narrow && p_.dW.data ? GH_ * p_.I : 0);
    sum_R_ = arena.take<C>(narrow && p_.dR.data ? GH_ * p_.P : 0);
    sum_hr_ = arena.take<C>(narrow && p_.dW_hr.data ? p_.P * p_.H : 0);
    sum_b_ = arena.take<double>(ldg_);
    x_panels_ = arena.take<C>(p_.dW.data ? to_x.size<C>(steps(rows)) : 0);
    h_panels_ = arena.take<C>(p_.dR.data ? to_h.size<C>(steps(rows)) : 0);
    hidden_panels_ = arena.take<C>(p_.dW_hr.data ? to_hidden.size<C>(rows) : 0);
    inside_.lay_out(arena);
    masked_ = arena.take<C>(p_.dR.data && inside_.drops_state() ? rows * ldp_ : 0);
    zero_row_ = arena.take<S>(ldp_);
  }

  // The last word of an odd number of columns reaches into the padding, whose product with the zero beside a
  // weight's last row has to be zero.
  void clear_narrow() const {
    if (!kPairs || p_.H % 2 == 0) return;
    const int64_t rows = std::max<int64_t>(1, largest_chunk(batches_, bounds_));
    for (int i = 0; i < (bounds_.size() > 2 ? 2 : 1); ++i)
      std::memset(static_cast<void*>(narrow_[i]), 0, rows * ldg_ * sizeof(S));
  }
  // Row `row` of dgates from a column on, as products with R and W read it.
  const C* product_row(int buffer, int64_t row, int64_t column) const {
    if constexpr (kPairs) return reinterpret_cast<const C*>(narrow_[buffer] + row * ldg_ + column);
    else return dgates_[buffer] + row * ldg_ + column;
  }

  int64_t input_row(int64_t k) const { return columns_.input_row(k); }
  const S* input_row_of_W(int64_t k) const {
    return static_cast<const S*>(p_.W.data) + input_row(k) * p_.W.stride;
  }

  // Rows of a weight as panels packed when needed.
  template <class RowPointer>
  auto fresh_panels(int64_t N, int rank, const RowPointer& row) const {
    const auto pack = [N, row, rows = GH_](const PanelBlock& block, C* buffer) {
      const int64_t count = block.k1 - block.k0;
      if constexpr (kPairs)
        pack_row_pairs<S>([&](int64_t k) { return row(2 * block.k0 + k); }, N, rows - 2 * block.k0,
                          Range{0, count}, block.panel, buffer);
      else pack_rows<S>([&](int64_t k) { return row(block.k0 + k); }, N, 0, count, block.panel, buffer);
    };
    return FreshPanels{pack, fresh_ + rank * kFreshElements<C>};
  }

  void list_tokens(int64_t chunk, std::vector<Token>& tokens) const {
    tokens.clear();
    for (const Batch& batch : batches_)
      for (int64_t step = bounds_[chunk], end = std::min(bounds_[chunk + 1], batch.steps()); step < end;
           ++step)
        for (int i = 0, n = batch.active(step); i < n; ++i)
          tokens.push_back({batch.row[i], batch.time(i, step), step == 0, inside_.begins(batch, i, step)});
  }

  void chunk_gradients(const std::vector<Token>& tokens, int buffer, bool add, int rank, int size) {
    const C* dgates = dgates_[buffer];
    const int64_t K = static_cast<int64_t>(tokens.size());
    const Range mine = share(K, rank, size, kPairs ? 2 : 1);
    pack_operands(tokens, mine);
    if constexpr (kPairs)
      if (p_.dW.data || p_.dR.data) pair_rows(dgates, K, mine);
    give_gradients(dgates, tokens, mine);
    if (p_.dx.data) input_gradient(buffer, tokens, rank, size);
#pragma omp barrier
    const C* left = kPairs ? paired_ : dgates;
    ColumnProduct<C> product{.a = left,
                             .stride = ldg_,
                             .columns = share(GH_, rank, size, kGradientColumns),
                             .b = x_panels_,
                             .N = p_.I,
                             .K = steps(K),
                             .add = add,
                             .out = in_place(p_.dW, sum_W_),
                             .first = input_row(0),
                             .rows = GH_};
    if (p_.dW.data) multiply_columns<C, operand>(product);
    product.a = left + recurrent_;
    product.b = h_panels_;
    product.N = p_.P;
    product.out = in_place(p_.dR, sum_R_);
    product.first = 0;
    if (p_.dR.data) multiply_columns<C, operand>(product);
    if (p_.dW_hr.data)
      multiply_columns(ColumnProduct<C>{.a = dhp_,
                                        .stride = ldp_,
                                        .columns = share(p_.P, rank, size, kGradientColumns),
                                        .b = hidden_panels_,
                                        .N = p_.H,
                                        .K = K,
                                        .add = add,
                                        .out = in_place(p_.dW_hr, sum_hr_),
                                        .first = 0,
                                        .rows = p_.P});
    if (p_.db_ih || p_.db_hh) {
      const Range vectors = share(ldg_ / L - 1, rank, size);
      for (int64_t v = vectors.begin; v < vectors.end; ++v)
        add_columns<C>({dgates + v * L, ldg_, K}, add, sum_b_ + v * L);
    }
  }

  // What chunk_gradients left in sums, and zeros where there was no chunk. Each thread writes what it summed
  // itself, but for the biases.
  void write_gradients(bool none, int rank, int size) {
    constexpr bool narrow = sizeof(S) != sizeof(C);
    const Range columns = share(GH_, rank, size, kGradientColumns);
    if (p_.dW.data)
      for (int64_t m = columns.begin; m < columns.end; ++m)
        write_row(static_cast<S*>(p_.dW.data), sum_W_, input_row(m), p_.I, none, narrow);
    if (p_.dR.data)
      for (int64_t m = columns.begin; m < columns.end; ++m)
        write_row(static_cast<S*>(p_.dR.data), sum_R_, m, p_.P, none, narrow);
    if (p_.dW_hr.data) {
      const Range rows = share(p_.P, rank, size, kGradientColumns);
      for (int64_t m = rows.begin; m < rows.end; ++m)
        write_row(static_cast<S*>(p_.dW_hr.data), sum_hr_, m, p_.H, none, narrow);
    }
    if (p_.db_ih || p_.db_hh) {
#pragma omp barrier
      for (int64_t m = columns.begin; m < columns.end; ++m) {
        const C hidden = none ? C(0) : static_cast<C>(sum_b_[recurrent_ + m]);
        const C input = none ? C(0) : static_cast<C>(sum_b_[m]);
        if (p_.db_hh) from_float(hidden, static_cast<S*>(p_.db_hh)[m]);
        if (p_.db_ih) from_float(input, static_cast<S*>(p_.db_ih)[input_row(m)]);
      }
    }
  }

private:
  // These rows of dgates by twos; `mine` begins with an even one.
  void pair_rows(const C* dgates, int64_t K, const Range& mine) const {
    for (int64_t k = mine.begin; k < mine.end; k += 2) {
      const C* first = dgates + k * ldg_;
      for (int64_t u = 0, n = columns_.count(); u < n; u += L)
        store(paired_ + k / 2 * ldg_ + u,
              zip_pairs(load(first + u), k + 1 < K ? load(first + ldg_ + u) : V{}));
    }
  }

  // These tokens' rows of the right-hand sides of the weight gradients.
  void pack_operands(const std::vector<Token>& tokens, const Range& mine) const {
    const int64_t K = static_cast<int64_t>(tokens.size());
    const auto pack = [&](auto storage, int64_t N, C* out, const auto& row) {
      using X = decltype(storage);
      for (int64_t q = 0, count = PanelShape{N, 1}.template count<C>(); q < count; ++q)
        if constexpr (kPairs)
          pack_row_pairs<X>(row, N, K, Range{mine.begin / 2, (mine.end + 1) / 2}, q,
                            out + q * steps(K) * kTileColumns<C>);
        else pack_rows<X>(row, N, mine.begin, mine.end, q, out + q * K * kTileColumns<C>);
    };
    if (p_.dW.data)
      pack(S{}, p_.I, x_panels_, [&](int64_t k) { return row_of<S>(p_.x, tokens[k].t, tokens[k].b); });
    const auto state = [&](int64_t k) -> const S* {
      const Token& token = tokens[k];
      const S* start = token.begins ? inside_.start_h(token.b) : nullptr;
      if (start || token.begins) return start ? start : zero_row_;
      if (!token.first) return row_of<S>(p_.y, p_.reverse ? token.t + 1 : token.t - 1, token.b);
      return p_.h0.data ? row_of<S>(p_.h0, 0, token.b) : zero_row_;
    };
    if (p_.dR.data && !inside_.drops_state()) {
      pack(S{}, p_.P, h_panels_, state);
    } else if (p_.dR.data) {
      for (int64_t k = mine.begin; k < mine.end; ++k) {
        const S* h = state(k);
        for (int64_t u = 0; u < p_.P; u += L)
          store(masked_ + k * ldp_ + u,
                inside_.drop_state(inside_.dropped(tokens[k].b), u, load(h + u, lanes_left<C>(p_.P, u))));
      }
      pack(C{}, p_.P, h_panels_, [&](int64_t k) { return masked_ + k * ldp_; });
    }
    if (p_.dW_hr.data)
      for (int64_t q = 0, count = PanelShape{p_.H, 1}.template count<C>(); q < count; ++q)
        pack_rows<C>([&](int64_t k) { return hidden_ + k * ldc_; }, p_.H, mine.begin, mine.end, q,
                     hidden_panels_ + q * K * kTileColumns<C>);
  }

  // These tokens' gradients as they stand in scratch, for who asks for them.
  void give_gradients(const C* dgates, const std::vector<Token>& tokens, const Range& mine) const {
    for (int64_t k = mine.begin; k < mine.end; ++k) {
      const Token& token = tokens[k];
      if (p_.dgates.data)
        std::copy_n(dgates + k * ldg_, columns_.count(), row_of<C>(p_.dgates, token.t, token.b));
      if (p_.dh.data) std::copy_n(dhp_ + k * ldp_, p_.P, row_of<C>(p_.dh, token.t, token.b));
    }
  }

  // dX. Weights packed before are read by every thread for rows of its own; fresh ones are packed once, so
  // threads take panels instead.
  void input_gradient(int buffer, const std::vector<Token>& tokens, int rank, int size) const {
    const int64_t K = static_cast<int64_t>(tokens.size()), panels = PanelShape{p_.I, 1}.template count<C>();
    const Range rows = fresh_W_ ? Range{0, K} : share(K, rank, size);
    std::vector<const C*> a;
    for (int64_t i = rows.begin; i < rows.end; ++i) a.push_back(this->product_row(buffer, i, 0));
    const int64_t of_row = steps(GH_);
    const auto finish = [&](int row, int64_t q, const auto& sums) {
      const Token& token = tokens[rows.begin + row];
      store_row<S>(p_.I, q, sums, p_.add_dx, row_of<S>(p_.dx, token.t, token.b));
    };
    if (fresh_W_) {
      multiply_rows<C, kTileVectors, operand>(
          ProductRows<C>(a, of_row),
          fresh_panels(p_.I, rank, [this](int64_t k) { return input_row_of_W(k); }),
          Sweep{share(panels, rank, size)}, Nothing<C>{}, each_row(finish));
    } else {
      multiply_rows<C, kTileVectors, operand>(ProductRows<C>(a, of_row),
                                              PackedPanels<C, kTileVectors>{W_, of_row}, Sweep{{0, panels}},
                                              Nothing<C>{}, each_row(finish));
    }
  }

  // Where a weight gradient is summed: in the result, or beside it where that has 16 bits.
  static C* in_place(const Matrix& result, C* sums) {
    return sizeof(S) == sizeof(C) ? static_cast<C*>(result.data) : sums;
  }

  static void write_row(S* out, const C* sums, int64_t row, int64_t n, bool none, bool narrow) {
    if (none) {
      std::memset(static_cast<void*>(out + row * n), 0, n * sizeof(S));
    } else if (narrow) {
      for (int64_t u = 0; u < n; ++u) from_float(sums[row * n + u], out[row * n + u]);
    }
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
