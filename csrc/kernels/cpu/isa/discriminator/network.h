// The discriminator step of a dense network: what its forward and backward share.
//
// Rows are samples: real, fake, then mixed. With H the activations, U the adjoints of one logit (u_L = 1), v
// = U_1 W_1 the gradient by the input, T the tangents of v through the same masks, s the derivative of the
// loss by the logit and c the factor of the penalty's direction c v, every weight gradient is one product:
// dW_l = U_l^T (s H_{l-1} + c T_{l-1}). Dropout's factors stand in H, U, v and T. Where activations are not
// piecewise linear, the penalty adds R_l^T H_{l-1}, of what their second derivatives send back
// (docs/penalties.md).
#pragma once
#include <omp.h>

#include <vector>

#include "kernels/activations.h"
#include "kernels/cpu/arena.h"
#include "kernels/cpu/isa/vector/masks.h"
#include "kernels/cpu/isa/vector/product.h"
#include "kernels/cpu/isa/vector/rows.h"
#include "kernels/cpu/plan.h"

namespace fusegen::FUSEGEN_ISA_NS {

// What the forward step leaves for the backward step, in memory of the caller.
template <class C>
struct MlpSaved {
  std::vector<C*> H, U;  // [hidden layers] of [rows][ld]
  // Of layers with a smooth activation, else null: its first derivative [rows][ld], and where there is a
  // penalty the second [v_end - v_begin][ld], which the adjoint then multiplies; dropout's factors in both.
  std::vector<C*> first, second;
  std::vector<uint64_t*> dropped;  // [layers] of [rows][mask_groups], of what each reads; null: nothing
  C* x;                            // [rows][ld] the samples, where some of them are dropped, else null
  C* v;                            // [v_end - v_begin][ld of the inputs]
  C *s, *c;                        // [rows]
  int64_t v_begin, v_end;

  MlpSaved(const MlpStep& p, cpu::Arena& arena) {
    const int64_t rows = p.real + p.fake + p.mixed;
    const bool real = p.r1 > 0 || p.dx_real, fake = p.r2 > 0 || p.dx_fake, mixed = p.mixed > 0;
    v_begin = real ? 0 : fake ? p.real : p.real + p.fake;
    v_end = mixed ? rows : fake ? p.real + p.fake : real ? p.real : v_begin;
    const bool penalised = p.r1 > 0 || p.r2 > 0 || mixed;
    const auto take = [&](bool wanted, int64_t n) { return wanted ? arena.take<C>(n) : nullptr; };
    for (int l = 0; l + 1 < p.depth; ++l) {
      const int64_t ld = padded<C>(p.layers[l].outputs);
      const bool curved = smooth(p.layers[l].activation);
      H.push_back(arena.take<C>(rows * ld));
      U.push_back(arena.take<C>(rows * ld));
      first.push_back(take(curved, rows * ld));
      second.push_back(take(curved && penalised, (v_end - v_begin) * ld));
    }
    for (int l = 0; l < p.depth; ++l) {
      const int64_t n = l ? p.layers[l - 1].outputs : p.inputs;
      dropped.push_back(p.layers[l].dropout > 0 ? arena.take<uint64_t>(rows * mask_groups(n)) : nullptr);
    }
    x = take(p.layers[0].dropout > 0, rows * padded<C>(p.inputs));
    v = arena.take<C>((v_end - v_begin) * padded<C>(p.inputs));
    s = arena.take<C>(rows);
    c = arena.take<C>(rows);
  }
};

template <class S>
class MlpRows {
protected:
  using C = Compute<S>;
  using V = Vector<C>;
  static constexpr int L = kLanes<C>;

  const MlpStep& p_;
  const int64_t rows_;
  const int hidden_;  // layers before the last
  const int threads_;
  std::vector<C> kept_;  // [layers] what is kept of dropout's inputs is multiplied by this
  C* fresh_;             // [threads][kFreshElements]

  explicit MlpRows(const MlpStep& p)
      : p_(p), rows_(p.real + p.fake + p.mixed), hidden_(p.depth - 1), threads_(cpu::plan_threads(p)) {
    for (int l = 0; l < p.depth; ++l) kept_.push_back(kept_scale<C>(p.layers[l].dropout));
  }

  int64_t width(int l) const { return l ? p_.layers[l - 1].outputs : p_.inputs; }  // of H_l
  int64_t stride(int l) const { return padded<C>(width(l)); }
  const S* weight_row(int l, int64_t n) const {
    const Matrix& W = p_.layers[l - 1].W;
    return static_cast<const S*>(W.data) + n * W.stride;
  }
  const S* input(int64_t row) const {
    if (row < p_.real) return row_of<S>(p_.x_real, 0, row);
    if (row < p_.real + p_.fake) return row_of<S>(p_.x_fake, 0, row - p_.real);
    return row_of<S>(p_.x_mixed, 0, row - p_.real - p_.fake);
  }
  bool penalised(int64_t row) const {
    return row < p_.real ? p_.r1 > 0 : row < p_.real + p_.fake ? p_.r2 > 0 : true;
  }
  bool input_gradient(int64_t row) const {
    return row < p_.real ? p_.dx_real : row < p_.real + p_.fake ? p_.dx_fake : false;
  }

  int group(int64_t row) const { return row < p_.real ? 0 : row < p_.real + p_.fake ? 1 : 2; }

  // Dropout's factors of H_l, of which lanes are dropped.
  FUSEGEN_INLINE V kept(const MlpSaved<C>& saved, int l, int64_t row, int64_t u) const {
    const uint64_t* dropped = saved.dropped[l] + row * mask_groups(width(l));
    return choose<C>(dropped, u, V{}, splat(kept_[l]));
  }
  // v through layer l's activation and the dropout behind it.
  FUSEGEN_INLINE V gradient(const MlpSaved<C>& saved, int l, int64_t row, int64_t u, V v) const {
    const int64_t at = row * stride(l) + u;
    if (const C* first = saved.first[l - 1]) return load(first + at) * v;
    const C slope = static_cast<C>(p_.layers[l - 1].slope);
    v = activations::activation_gradient(load(saved.H[l - 1] + at), v, slope);
    return saved.dropped[l] ? v * kept(saved, l, row, u) : v;
  }
  // Of layers with a smooth activation and a penalised row.
  C* second(const MlpSaved<C>& saved, int l, int64_t row) const {
    return saved.second[l - 1] + (row - saved.v_begin) * stride(l);
  }

  // each(row, u, lanes, sums) for every row of `a` times every panel. Threads share the panels, each packed
  // once as it is used; where there are too few to go round evenly they share the rows, and each packs for
  // itself.
  template <class Pack, class Each>
  void product(const std::vector<const C*>& a, int64_t N, int64_t K, const Team& team, const Pack& pack,
               const Each& each) const {
    const PanelShape shape{N, 1};
    const int64_t count = shape.count<C>(), all = static_cast<int64_t>(a.size());
    const bool over_rows = count < team.size || (count % team.size && count < 3 * team.size);
    const Range panels = over_rows ? Range{0, count} : share(count, team);
    const Range rows = over_rows ? share(all, team) : Range{0, all};
    multiply_rows<C, kTileVectors>(ProductRows<C>(a, K).part(rows.begin, rows.end),
                                   FreshPanels{pack, fresh_ + team.rank * kFreshElements<C>}, Sweep{panels},
                                   Nothing<C>{}, each_row([&](int row, int64_t panel, const auto& sums) {
                                     for (int j = 0; j < kTileVectors; ++j) {
                                       const int lanes = shape.lanes<C>(panel, j);
                                       if (!lanes) break;
                                       each(rows.begin + row, shape.row<C>(panel, j), lanes, load(sums[j]));
                                     }
                                   }));
  }
  // x W_l^T
  template <class Each>
  void forward_product(int l, const std::vector<const C*>& a, int rank, int size, const Each& each) const {
    const int64_t N = width(l), K = width(l - 1);
    const Matrix& W = p_.layers[l - 1].W;
    product(
        a, N, K, {rank, size},
        [&](const PanelBlock& block, C* buffer) {
          pack_panel<S, Step::one>(PanelShape{N, 1}, {static_cast<const S*>(W.data), W.stride, K}, block,
                                   buffer);
        },
        each);
  }
  // u W_l
  template <class Each>
  void adjoint_product(int l, const std::vector<const C*>& a, int rank, int size, const Each& each) const {
    const int64_t N = width(l - 1), K = width(l);
    product(
        a, N, K, {rank, size},
        [&](const PanelBlock& block, C* buffer) {
          pack_rows<S>([&](int64_t k) { return weight_row(l, block.k0 + k); }, N, 0, block.k1 - block.k0,
                       block.panel, buffer);
        },
        each);
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
