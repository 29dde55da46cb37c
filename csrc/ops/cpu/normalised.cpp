#include "normalised.h"

#include "kernels/cpu/normalised.h"
#include "ops/checks.h"

namespace fusegen {
namespace {

// A call's sizes and what its tensors are checked against.
struct Sizes : RecurrentSizes {
  ElementType element;
  int64_t GH, m;  // m: units of a block

  explicit Sizes(const NormalisedCall& call) : RecurrentSizes{} {
    const View& x = required(call.x, "x");
    check(x.ndim == 3, "x: expected shape [T, B, I], got ", x);
    const size_t n = call.weights.size();
    check(n == kNormalisedWeights || n == 2 * kNormalisedWeights, "weights: expected ", kNormalisedWeights,
          " tensors for each of 1 or 2 directions, got ", n);
    const View& R = required(call.weights[1], "R");
    check(R.ndim == 2, "R: expected shape [G*H, H/blocks], got ", R);
    cell = call.cell;
    dtype = float_dtype(x, "x");
    T = x.shape[0];
    B = x.shape[1];
    I = x.shape[2];
    H = P = R.shape[0] / gate_count(cell);
    D = static_cast<int64_t>(n / kNormalisedWeights);
    threads = call.threads;
    element = element_type(dtype);
    GH = gate_count(cell) * H;
    check(I >= 1 && H >= 1, "x, R: expected sizes of at least 1, got I = ", I, ", H = ", H);
    check(B <= INT32_MAX, "x: expected a batch below 2^31, got ", B);
    check(call.blocks >= 1 && H % call.blocks == 0, "blocks: expected a divisor of H = ", H, ", got ",
          call.blocks);
    m = H / call.blocks;
    check(call.norm == Norm::none || gate_count(cell) > 1, "norm: an RNN has none");
    if (!call.lengths) return;
    check_tensor(call.lengths, "lengths", {B}, ElementType::i64);
    lengths = static_cast<const int64_t*>(call.lengths.data);
    for (int64_t b = 0; b < B; ++b)
      check(lengths[b] >= 0 && lengths[b] <= T, "lengths: expected values in [0, ", T, "], got ", lengths[b]);
  }

  // Plane d, of this shape, of [D,...].
  Rows plane(const View& v, int64_t d, const char* name, std::initializer_list<int64_t> shape,
             ElementType type) const {
    if (!v) return {};
    check(v.ndim >= 1 && v.shape[0] == D, name, ": expected a first dimension of ", D,
          ", one plane a direction, got ", v);
    View p = v;
    p.ndim = v.ndim - 1;
    p.data = static_cast<char*>(v.data) + d * v.strides[0] * element_bytes(v.dtype);
    for (int i = 0; i < p.ndim; ++i) {
      p.shape[i] = v.shape[i + 1];
      p.strides[i] = v.strides[i + 1];
    }
    return rows(p, name, shape, type);
  }
  Rows state(const View& v, int64_t d, const char* name) const { return plane(v, d, name, {B, H}, element); }
  // Its columns of [T,B,D*H].
  Rows columns(const View& v, int64_t d, const char* name) const {
    Rows r = rows(v, name, {T, B, D * H}, element);
    if (r.data) r.data = static_cast<char*>(r.data) + d * H * element_bytes(element);
    return r;
  }
};

// What a kernel's parameters have in both directions of time.
void set_inputs(NormalisedLayer& p, const NormalisedCall& call, const Sizes& s, int64_t d) {
  static_cast<RecurrentSizes&>(p) = s;
  p.reverse = d == 1;
  p.norm = call.norm;
  p.blocks = call.blocks;
  p.eps = call.eps;
  p.x = rows(call.x, "x", {s.T, s.B, s.I}, s.element);
  p.h0 = s.state(call.h0, d, "h0");
  p.c0 = s.state(call.c0, d, "c0");
  const View* w = call.weights.data() + d * kNormalisedWeights;
  p.W = matrix(required(w[0], "W"), "W", {s.GH, s.I}, s.element);
  p.R = matrix(required(w[1], "R"), "R", {s.GH, s.m}, s.element);
  p.g_ih = vector(w[2], "g_ih", s.GH, s.element);
  p.b_ih = vector(w[3], "b_ih", s.GH, s.element);
  p.g_hh = vector(w[4], "g_hh", s.GH, s.element);
  p.b_hh = vector(w[5], "b_hh", s.GH, s.element);
  p.g_c = vector(w[6], "g_c", s.H, s.element);
  p.b_c = vector(w[7], "b_c", s.H, s.element);
  if (!call.resets) return;
  check_tensor(call.resets, "resets", {s.T, s.B}, ElementType::u8);
  p.resets = {.at = static_cast<const bool*>(call.resets.data),
              .stride_t = call.resets.strides[0],
              .stride_b = call.resets.strides[1],
              .h = s.state(call.reset_h, d, "reset_h"),
              .c = s.state(call.reset_c, d, "reset_c")};
}

// What forward saves and backward reads.
template <class Params, class Layer>
void set_saved(Params& p, const Layer& layer, const Sizes& s, int64_t d) {
  const int64_t values = normalised_saved(p.norm, p.cell) * s.H;
  const ElementType wide = wide_type(s.dtype);
  p.saved = s.plane(layer.saved, d, "saved", {s.T, s.B, values}, s.element);
  p.cells = s.plane(layer.cells, d, "cells", {s.T, s.B, s.H}, wide);
  p.stats = s.plane(layer.stats, d, "stats", {s.T, s.B, kNormStats}, wide);
  check(p.cell != Cell::lstm || !p.saved.data == !p.cells.data, "saved, cells: expected both or neither");
  check(p.norm == Norm::none || !p.saved.data == !p.stats.data, "saved, stats: expected both or neither");
}

}  // namespace

void normalised_forward(const NormalisedLayerForward& layer) {
  const Sizes s(layer);
  for (int64_t d = 0; d < s.D; ++d) {
    NormalisedForward p{};
    set_inputs(p, layer, s, d);
    set_saved(p, layer, s, d);
    p.y = s.columns(required(layer.y, "y"), d, "y");
    p.h_n = s.state(required(layer.h_n, "h_n"), d, "h_n");
    if (p.cell == Cell::lstm) p.c_n = s.state(required(layer.c_n, "c_n"), d, "c_n");
    cpu::normalised_forward(p);
  }
}

void normalised_backward(const NormalisedLayerBackward& layer) {
  const Sizes s(layer);
  check(layer.dweights.size() == layer.weights.size(), "dweights: expected ", layer.weights.size(),
        " tensors or None, got ", layer.dweights.size());
  const auto contiguous = [&](const View& v, const char* name, int64_t rows, int64_t columns) {
    const Matrix of = matrix(v, name, {rows, columns}, s.element);
    check(!of.data || rows <= 1 || of.stride == columns, name, ": expected a contiguous tensor");
    return of;
  };
  for (int64_t d = 0; d < s.D; ++d) {
    NormalisedBackward p{};
    set_inputs(p, layer, s, d);
    if (normalised_saved(p.norm, p.cell)) required(layer.saved, "saved");
    set_saved(p, layer, s, d);
    p.dy = s.columns(layer.dy, d, "dy");
    p.dh_n = s.state(layer.dh_n, d, "dh_n");
    p.dc_n = s.state(layer.dc_n, d, "dc_n");
    p.y = s.columns(required(layer.y, "y"), d, "y");
    p.dx = rows(layer.dx, "dx", {s.T, s.B, s.I}, s.element);
    p.add_dx = d == 1;
    p.dh0 = s.state(layer.dh0, d, "dh0");
    p.dc0 = s.state(layer.dc0, d, "dc0");
    p.dreset_h = s.state(layer.dreset_h, d, "dreset_h");
    p.dreset_c = s.state(layer.dreset_c, d, "dreset_c");
    const View* g = layer.dweights.data() + d * kNormalisedWeights;
    p.dW = contiguous(g[0], "dW", s.GH, s.I);
    p.dR = contiguous(g[1], "dR", s.GH, s.m);
    p.dg_ih = vector(g[2], "dg_ih", s.GH, s.element);
    p.db_ih = vector(g[3], "db_ih", s.GH, s.element);
    p.dg_hh = vector(g[4], "dg_hh", s.GH, s.element);
    p.db_hh = vector(g[5], "db_hh", s.GH, s.element);
    p.dg_c = vector(g[6], "dg_c", s.H, s.element);
    p.db_c = vector(g[7], "db_c", s.H, s.element);
    cpu::normalised_backward(p);
  }
}

}  // namespace fusegen
