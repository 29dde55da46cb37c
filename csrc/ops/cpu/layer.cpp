#include "layer.h"

#include <array>
#include <exception>

#include "kernels/cpu/arena.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/plan.h"
#include "ops/checks.h"

namespace fusegen {
namespace {

struct Names {
  const char *W, *R, *b_ih, *b_hh, *W_hr;
};
constexpr Names kWeights{"W", "R", "b_ih", "b_hh", "W_hr"};
constexpr Names kGradients{"dW", "dR", "db_ih", "db_hh", "dW_hr"};

int per_direction(Cell cell) { return cell == Cell::lstm ? 5 : 4; }

// A step's [B,n] as the one step of a sequence [1,B,n].
View sequence(View v) {
  if (!v || v.ndim != 2) return v;
  v.ndim = 3;
  v.shape = {1, v.shape[0], v.shape[1]};
  v.strides = {0, v.strides[0], v.strides[1]};
  return v;
}

// Plane d, of this shape, of [D,...].
Rows plane(const View& v, const char* name, int64_t D, int64_t d, std::initializer_list<int64_t> shape,
           ElementType dtype) {
  if (!v) return {};
  if (v.ndim < 1 || v.shape[0] != D)
    throw std::invalid_argument(std::string(name) + ": expected a first dimension of " + std::to_string(D) +
                                ", one plane a direction, got " + shape_text(v));
  View p = v;
  p.ndim = v.ndim - 1;
  const int64_t bytes = v.dtype == ElementType::f64 || v.dtype == ElementType::i64 ? 8
                        : v.dtype == ElementType::f32                              ? 4
                        : v.dtype == ElementType::u8                               ? 1
                                                                                   : 2;
  p.data = static_cast<char*>(v.data) + d * v.strides[0] * bytes;
  for (int i = 0; i < p.ndim; ++i) {
    p.shape[i] = v.shape[i + 1];
    p.strides[i] = v.strides[i + 1];
  }
  return rows(p, name, shape, dtype);
}

// The n columns of direction d in y or dy.
Rows columns(const View& v, const char* name, int64_t T, int64_t B, int64_t n, int64_t D, int64_t d,
             ElementType dtype) {
  Rows r = rows(v, name, {T, B, D * n}, dtype);
  if (r.data)
    r.data = static_cast<char*>(r.data) + d * n *
                                              (dtype == ElementType::f64   ? 8
                                               : dtype == ElementType::f32 ? 4
                                                                           : 2);
  return r;
}

RecurrentSizes sizes(Cell cell, const View& x, const Views& weights, const View& lengths, int threads) {
  const int step = per_direction(cell);
  if (weights.empty() || weights.size() % step || weights.size() / step > 2)
    throw std::invalid_argument("weights: expected " + std::to_string(step) +
                                " tensors for each of 1 or 2 directions, got " +
                                std::to_string(weights.size()));
  required(x, "x");
  if (x.ndim != 3) throw std::invalid_argument("x: expected shape [T, B, I], got " + shape_text(x));
  const View& R = required(weights[1], "R");
  if (R.ndim != 2) throw std::invalid_argument("R: expected shape [G*H, P], got " + shape_text(R));
  RecurrentSizes s{};
  s.D = static_cast<int64_t>(weights.size()) / step;
  s.project = cell == Cell::lstm && weights[4];
  if (s.D == 2 && cell == Cell::lstm && weights[9].present != s.project)
    throw std::invalid_argument("W_hr: expected both directions to have it, or neither");
  s.cell = cell;
  s.dtype = float_dtype(x, "x");
  s.T = x.shape[0];
  s.B = x.shape[1];
  s.I = x.shape[2];
  s.H = R.shape[0] / gate_count(cell);
  s.P = R.shape[1];
  if (s.I < 1 || s.H < 1 || s.P < 1)
    throw std::invalid_argument("x, R: expected sizes of at least 1, got I = " + std::to_string(s.I) +
                                ", H = " + std::to_string(s.H) + ", P = " + std::to_string(s.P));
  if (!s.project && s.P != s.H)
    throw std::invalid_argument("R: expected shape " + shape_text({gate_count(cell) * s.H, s.H}) + ", got " +
                                shape_text(R));
  if (s.B > INT32_MAX)
    throw std::invalid_argument("x: expected a batch below 2^31, got " + std::to_string(s.B));
  s.threads = threads;
  if (lengths) {
    check(lengths, "lengths", {s.B}, ElementType::i64);
    s.lengths = static_cast<const int64_t*>(lengths.data);
    for (int64_t b = 0; b < s.B; ++b)
      if (s.lengths[b] < 0 || s.lengths[b] > s.T)
        throw std::invalid_argument("lengths: expected values in [0, " + std::to_string(s.T) + "], got " +
                                    std::to_string(s.lengths[b]));
  }
  return s;
}

template <class Params>
void set_weights(Params& p, const Views& weights, int64_t d) {
  const int64_t GH = gate_count(p.cell) * p.H;
  const View* w = weights.data() + d * per_direction(p.cell);
  const ElementType e = element_type(p.dtype);
  p.W = matrix(required(w[0], kWeights.W), kWeights.W, {GH, p.I}, e);
  p.R = matrix(required(w[1], kWeights.R), kWeights.R, {GH, p.P}, e);
  p.b_ih = vector(w[2], kWeights.b_ih, GH, e);
  p.b_hh = vector(w[3], kWeights.b_hh, GH, e);
  if (p.project) p.W_hr = matrix(w[4], kWeights.W_hr, {p.P, p.H}, e);
}

}  // namespace

namespace {

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

// The same where both write dx [T,B,I]: the second has its own until both are there. Of 32 or 64 bits (see
// plan_backward), so the sum is the one that adding in the kernel gives.
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
  const RecurrentSizes s = sizes(layer.cell, layer.x, layer.weights, layer.lengths, layer.threads);
  const ElementType e = element_type(s.dtype);
  const ElementType wide = s.dtype == Dtype::f64 ? ElementType::f64 : ElementType::f32;
  std::array<RecurrentForward, 2> directions{};
  for (int64_t d = 0; d < s.D; ++d) {
    RecurrentForward& p = directions[d];
    static_cast<RecurrentSizes&>(p) = s;
    p.reverse = d == 1;
    p.x = rows(layer.x, "x", {p.T, p.B, p.I}, e);
    p.h0 = plane(layer.h0, "h0", s.D, d, {p.B, p.P}, e);
    p.c0 = plane(layer.c0, "c0", s.D, d, {p.B, p.H}, e);
    set_weights(p, layer.weights, d);
    if (!layer.packed.empty()) {
      const View& blob = layer.packed.at(d);
      check(blob, "packed", {packed_bytes(p.cell, p.dtype, p.I, p.H, p.project ? p.P : 0)}, ElementType::u8);
      p.packed = blob.data;
    }
    p.y = columns(required(layer.y, "y"), "y", p.T, p.B, p.P, s.D, d, e);
    p.h_n = plane(required(layer.h_n, "h_n"), "h_n", s.D, d, {p.B, p.P}, e);
    if (p.cell == Cell::lstm) p.c_n = plane(required(layer.c_n, "c_n"), "c_n", s.D, d, {p.B, p.H}, e);
    p.gates = plane(layer.gates, "gates", s.D, d, {p.T, p.B, saved_gates(p.cell) * p.H}, e);
    p.cells = plane(layer.cells, "cells", s.D, d, {p.T, p.B, p.H}, wide);
    if (p.cell == Cell::lstm && !p.gates.data != !p.cells.data)
      throw std::invalid_argument("gates, cells: expected both or neither");
  }
  run_directions(directions, s.D, cpu::plan_forward(s).over_directions,
                 [](const RecurrentForward& p) { cpu::kernels().forward(p); });
}

void layer_backward(const LayerBackward& layer) {
  const RecurrentSizes s = sizes(layer.cell, layer.x, layer.weights, layer.lengths, layer.threads);
  const ElementType e = element_type(s.dtype);
  const ElementType wide = s.dtype == Dtype::f64 ? ElementType::f64 : ElementType::f32;
  const int step = per_direction(layer.cell);
  if (layer.dweights.size() != layer.weights.size())
    throw std::invalid_argument("dweights: expected " + std::to_string(layer.weights.size()) +
                                " tensors or None, got " + std::to_string(layer.dweights.size()));
  std::array<RecurrentBackward, 2> directions{};
  for (int64_t d = 0; d < s.D; ++d) {
    RecurrentBackward& p = directions[d];
    static_cast<RecurrentSizes&>(p) = s;
    p.reverse = d == 1;
    p.dy = columns(layer.dy, "dy", p.T, p.B, p.P, s.D, d, e);
    p.dh_n = plane(layer.dh_n, "dh_n", s.D, d, {p.B, p.P}, e);
    p.dc_n = plane(layer.dc_n, "dc_n", s.D, d, {p.B, p.H}, e);
    p.x = rows(layer.x, "x", {p.T, p.B, p.I}, e);
    p.h0 = plane(layer.h0, "h0", s.D, d, {p.B, p.P}, e);
    p.c0 = plane(layer.c0, "c0", s.D, d, {p.B, p.H}, e);
    set_weights(p, layer.weights, d);
    // An LSTM and a GRU read h of the step before alone, which of the first step is h0.
    const bool reads_y = p.T > 1 || !saved_gates(p.cell);
    p.y = columns(reads_y ? required(layer.y, "y") : layer.y, "y", p.T, p.B, p.P, s.D, d, e);
    if (saved_gates(p.cell))
      p.gates =
          plane(required(layer.gates, "gates"), "gates", s.D, d, {p.T, p.B, saved_gates(p.cell) * p.H}, e);
    if (p.cell == Cell::lstm)
      p.cells = plane(required(layer.cells, "cells"), "cells", s.D, d, {p.T, p.B, p.H}, wide);
    p.dx = rows(layer.dx, "dx", {p.T, p.B, p.I}, e);
    p.add_dx = d == 1;
    p.dh0 = plane(layer.dh0, "dh0", s.D, d, {p.B, p.P}, e);
    p.dc0 = plane(layer.dc0, "dc0", s.D, d, {p.B, p.H}, e);
    const int64_t GH = gate_count(p.cell) * p.H;
    const View* g = layer.dweights.data() + d * step;
    const auto gradient = [&](const View& v, const char* name, std::initializer_list<int64_t> shape) {
      const Matrix m = matrix(v, name, shape, e);
      if (m.data && shape.begin()[0] > 1 && m.stride != shape.begin()[1])
        throw std::invalid_argument(std::string(name) + ": expected a contiguous tensor");
      return m;
    };
    p.dW = gradient(g[0], kGradients.W, {GH, p.I});
    p.dR = gradient(g[1], kGradients.R, {GH, p.P});
    p.db_ih = vector(g[2], kGradients.b_ih, GH, e);
    p.db_hh = vector(g[3], kGradients.b_hh, GH, e);
    if (p.project) p.dW_hr = gradient(g[4], kGradients.W_hr, {p.P, p.H});
  }
  const auto run = [](const RecurrentBackward& p) { cpu::kernels().backward(p); };
  const bool apart = cpu::plan_backward(s).over_directions;
  if (apart && layer.dx && s.dtype == Dtype::f64) run_directions_with_dx<double>(directions, run);
  else if (apart && layer.dx) run_directions_with_dx<float>(directions, run);
  else run_directions(directions, s.D, apart, run);
}

namespace {

// States of a cell [B,H] and saved values [B,n] as those of one direction.
View one_direction(View v) {
  if (!v || v.ndim != 2) return v;
  return sequence(v);
}
View saved(View v) {  // [B,n] -> [1,1,B,n]
  if (!v || v.ndim != 2) return v;
  v.ndim = 4;
  v.shape = {1, 1, v.shape[0], v.shape[1]};
  v.strides = {0, 0, v.strides[0], v.strides[1]};
  return v;
}

}  // namespace

void cell_forward(const LayerForward& step) {
  LayerForward layer = step;
  layer.x = sequence(step.x);
  layer.h0 = one_direction(step.h0);
  layer.c0 = one_direction(step.c0);
  layer.y = sequence(step.y);
  layer.h_n = one_direction(step.h_n);
  layer.c_n = one_direction(step.c_n);
  layer.gates = saved(step.gates);
  layer.cells = saved(step.cells);
  layer_forward(layer);
}

void cell_backward(const LayerBackward& step) {
  LayerBackward layer = step;
  layer.dy = sequence(step.dy);
  layer.dc_n = one_direction(step.dc_n);
  layer.x = sequence(step.x);
  layer.h0 = one_direction(step.h0);
  layer.c0 = one_direction(step.c0);
  layer.y = sequence(step.y);
  layer.gates = saved(step.gates);
  layer.cells = saved(step.cells);
  layer.dx = sequence(step.dx);
  layer.dh0 = one_direction(step.dh0);
  layer.dc0 = one_direction(step.dc0);
  layer_backward(layer);
}

namespace {

RecurrentPack pack_params(Cell cell, Dtype dtype, int64_t I, int64_t H, int64_t P) {
  RecurrentPack p{};
  p.cell = cell;
  p.dtype = dtype;
  p.I = I;
  p.H = H;
  p.P = P ? P : H;
  return p;
}

}  // namespace

int64_t packed_bytes(Cell cell, Dtype dtype, int64_t I, int64_t H, int64_t P) {
  RecurrentPack p = pack_params(cell, dtype, I, H, P);
  int marker = 0;
  if (P) p.W_hr.data = &marker;  // only its presence is read
  return cpu::kernels().packed_bytes(p);
}

void pack_weights(Cell cell, const Views& weights, const View& blob, int threads) {
  if (static_cast<int>(weights.size()) != per_direction(cell))
    throw std::invalid_argument("weights: expected " + std::to_string(per_direction(cell)) +
                                " tensors, got " + std::to_string(weights.size()));
  const View& W = required(weights[0], "W");
  const View& R = required(weights[1], "R");
  if (W.ndim != 2 || R.ndim != 2)
    throw std::invalid_argument("W, R: expected matrices, got " + shape_text(W) + " and " + shape_text(R));
  const bool project = cell == Cell::lstm && weights[4];
  const Dtype dtype = float_dtype(W, "W");
  const ElementType e = element_type(dtype);
  const int64_t H = R.shape[0] / gate_count(cell), GH = gate_count(cell) * H;
  RecurrentPack p = pack_params(cell, dtype, W.shape[1], H, R.shape[1]);
  p.W = matrix(W, "W", {GH, p.I}, e);
  p.R = matrix(R, "R", {GH, p.P}, e);
  if (project) p.W_hr = matrix(weights[4], "W_hr", {p.P, H}, e);
  check(blob, "blob", {packed_bytes(cell, dtype, p.I, H, project ? p.P : 0)}, ElementType::u8);
  p.packed = blob.data;
  p.threads = threads;
  cpu::kernels().pack(p);
}

}  // namespace fusegen
