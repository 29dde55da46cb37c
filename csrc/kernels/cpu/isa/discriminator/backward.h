// The discriminator step, backward: tangents of the penalised rows, then one product a layer for all weight
// gradients.
#pragma once
#include "network.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S>
class MlpBackwardStep : MlpRows<S> {
  using Base = MlpRows<S>;
  using Base::fresh_, Base::hidden_, Base::L, Base::p_, Base::rows_, Base::stride, Base::threads_,
      Base::width;
  using typename Base::C, typename Base::V;

  const MlpBackward& out_;
  const C scale_;
  std::vector<int64_t> tangent_rows_;
  std::vector<int64_t> tangent_of_;  // [rows] index into the above, or -1
  int64_t used_;                     // rows that take part in weight gradients: the first so many
  std::vector<C*> T_;                // [hidden] of [tangent rows][ld]
  C* panels_;                        // right-hand side of one layer's product
  C* sums_;                          // [outputs][inputs] of one layer where gradients are stored in 16 bits

public:
  explicit MlpBackwardStep(const MlpBackward& p)
      : Base(p), out_(p), scale_(static_cast<C>(p.scale)), tangent_of_(rows_, -1) {
    for (int64_t row = 0; row < rows_; ++row)
      if (this->penalised(row) && !p.generator) {
        tangent_of_[row] = static_cast<int64_t>(tangent_rows_.size());
        tangent_rows_.push_back(row);
      }
    used_ = p.weight_gradients && !p.generator ? rows_ : 0;
  }

  void run() {
    cpu::Arena saved_memory(const_cast<void*>(out_.saved));
    const MlpSaved<C> saved(p_, saved_memory);
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
#pragma omp parallel num_threads(threads_)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      input_gradients(saved, rank, size);
      if (used_) {
        for (int l = 1; l <= hidden_ && !tangent_rows_.empty(); ++l) {
          tangents(saved, l, rank, size);
#pragma omp barrier
        }
        for (int l = 1; l <= hidden_; ++l) {
          if (out_.dW[l - 1].data) {
            pack_operand(saved, l, rank, size);
#pragma omp barrier
            weight_gradient(saved, l, rank, size);
#pragma omp barrier
          }
          if (out_.db[l - 1]) bias_gradient(saved, l, rank, size);
        }
        last_layer(saved, rank, size);
      }
    }
  }

private:
  void lay_out(cpu::Arena& arena) {
    fresh_ = arena.take<C>(threads_ * kFreshElements<C>);
    T_.clear();
    int64_t widest = 0, largest = 0;
    for (int l = 1; l <= hidden_; ++l) {
      T_.push_back(arena.take<C>(static_cast<int64_t>(used_ ? tangent_rows_.size() : 0) * stride(l)));
      widest = std::max(widest, PanelShape{width(l - 1), 1}.template size<C>(used_));
      largest = std::max(largest, width(l) * width(l - 1));
    }
    panels_ = arena.take<C>(widest);
    sums_ = arena.take<C>(sizeof(S) == sizeof(C) ? 0 : largest);
  }

  // T_l = m_l (T_{l-1} W_l^T), with T_0 = v: the factor c is put before it where it is used.
  void tangents(const MlpSaved<C>& saved, int l, int rank, int size) const {
    std::vector<const C*> a;
    for (size_t i = 0; i < tangent_rows_.size(); ++i)
      a.push_back(tangent(saved, l - 1, static_cast<int64_t>(i)));
    this->forward_product(l, a, rank, size, [&](int64_t i, int64_t u, int, V v) {
      const V h = load(saved.H[l - 1] + tangent_rows_[i] * stride(l) + u);
      store(T_[l - 1] + i * stride(l) + u, this->activation_gradient(h, v, l));
    });
  }
  const C* tangent(const MlpSaved<C>& saved, int l, int64_t i) const {
    return l ? T_[l - 1] + i * stride(l) : saved.v + (tangent_rows_[i] - saved.v_begin) * stride(0);
  }

  // scale (s h + c t), lanes [u, u + lanes) of a row of layer l.
  FUSEGEN_INLINE V operand(const MlpSaved<C>& saved, int l, int64_t row, int64_t u, int lanes) const {
    V v{};
    if (row < p_.real + p_.fake) {
      const V h = l ? load(saved.H[l - 1] + row * stride(l) + u, lanes) : load(this->input(row) + u, lanes);
      v = scale_ * saved.s[row] * h;
    }
    if (tangent_of_[row] >= 0)
      v += scale_ * saved.c[row] * load(tangent(saved, l, tangent_of_[row]) + u, lanes);
    return v;
  }

  void pack_operand(const MlpSaved<C>& saved, int l, int rank, int size) const {
    const PanelShape shape{width(l - 1), 1};
    const Range mine = share(shape.count<C>(), rank, size);
    for (int64_t q = mine.begin; q < mine.end; ++q) {
      C* out = panels_ + q * used_ * kTileColumns<C>;
      for (int64_t row = 0; row < used_; ++row, out += kTileColumns<C>)
        for (int j = 0; j < kTileVectors; ++j) {
          const int lanes = shape.lanes<C>(q, j);
          *reinterpret_cast<V*>(out + j * L) =
              lanes ? operand(saved, l - 1, row, shape.row<C>(q, j), lanes) : V{};
        }
    }
  }

  void weight_gradient(const MlpSaved<C>& saved, int l, int rank, int size) const {
    const int64_t N = width(l - 1);
    const Range columns = share(width(l), rank, size, kLanes<C>);
    S* dW = static_cast<S*>(out_.dW[l - 1].data);
    C* out = sums_;
    if constexpr (sizeof(S) == sizeof(C)) out = dW;
    multiply_columns(ColumnProduct<C>{.a = saved.U[l - 1],
                                      .stride = stride(l),
                                      .columns = columns,
                                      .b = panels_,
                                      .N = N,
                                      .K = used_,
                                      .add = false,
                                      .out = out,
                                      .first = 0,
                                      .rows = width(l)});
    if constexpr (sizeof(S) != sizeof(C))
      for (int64_t i = columns.begin * N; i < columns.end * N; ++i) from_float(out[i], dW[i]);
  }

  // out[u] = sum over the rows of term(row, u, lanes), u < n. Vectors side by side: a row's next line is
  // near, the next row is pages away. In blocks of rows: one long sum of floats loses more than torch's does.
  template <class Term>
  static void sum_rows(S* out, int64_t n, int64_t rows, int rank, int size, const Term& term) {
    constexpr int64_t kBlock = 16;
    constexpr int kWidth = 4;
    const Range mine = share(n, rank, size, L);
    for (int64_t u = mine.begin; u < mine.end; u += kWidth * L) {
      const int width = static_cast<int>(std::min<int64_t>(kWidth, (mine.end - u + L - 1) / L));
      V sum[kWidth] = {};
      for (int64_t begin = 0; begin < rows; begin += kBlock) {
        V block[kWidth] = {};
        for (int64_t row = begin, end = std::min(rows, begin + kBlock); row < end; ++row)
          for (int j = 0; j < width; ++j) block[j] += term(row, u + j * L, lanes_left<C>(n, u + j * L));
        for (int j = 0; j < width; ++j) sum[j] += block[j];
      }
      for (int j = 0; j < width; ++j) store(out + u + j * L, sum[j], lanes_left<C>(n, u + j * L));
    }
  }

  // sum over the rows of scale s u.
  void bias_gradient(const MlpSaved<C>& saved, int l, int rank, int size) const {
    sum_rows(static_cast<S*>(out_.db[l - 1]), width(l), p_.real + p_.fake, rank, size,
             [&](int64_t row, int64_t u, int lanes) -> V {
               return scale_ * saved.s[row] * load(saved.U[l - 1] + row * stride(l) + u, lanes);
             });
  }

  void last_layer(const MlpSaved<C>& saved, int rank, int size) const {
    if (out_.dW[hidden_].data)
      sum_rows(static_cast<S*>(out_.dW[hidden_].data), width(hidden_), rows_, rank, size,
               [&](int64_t row, int64_t u, int lanes) { return operand(saved, hidden_, row, u, lanes); });
    if (out_.db[hidden_] && rank == 0) {
      double sum = 0;
      for (int64_t row = 0; row < p_.real + p_.fake; ++row) sum += static_cast<double>(saved.s[row]);
      from_float(static_cast<C>(sum * out_.scale), *static_cast<S*>(out_.db[hidden_]));
    }
  }

  // scale s v. The penalties have no gradient by the input: it is piecewise constant there.
  void input_gradients(const MlpSaved<C>& saved, int rank, int size) const {
    const int64_t counts[] = {p_.real, p_.fake};
    for (int64_t half = 0, first = 0; half < 2; first += counts[half++]) {
      if (!out_.dx[half].data) continue;
      const Range mine = share(counts[half], rank, size);
      for (int64_t i = mine.begin; i < mine.end; ++i) {
        const C* v = saved.v + (first + i - saved.v_begin) * stride(0);
        const C factor = scale_ * saved.s[first + i];
        for (int64_t u = 0; u < p_.inputs; u += L)
          store(row_of<S>(out_.dx[half], 0, i) + u, factor * load(v + u), lanes_left<C>(p_.inputs, u));
      }
    }
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
