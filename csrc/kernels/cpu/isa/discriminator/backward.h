// The discriminator step, backward: tangents of the penalised rows, what second derivatives send back from
// them, then one product a layer for all weight gradients, or with second derivatives two.
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
  int curved_ = 0;                   // the last layer with a smooth activation where there is a penalty, or 0
  std::vector<C*> R_;                // [curved] of [tangent rows][ld], `scale` in it
  C *panels_, *curved_panels_;       // right-hand sides of one layer's products
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
    if (!tangent_rows_.empty())
      for (int l = 1; l <= hidden_; ++l)
        if (smooth(p.layers[l - 1].activation)) curved_ = l;
    if (!used_ && !curved_) tangent_rows_.clear();
  }

  void run() {
    cpu::Arena saved_memory(const_cast<void*>(out_.saved));
    const MlpSaved<C> saved(p_, saved_memory);
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
#pragma omp parallel num_threads(threads_)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      for (int l = 1; l <= hidden_ && !tangent_rows_.empty(); ++l) {
        tangents(saved, l, rank, size);
#pragma omp barrier
      }
      for (int l = curved_ - 1; l >= 1; --l) {
        sent_back(saved, l, rank, size);
#pragma omp barrier
      }
      input_gradients(saved, rank, size);
      if (used_) {
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
    R_.clear();
    int64_t widest = 0, widest_curved = 0, largest = 0;
    const int64_t penalised = static_cast<int64_t>(tangent_rows_.size());
    for (int l = 1; l <= hidden_; ++l) {
      const PanelShape shape{width(l - 1), 1};
      T_.push_back(arena.take<C>(penalised * stride(l)));
      widest = std::max(widest, shape.template size<C>(used_));
      if (l <= curved_) {
        R_.push_back(arena.take<C>(penalised * stride(l)));
        widest_curved = std::max(widest_curved, shape.template size<C>(penalised));
      }
      largest = std::max(largest, width(l) * width(l - 1));
    }
    panels_ = arena.take<C>(widest);
    curved_panels_ = arena.take<C>(used_ ? widest_curved : 0);
    sums_ = arena.take<C>(sizeof(S) == sizeof(C) ? 0 : largest);
  }

  // T_l = m_l (T_{l-1} W_l^T), with T_0 = v and dropout's factor, which v has once and T twice: the factor c
  // is put before it where it is used. Where a layer's activation is smooth, the first part of R_l: what its
  // second derivative makes of the product and the adjoint.
  void tangents(const MlpSaved<C>& saved, int l, int rank, int size) const {
    std::vector<const C*> a;
    for (size_t i = 0; i < tangent_rows_.size(); ++i)
      a.push_back(tangent(saved, l - 1, static_cast<int64_t>(i)));
    const C factor = l == 1 ? this->kept_[0] : C(1);
    this->forward_product(l, a, rank, size, [&](int64_t i, int64_t u, int, V v) {
      const int64_t row = tangent_rows_[i], at = i * stride(l) + u;
      v *= factor;
      store(T_[l - 1] + at, this->gradient(saved, l, row, u, v));
      if (l > curved_) return;
      V r{};
      if (saved.second[l - 1]) r = scale_ * saved.c[row] * load(this->second(saved, l, row) + u) * v;
      store(R_[l - 1] + at, r);
    });
  }
  // R_l += what comes from R_{l+1}.
  void sent_back(const MlpSaved<C>& saved, int l, int rank, int size) const {
    this->adjoint_product(l + 1, rows_of_R(l + 1), rank, size, [&](int64_t i, int64_t u, int, V v) {
      C* r = R_[l - 1] + i * stride(l) + u;
      store(r, load(r) + this->gradient(saved, l, tangent_rows_[i], u, v));
    });
  }
  std::vector<const C*> rows_of_R(int l) const {
    std::vector<const C*> a;
    for (size_t i = 0; i < tangent_rows_.size(); ++i)
      a.push_back(R_[l - 1] + static_cast<int64_t>(i) * stride(l));
    return a;
  }
  const C* tangent(const MlpSaved<C>& saved, int l, int64_t i) const {
    return l ? T_[l - 1] + i * stride(l) : saved.v + (tangent_rows_[i] - saved.v_begin) * stride(0);
  }

  // H_l, of the samples too.
  FUSEGEN_INLINE V activation(const MlpSaved<C>& saved, int l, int64_t row, int64_t u, int lanes) const {
    if (!l && !saved.x) return load(this->input(row) + u, lanes);
    return load((l ? saved.H[l - 1] : saved.x) + row * stride(l) + u, lanes);
  }
  // scale (s h + c t), lanes [u, u + lanes) of a row of layer l.
  FUSEGEN_INLINE V operand(const MlpSaved<C>& saved, int l, int64_t row, int64_t u, int lanes) const {
    V v{};
    if (row < p_.real + p_.fake) v = scale_ * saved.s[row] * activation(saved, l, row, u, lanes);
    if (tangent_of_[row] >= 0)
      v += scale_ * saved.c[row] * (l ? C(1) : this->kept_[0]) *
           load(tangent(saved, l, tangent_of_[row]) + u, lanes);
    return v;
  }

  void pack_operand(const MlpSaved<C>& saved, int l, int rank, int size) const {
    pack(l, used_, panels_, rank, size,
         [&](int64_t row, int64_t u, int lanes) { return operand(saved, l - 1, row, u, lanes); });
    if (l <= curved_)
      pack(l, static_cast<int64_t>(tangent_rows_.size()), curved_panels_, rank, size,
           [&](int64_t i, int64_t u, int lanes) {
             return activation(saved, l - 1, tangent_rows_[i], u, lanes);
           });
  }
  // `rows` rows of what layer l reads, as of(row, u, lanes) gives them, into panels.
  template <class Of>
  void pack(int l, int64_t rows, C* panels, int rank, int size, const Of& of) const {
    const PanelShape shape{width(l - 1), 1};
    const Range mine = share(shape.count<C>(), rank, size);
    for (int64_t q = mine.begin; q < mine.end; ++q) {
      C* out = panels + q * rows * kTileColumns<C>;
      for (int64_t row = 0; row < rows; ++row, out += kTileColumns<C>)
        for (int j = 0; j < kTileVectors; ++j) {
          const int lanes = shape.lanes<C>(q, j);
          *reinterpret_cast<V*>(out + j * L) = lanes ? of(row, shape.row<C>(q, j), lanes) : V{};
        }
    }
  }

  void weight_gradient(const MlpSaved<C>& saved, int l, int rank, int size) const {
    const int64_t N = width(l - 1);
    const Range columns = share(width(l), rank, size, kLanes<C>);
    S* dW = static_cast<S*>(out_.dW[l - 1].data);
    C* out = sums_;
    if constexpr (sizeof(S) == sizeof(C)) out = dW;
    const auto multiply = [&](const C* a, const C* b, int64_t K, bool add) {
      multiply_columns(ColumnProduct<C>{.a = a,
                                        .stride = stride(l),
                                        .columns = columns,
                                        .b = b,
                                        .N = N,
                                        .K = K,
                                        .add = add,
                                        .out = out,
                                        .first = 0,
                                        .rows = width(l)});
    };
    multiply(saved.U[l - 1], panels_, used_, false);
    if (l <= curved_) multiply(R_[l - 1], curved_panels_, static_cast<int64_t>(tangent_rows_.size()), true);
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

  // sum over the rows of scale s u, and of r.
  void bias_gradient(const MlpSaved<C>& saved, int l, int rank, int size) const {
    const int64_t rows = p_.real + p_.fake,
                  more = l <= curved_ ? static_cast<int64_t>(tangent_rows_.size()) : 0;
    sum_rows(static_cast<S*>(out_.db[l - 1]), width(l), rows + more, rank, size,
             [&](int64_t row, int64_t u, int lanes) -> V {
               if (row >= rows) return load(R_[l - 1] + (row - rows) * stride(l) + u, lanes);
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

  static V first_lanes(V v, int64_t count) {
    if (count <= 0) return V{};
    C lanes[L];
    store(lanes, v);
    return load(lanes, static_cast<int>(std::min<int64_t>(count, L)));
  }

  // scale s v. Of piecewise linear activations the penalties have no gradient by the input: it is piecewise
  // constant there. Else that is R_1 W_1.
  void input_gradients(const MlpSaved<C>& saved, int rank, int size) const {
    const int64_t counts[] = {p_.real, p_.fake};
    for (int64_t half = 0, first = 0; half < 2; first += counts[half++]) {
      if (!out_.dx[half].data) continue;
      const auto each = [&](int64_t row, int64_t u, V more) {
        if (u + L > p_.counted) more = first_lanes(more, p_.counted - u);
        const V v = load(saved.v + (row - saved.v_begin) * stride(0) + u);
        store(row_of<S>(out_.dx[half], 0, row - first) + u, scale_ * saved.s[row] * v + more,
              lanes_left<C>(p_.inputs, u));
      };
      if (curved_ && this->penalised(first)) {
        const std::vector<const C*> all = rows_of_R(1);
        const auto begin = all.begin() + tangent_of_[first];
        this->adjoint_product(1, {begin, begin + counts[half]}, rank, size,
                              [&](int64_t i, int64_t u, int, V v) {
                                const int64_t row = first + i;
                                each(row, u, saved.dropped[0] ? v * this->kept(saved, 0, row, u) : v);
                              });
        continue;
      }
      const Range mine = share(counts[half], rank, size);
      for (int64_t i = mine.begin; i < mine.end; ++i)
        for (int64_t u = 0; u < p_.inputs; u += L) each(first + i, u, V{});
    }
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
