#include "int8.h"

#include "kernels/cpu/recurrent.h"
#include "ops/checks.h"

namespace fusegen {
namespace {

const int8_t* integers(const View& v, const char* name, int64_t rows, int64_t columns) {
  if (!v) return nullptr;
  check(v.dtype == ElementType::i8 && v.device_type == 1 && v.ndim == 2 && v.shape[0] == rows &&
            v.shape[1] == columns && v.strides[1] == 1 && v.strides[0] == columns,
        name, ": expected contiguous int8 [", rows, ", ", columns, "] on the CPU, got ", v);
  return static_cast<const int8_t*>(v.data);
}

const float* floats(const View& v, const char* name, int64_t n) {
  return static_cast<const float*>(vector(v, name, n, ElementType::f32));
}

Int8Pack read(const Int8WeightViews& w) {
  const View &W = required(w.W, "W"), &R = required(w.R, "R");
  check(W.ndim == 2 && R.ndim == 2, "W, R: expected matrices, got ", W, " and ", R);
  const int64_t G = gate_count(w.cell), I = W.shape[1], H = R.shape[0] / G, P = R.shape[1];
  const bool project = w.cell == Cell::lstm && w.W_hr;
  check(project || P == H, "R: expected shape [", G * H, ", ", H, "], got ", R);
  required(w.s_W, "s_W"), required(w.s_R, "s_R");
  if (project) required(w.s_hr, "s_hr");
  return {.cell = w.cell,
          .I = I,
          .H = H,
          .P = P,
          .project = project,
          .weight_only = w.weight_only,
          .W = integers(W, "W", G * H, I),
          .R = integers(R, "R", G * H, P),
          .W_hr = project ? integers(w.W_hr, "W_hr", P, H) : nullptr,
          .s_W = floats(w.s_W, "s_W", G * H),
          .s_R = floats(w.s_R, "s_R", G * H),
          .s_hr = project ? floats(w.s_hr, "s_hr", P) : nullptr,
          .b_ih = floats(w.b_ih, "b_ih", G * H),
          .b_hh = floats(w.b_hh, "b_hh", G * H),
          .packed = nullptr};
}

Int8LinearPack read(const Int8LinearViews& w) {
  const View& W = required(w.W, "W");
  check(W.ndim == 2, "W: expected a matrix, got ", W);
  const int64_t O = W.shape[0], I = W.shape[1];
  return {.I = I,
          .O = O,
          .weight_only = w.weight_only,
          .W = integers(W, "W", O, I),
          .s_W = floats(required(w.s_W, "s_W"), "s_W", O),
          .b = floats(w.b, "b", O),
          .packed = nullptr};
}

}  // namespace

int64_t int8_linear_bytes(const Int8LinearViews& weights) { return cpu::int8_linear_bytes(read(weights)); }

void int8_linear_pack(const Int8LinearViews& weights, const View& blob) {
  Int8LinearPack p = read(weights);
  check_tensor(blob, "blob", {cpu::int8_linear_bytes(p)}, ElementType::u8);
  p.packed = blob.data;
  cpu::int8_linear_pack(p);
}

void int8_linear(const View& x, const View& packed, bool weight_only, const View& y, int threads) {
  check(required(x, "x").ndim == 2 && required(y, "y").ndim == 2, "x, y: expected matrices, got ", x, " and ",
        y);
  const Dtype dtype = float_dtype(x, "x");
  check(dtype != Dtype::f64, "x: expected float32, bfloat16 or float16, got float64");
  const int64_t n = x.shape[0], I = x.shape[1], O = y.shape[1];
  check_tensor(x, "x", {n, I}, element_type(dtype));
  check_tensor(y, "y", {n, O}, element_type(dtype));
  check((n <= 1 || (x.strides[0] == I && y.strides[0] == O)), "x, y: expected contiguous tensors");
  const Int8LinearPack sizes{.I = I,
                             .O = O,
                             .weight_only = weight_only,
                             .W = nullptr,
                             .s_W = nullptr,
                             .b = nullptr,
                             .packed = nullptr};
  check_tensor(packed, "packed", {cpu::int8_linear_bytes(sizes)}, ElementType::u8);
  cpu::int8_linear({.dtype = dtype,
                    .n = n,
                    .I = I,
                    .O = O,
                    .weight_only = weight_only,
                    .packed = packed.data,
                    .x = x.data,
                    .y = y.data,
                    .threads = n * I * O < 65536 ? 1 : threads});
}

int64_t int8_packed_bytes(const Int8WeightViews& weights) { return cpu::int8_packed_bytes(read(weights)); }

void int8_pack(const Int8WeightViews& weights, const View& blob) {
  Int8Pack p = read(weights);
  check_tensor(blob, "blob", {cpu::int8_packed_bytes(p)}, ElementType::u8);
  p.packed = blob.data;
  cpu::int8_pack(p);
}

void int8_layer(const Int8Layer& layer) {
  const View& x = required(layer.x, "x");
  check(x.ndim == 3, "x: expected shape [T, B, I], got ", x);
  const int64_t T = x.shape[0], B = x.shape[1], I = x.shape[2], H = layer.hidden, P = layer.output,
                D = static_cast<int64_t>(layer.packed.size());
  check(D == 1 || D == 2, "packed: expected a blob for each of 1 or 2 directions, got ", D);
  Int8Forward p{};
  static_cast<RecurrentSizes&>(p) = {.cell = layer.cell,
                                     .dtype = float_dtype(x, "x"),
                                     .T = T,
                                     .B = B,
                                     .I = I,
                                     .H = H,
                                     .P = P,
                                     .D = D,
                                     .project = layer.project,
                                     .reverse = false,
                                     .lengths = nullptr,
                                     .threads = layer.threads};
  check(p.dtype != Dtype::f64, "x: expected float32, bfloat16 or float16, got float64");
  const ElementType e = element_type(p.dtype);
  if (layer.lengths) {
    check_tensor(layer.lengths, "lengths", {B}, ElementType::i64);
    p.lengths = static_cast<const int64_t*>(layer.lengths.data);
    for (int64_t b = 0; b < B; ++b)
      check(p.lengths[b] >= 0 && p.lengths[b] <= T, "lengths: expected values in [0, ", T, "], got ",
            p.lengths[b]);
  }
  p.weight_only = layer.weight_only;
  p.x = rows(x, "x", {T, B, I}, e);
  const Rows y = rows(required(layer.y, "y"), "y", {T, B, D * P}, e);
  const auto of_direction = [&](const View& v, const char* name, int64_t d, int64_t n) {
    if (!v) return Rows{};
    Rows all = rows(v, name, {D, B, n}, e);
    all.data = static_cast<char*>(all.data) + d * all.stride_t * element_bytes(e);
    return Rows{all.data, 0, all.stride_b};
  };
  required(layer.h_n, "h_n");
  if (p.cell == Cell::lstm) required(layer.c_n, "c_n");
  for (int64_t d = 0; d < D; ++d) {
    Int8Pack sizes{};
    sizes.cell = p.cell;
    sizes.I = I;
    sizes.H = H;
    sizes.P = P;
    sizes.project = p.project;
    sizes.weight_only = p.weight_only;
    check_tensor(layer.packed[d], "packed", {cpu::int8_packed_bytes(sizes)}, ElementType::u8);
    p.packed = layer.packed[d].data;
    p.reverse = d == 1;
    p.h0 = of_direction(layer.h0, "h0", d, P);
    p.c0 = of_direction(layer.c0, "c0", d, H);
    p.y = {static_cast<char*>(y.data) + d * P * element_bytes(e), y.stride_t, y.stride_b};
    p.h_n = of_direction(layer.h_n, "h_n", d, P);
    p.c_n = of_direction(layer.c_n, "c_n", d, H);
    cpu::int8_forward(p);
  }
}

}  // namespace fusegen
