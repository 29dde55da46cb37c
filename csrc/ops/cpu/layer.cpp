#include "layer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>

#include "kernels/cpu/arena.h"
#include "kernels/cpu/group_gradients.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/recurrent.h"
#include "ops/checks.h"

namespace fusegen {
namespace {

// Elements of a weight, below which a second thread brings nothing.
constexpr int64_t kAlone = 16 * 1024;

int per_direction(Cell cell) { return cell == Cell::lstm ? 5 : 4; }

void check_lengths(const View& lengths, RecurrentSizes& s) {
  if (!lengths) return;
  check_tensor(lengths, "lengths", {s.B}, ElementType::i64);
  s.lengths = static_cast<const int64_t*>(lengths.data);
  for (int64_t b = 0; b < s.B; ++b)
    check(s.lengths[b] >= 0 && s.lengths[b] <= s.T, "lengths: expected values in [0, ", s.T, "], got ",
          s.lengths[b]);
}

// Of a LayerForward or LayerBackward.
template <class Layer>
RecurrentSizes sizes(const Layer& layer) {
  const Cell cell = layer.cell;
  const View& x = required(layer.x, "x");
  const Views& weights = layer.weights;
  const size_t step = per_direction(cell);
  check(weights.size() == step || weights.size() == 2 * step, "weights: expected ", step,
        " tensors for each of 1 or 2 directions, got ", weights.size());
  check(x.ndim == 3, "x: expected shape [T, B, I], got ", x);
  const View& R = required(weights[1], "R");
  check(R.ndim == 2, "R: expected shape [G*H, P], got ", R);
  const bool project = cell == Cell::lstm && weights[4];
  RecurrentSizes s{.cell = cell,
                   .dtype = float_dtype(x, "x"),
                   .T = x.shape[0],
                   .B = x.shape[1],
                   .I = x.shape[2],
                   .H = R.shape[0] / gate_count(cell),
                   .P = R.shape[1],
                   .D = static_cast<int64_t>(weights.size() / step),
                   .project = project,
                   .reverse = false,
                   .lengths = nullptr,
                   .threads = layer.threads};
  check(s.D == 1 || cell != Cell::lstm || weights[9].present == project,
        "W_hr: expected both directions to have it, or neither");
  check(s.I >= 1 && s.H >= 1 && s.P >= 1, "x, R: expected sizes of at least 1, got I = ", s.I, ", H = ", s.H,
        ", P = ", s.P);
  check(project || s.P == s.H, "R: expected shape [", gate_count(cell) * s.H, ", ", s.H, "], got ", R);
  check(s.B <= INT32_MAX, "x: expected a batch below 2^31, got ", s.B);
  check_lengths(layer.lengths, s);
  return s;
}

// Its k, where gates are made again. A single step keeps them: it has no sequence that they would grow with.
template <class Layer>
int64_t recompute(const Layer& layer, const RecurrentSizes& s) {
  check(layer.recompute >= 0, "recompute: expected at least 0, got ", layer.recompute);
  check(!layer.recompute || (s.T > 1 && saved_gates(s.cell)),
        "recompute: expected 0 of a single step, or of a cell that saves no gates, got ", layer.recompute);
  return layer.recompute;
}
template <class Params>
int64_t kept_cells(const Params& p) {
  return p.recompute ? (p.T - 1) / p.recompute : p.T;
}

// Whether any of it is set; by words, since a call whose sequences all go on reads the whole mask for
// nothing.
bool any_set(const View& resets) {
  const int64_t T = resets.shape[0], B = resets.shape[1], step_t = resets.strides[0];
  const char* const data = static_cast<const char*>(resets.data);
  const bool whole = resets.strides[1] == 1 && step_t == B;
  const int64_t runs = whole ? 1 : T, n = whole ? T * B : B;
  for (int64_t run = 0; run < runs; ++run) {
    const char* const row = data + run * step_t;
    int64_t i = 0;
    uint64_t seen = 0;
    for (uint64_t word; resets.strides[1] == 1 && i + 8 <= n; i += 8) {
      std::memcpy(&word, row + i, 8);
      seen |= word;
    }
    for (; i < n; ++i) seen |= static_cast<uint64_t>(row[i * resets.strides[1]] != 0);
    if (seen) return true;
  }
  return false;
}

// The part of a call's tensors that is direction d's.
struct Direction {
  const RecurrentSizes& s;
  int64_t d;
  ElementType e = element_type(s.dtype);

  // Plane d, of this shape, of [D,...].
  Rows plane(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType type) const {
    if (!v) return {};
    check(v.ndim >= 1 && v.shape[0] == s.D, name, ": expected a first dimension of ", s.D,
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
  Rows plane(const View& v, const char* name, std::initializer_list<int64_t> shape) const {
    return plane(v, name, shape, e);
  }

  // Its columns of [T,B,D*n].
  Rows columns(const View& v, const char* name, int64_t n, ElementType type) const {
    Rows r = rows(v, name, {s.T, s.B, s.D * n}, type);
    if (r.data) r.data = static_cast<char*>(r.data) + d * n * element_bytes(type);
    return r;
  }
  Rows columns(const View& v, const char* name, int64_t n) const { return columns(v, name, n, e); }

  // What a kernel's parameters have in both directions of time.
  template <class Params, class Layer>
  void set_inputs(Params& p, const Layer& layer) const {
    static_cast<RecurrentSizes&>(p) = s;
    p.reverse = d == 1;
    p.x = rows(layer.x, "x", {p.T, p.B, p.I}, e);
    p.h0 = plane(layer.h0, "h0", {p.B, p.P});
    p.c0 = plane(layer.c0, "c0", {p.B, p.H});
    const int64_t GH = gate_count(p.cell) * p.H;
    const View* w = layer.weights.data() + d * per_direction(p.cell);
    p.W = matrix(required(w[0], "W"), "W", {GH, p.I}, e);
    p.R = matrix(required(w[1], "R"), "R", {GH, p.P}, e);
    if (p.project) p.W_hr = matrix(w[4], "W_hr", {p.P, p.H}, e);
    set_inside(p, layer.inside);
  }

private:
  template <class Params>
  void set_inside(Params& p, const LayerInside& inside) const {
    if (inside.resets) {
      check_tensor(inside.resets, "resets", {p.T, p.B}, ElementType::boolean);
      const Rows h = plane(inside.reset_h, "reset_h", {p.B, p.P});
      const Rows c = plane(inside.reset_c, "reset_c", {p.B, p.H});
      if (any_set(inside.resets))  // else the plain way is the same
        p.resets = {.at = static_cast<const bool*>(inside.resets.data),
                    .stride_t = inside.resets.strides[0],
                    .stride_b = inside.resets.strides[1],
                    .h = h,
                    .c = c};
    }
    for (double rate : inside.rates)
      check(rate >= 0 && rate < 1, "rates: expected probabilities in [0, 1), got ", rate);
    const auto [state, candidate, h, c] = inside.rates;
    if (!state && !candidate && !h && !c) return;
    const auto dropout = [&](double rate) { return inside.training ? static_cast<float>(rate) : 0.0f; };
    if (inside.training) check_tensor(required(inside.key, "key"), "key", {}, ElementType::i64);
    p.masks = {.key = inside.training ? *static_cast<const uint64_t*>(inside.key.data) : 0,
               .place = static_cast<uint32_t>(inside.layer * p.D + d),
               .state_dropout = dropout(state),
               .candidate_dropout = dropout(candidate),
               .zoneout_h = static_cast<float>(h),
               .zoneout_c = static_cast<float>(c),
               .training = inside.training};
  }
};

// An RNN saves what it read off its output, but where that is a mean of old and new.
int64_t saved_values(const RecurrentSizes& p, const Masks& masks) {
  const bool mean = !saved_gates(p.cell) && masks.zoneout_h > 0 && !masks.training;
  return mean ? 1 : saved_gates(p.cell);
}

void set_gradients(RecurrentBackward& p, const LayerBackward& layer, const Direction& direction) {
  const ElementType e = direction.e;
  const int64_t GH = gate_count(p.cell) * p.H;
  const View* g = layer.dweights.data() + direction.d * per_direction(p.cell);
  const auto contiguous = [&](const View& v, const char* name, int64_t rows, int64_t columns) {
    const Matrix m = matrix(v, name, {rows, columns}, e);
    check(!m.data || rows <= 1 || m.stride == columns, name, ": expected a contiguous tensor");
    return m;
  };
  p.dx = rows(layer.dx, "dx", {p.T, p.B, p.I}, e);
  p.add_dx = direction.d == 1;
  p.dh0 = direction.plane(layer.dh0, "dh0", {p.B, p.P});
  p.dc0 = direction.plane(layer.dc0, "dc0", {p.B, p.H});
  p.dreset_h = direction.plane(layer.dreset_h, "dreset_h", {p.B, p.P});
  p.dreset_c = direction.plane(layer.dreset_c, "dreset_c", {p.B, p.H});
  p.dW = contiguous(g[0], "dW", GH, p.I);
  p.dR = contiguous(g[1], "dR", GH, p.P);
  p.db_ih = vector(g[2], "db_ih", GH, e);
  p.db_hh = vector(g[3], "db_hh", GH, e);
  if (p.project) p.dW_hr = contiguous(g[4], "dW_hr", p.P, p.H);
  const ElementType wide = wide_type(p.dtype);
  p.dgates = direction.columns(layer.dgates, "dgates", std::max(1, saved_gates(p.cell)) * p.H, wide);
  check(p.project || !layer.dh, "dh: expected None without a projection");
  p.dh = direction.columns(layer.dh, "dh", p.P, wide);
}

// run(direction) for each of D, which is the caller's whole work or, one direction a thread, half of it.
template <class Params, class Run>
void run_directions(std::array<Params, 2>& directions, int64_t D, bool apart, const Run& run) {
  if (!apart) {
    for (int64_t d = 0; d < D; ++d) run(directions[d]);
    return;
  }
  std::array<std::exception_ptr, 2> errors;  // none may leave the region of threads
#pragma omp parallel for num_threads(2) schedule(static, 1)
  for (int d = 0; d < 2; ++d) {
    directions[d].threads = 1;
    try {
      run(directions[d]);
    } catch (...) { errors[d] = std::current_exception(); }
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

// The same where both write dx [T,B,I]: the second has its own until both are there. Of 32 or 64 bits, so the
// sum is the one that adding in the kernel gives; one of 16 would be rounded once more.
template <class X, class Run>
void run_directions_with_dx(std::array<RecurrentBackward, 2>& directions, const Run& run) {
  const RecurrentSizes& s = directions[0];
  cpu::Arena arena(s.T * s.B * s.I * sizeof(X));
  X* const own = arena.take<X>(s.T * s.B * s.I);
  directions[1].dx = {own, s.B * s.I, s.I};
  directions[1].add_dx = false;
  run_directions(directions, 2, true, run);
  const Rows& dx = directions[0].dx;
#pragma omp parallel for num_threads(2)
  for (int64_t t = 0; t < s.T; ++t)
    for (int64_t b = 0; b < s.B; ++b) {
      X* const sum = static_cast<X*>(dx.data) + t * dx.stride_t + b * dx.stride_b;
      const X* const more = own + (t * s.B + b) * s.I;
      for (int64_t i = 0; i < s.I; ++i) sum[i] += more[i];
    }
}

}  // namespace

void layer_forward(const LayerForward& layer) {
  const RecurrentSizes s = sizes(layer);
  std::array<RecurrentForward, 2> directions{};
  for (int64_t d = 0; d < s.D; ++d) {
    const Direction direction{s, d};
    RecurrentForward& p = directions[d];
    direction.set_inputs(p, layer);
    const View* b = layer.weights.data() + d * per_direction(p.cell) + 2;
    p.b_ih = vector(b[0], "b_ih", gate_count(p.cell) * p.H, direction.e);
    p.b_hh = vector(b[1], "b_hh", gate_count(p.cell) * p.H, direction.e);
    if (!layer.packed.empty()) {
      const View& blob = layer.packed.at(d);
      const int64_t bytes = packed_bytes(p.cell, p.dtype, p.I, p.H, p.project ? p.P : 0);
      check_tensor(blob, "packed", {bytes}, ElementType::u8);
      p.packed = blob.data;
    }
    p.y = direction.columns(required(layer.y, "y"), "y", p.P);
    p.h_n = direction.plane(required(layer.h_n, "h_n"), "h_n", {p.B, p.P});
    if (p.cell == Cell::lstm) p.c_n = direction.plane(required(layer.c_n, "c_n"), "c_n", {p.B, p.H});
    p.recompute = recompute(layer, s);
    p.gates = direction.plane(layer.gates, "gates", {p.T, p.B, saved_values(p, p.masks) * p.H});
    p.cells = direction.plane(layer.cells, "cells", {kept_cells(p), p.B, p.H}, wide_type(p.dtype));
    check(!p.recompute || !layer.gates, "gates: expected none where they are made again");
    check(p.cell != Cell::lstm || p.recompute || !p.gates.data == !p.cells.data,
          "gates, cells: expected both or neither");
  }
  run_directions(directions, s.D, cpu::directions_apart(s),
                 [](const RecurrentForward& p) { cpu::recurrent_forward(p); });
}

void layer_backward(const LayerBackward& layer) {
  const RecurrentSizes s = sizes(layer);
  check(layer.dweights.size() == layer.weights.size(), "dweights: expected ", layer.weights.size(),
        " tensors or None, got ", layer.dweights.size());
  std::array<RecurrentBackward, 2> directions{};
  for (int64_t d = 0; d < s.D; ++d) {
    const Direction direction{s, d};
    RecurrentBackward& p = directions[d];
    direction.set_inputs(p, layer);
    p.dy = direction.columns(layer.dy, "dy", p.P);
    p.dh_n = direction.plane(layer.dh_n, "dh_n", {p.B, p.P});
    p.dc_n = direction.plane(layer.dc_n, "dc_n", {p.B, p.H});
    // An LSTM and a GRU read h of the step before alone, which of the first step is h0.
    const bool reads_y = p.T > 1 || !saved_gates(p.cell);
    p.y = direction.columns(reads_y ? required(layer.y, "y") : layer.y, "y", p.P);
    p.recompute = recompute(layer, s);
    const int64_t saved = saved_values(p, p.masks);
    if (saved && !p.recompute)
      p.gates = direction.plane(required(layer.gates, "gates"), "gates", {p.T, p.B, saved * p.H});
    if (p.cell == Cell::lstm)
      p.cells = direction.plane(required(layer.cells, "cells"), "cells", {kept_cells(p), p.B, p.H},
                                wide_type(p.dtype));
    if (p.recompute) {
      const View* b = layer.weights.data() + d * per_direction(p.cell) + 2;
      p.b_ih = vector(b[0], "b_ih", gate_count(p.cell) * p.H, direction.e);
      p.b_hh = vector(b[1], "b_hh", gate_count(p.cell) * p.H, direction.e);
      p.forward_threads = cpu::directions_apart(s) ? 1 : s.threads;
    }
    set_gradients(p, layer, direction);
  }
  const auto run = [](const RecurrentBackward& p) { cpu::recurrent_backward(p); };
  const bool wide = s.dtype == Dtype::f32 || s.dtype == Dtype::f64;
  const bool apart = cpu::directions_apart(s) && (wide || !layer.dx);
  if (apart && layer.dx && s.dtype == Dtype::f64) run_directions_with_dx<double>(directions, run);
  else if (apart && layer.dx) run_directions_with_dx<float>(directions, run);
  else run_directions(directions, s.D, apart, run);
}

void layer_group_gradients(const LayerGroups& layer) {
  const RecurrentSizes s = sizes(layer);
  check(layer.dweights.size() == layer.weights.size(), "dweights: expected ", layer.weights.size(),
        " tensors or None, got ", layer.dweights.size());
  check(layer.groups > 0 && s.B % layer.groups == 0, "groups: expected a divisor of the batch, ", s.B,
        ", got ", layer.groups);
  const int64_t GH = gate_count(s.cell) * s.H;
  for (int64_t d = 0; d < s.D; ++d) {
    const Direction direction{s, d};
    GroupGradients p{};
    static_cast<RecurrentSizes&>(p) = s;
    p.reverse = d == 1;
    p.groups = layer.groups;
    const View* g = layer.dweights.data() + d * per_direction(s.cell);
    const auto apart = [&](const View& v, const char* name, int64_t rows, int64_t columns) -> void* {
      if (!v) return nullptr;
      if (columns) check_tensor(v, name, {p.groups, rows, columns}, direction.e);
      else check_tensor(v, name, {p.groups, rows}, direction.e);
      const int64_t row = std::max<int64_t>(columns, 1);
      check((p.groups == 1 || v.strides[0] == rows * row) && (!columns || rows == 1 || v.strides[1] == row),
            name, ": expected a contiguous tensor");
      return v.data;
    };
    p.dW = apart(g[0], "dW", GH, p.I);
    p.dR = apart(g[1], "dR", GH, p.P);
    p.db_ih = apart(g[2], "db_ih", GH, 0);
    p.db_hh = apart(g[3], "db_hh", GH, 0);
    if (p.project) p.dW_hr = apart(g[4], "dW_hr", p.P, p.H);
    p.x = rows(layer.x, "x", {p.T, p.B, p.I}, direction.e);
    p.h0 = direction.plane(layer.h0, "h0", {p.B, p.P});
    p.y = direction.columns(p.T > 1 && p.dR ? required(layer.y, "y") : layer.y, "y", p.P);
    const ElementType wide = wide_type(p.dtype);
    if (p.dW_hr) {
      p.gates = direction.plane(required(layer.gates, "gates"), "gates", {p.T, p.B, 4 * p.H});
      p.cells = direction.plane(required(layer.cells, "cells"), "cells", {p.T, p.B, p.H}, wide);
      p.dh = direction.columns(required(layer.dh, "dh"), "dh", p.P, wide);
    }
    const int64_t columns = std::max(1, saved_gates(p.cell)) * p.H;
    p.dgates = direction.columns(required(layer.dgates, "dgates"), "dgates", columns, wide);
    cpu::group_gradients(p);
  }
}

void weight_drop(const DroppedWeight& weight) {
  const View &R = required(weight.R, "R"), &out = required(weight.out, "out");
  check(R.ndim == 2, "R: expected a matrix, got ", R);
  check(weight.rate >= 0 && weight.rate < 1, "rate: expected a probability in [0, 1), got ", weight.rate);
  check_tensor(required(weight.key, "key"), "key", {}, ElementType::i64);
  const Dtype dtype = float_dtype(R, "R");
  const int64_t rows = R.shape[0], columns = R.shape[1];
  for (const View* v : {&R, &out}) {
    check_tensor(*v, v == &R ? "R" : "out", {rows, columns}, element_type(dtype));
    check(rows <= 1 || v->strides[0] == columns, "R, out: expected contiguous tensors");
  }
  cpu::weight_drop({.dtype = dtype,
                    .rows = rows,
                    .columns = columns,
                    .key = *static_cast<const uint64_t*>(weight.key.data),
                    .place = static_cast<uint32_t>(weight.place),
                    .rate = static_cast<float>(weight.rate),
                    .R = R.data,
                    .out = out.data,
                    .threads = rows * columns < kAlone ? 1 : weight.threads});
}

int64_t packed_bytes(Cell cell, Dtype dtype, int64_t I, int64_t H, int64_t P) {
  int marker = 0;  // of W_hr, only the presence is read
  return cpu::recurrent_packed_bytes({.cell = cell,
                                      .dtype = dtype,
                                      .I = I,
                                      .H = H,
                                      .P = P ? P : H,
                                      .W = {},
                                      .R = {},
                                      .W_hr = {.data = P ? &marker : nullptr, .stride = 0},
                                      .packed = nullptr,
                                      .threads = 1});
}

void pack_weights(Cell cell, const Views& weights, const View& blob, int threads) {
  check(static_cast<int>(weights.size()) == per_direction(cell), "weights: expected ", per_direction(cell),
        " tensors, got ", weights.size());
  const View& W = required(weights[0], "W");
  const View& R = required(weights[1], "R");
  check(W.ndim == 2 && R.ndim == 2, "W, R: expected matrices, got ", W, " and ", R);
  const bool project = cell == Cell::lstm && weights[4];
  const Dtype dtype = float_dtype(W, "W");
  const ElementType e = element_type(dtype);
  const int64_t I = W.shape[1], H = R.shape[0] / gate_count(cell), P = R.shape[1], GH = gate_count(cell) * H;
  check_tensor(blob, "blob", {packed_bytes(cell, dtype, I, H, project ? P : 0)}, ElementType::u8);
  cpu::recurrent_pack({.cell = cell,
                       .dtype = dtype,
                       .I = I,
                       .H = H,
                       .P = P ? P : H,
                       .W = matrix(W, "W", {GH, I}, e),
                       .R = matrix(R, "R", {GH, P ? P : H}, e),
                       .W_hr = project ? matrix(weights[4], "W_hr", {P, H}, e) : Matrix{},
                       .packed = blob.data,
                       .threads = threads});
}

}  // namespace fusegen
