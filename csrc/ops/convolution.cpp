#include "convolution.h"

#include <algorithm>

#include "../kernels/cpu/kernels.h"

namespace fusegen {
namespace {

void expect(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

Dtype full_precision(const View& v, const char* name) {
  const Dtype dtype = float_dtype(v, name);
  expect(dtype == Dtype::f32 || dtype == Dtype::f64, "x: expected float32 or float64");
  return dtype;
}

// A contiguous tensor of this shape, or null where it is absent.
void* whole(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType e) {
  if (!v) return nullptr;
  check(v, name, shape, e);
  int64_t stride = 1;
  for (int i = v.ndim - 1; i >= 0; stride *= v.shape[i--])
    if (v.shape[i] > 1 && v.strides[i] != stride) throw std::invalid_argument(std::string(name) + ": expected a contiguous tensor");
  return v.data;
}

void check_width(int64_t width, Dtype dtype) {
  const int64_t lanes = cpu::kernels().conv_lanes(dtype);
  expect(width > 0 && width % lanes == 0 && width <= 4 * lanes, "x: expected blocks of one to four vectors of samples");
}

// What all passes share. x: [blocks, pixels, C, width]; W: [O, C / groups, kernel].
ConvShape shape_of(const ConvGeometry& g, Dtype dtype, int64_t blocks, int64_t width, int64_t C, const View& W) {
  expect(W.ndim == 4, "W: expected shape [O, C / groups, kh, kw]");
  ConvShape s{};
  s.dtype = dtype;
  s.blocks = blocks;
  s.width = width;
  s.C = C;
  s.O = W.shape[0];
  s.groups = g.groups;
  s.threads = std::max(1, g.threads);
  check_width(width, dtype);
  expect(blocks > 0 && C > 0 && s.O > 0, "x, W: expected at least one sample and one channel");
  expect(g.groups > 0 && C % g.groups == 0 && s.O % g.groups == 0 && W.shape[1] == C / g.groups,
         "W: expected shape [O, C / groups, kh, kw] with O a multiple of the groups");
  for (int i = 0; i < 2; ++i) {
    s.in[i] = g.in[i];
    s.kernel[i] = W.shape[2 + i];
    s.stride[i] = g.stride[i];
    s.padding[i] = g.padding[i];
    s.dilation[i] = g.dilation[i];
    expect(s.in[i] > 0 && s.kernel[i] > 0 && s.stride[i] > 0 && s.dilation[i] > 0 && s.padding[i] >= 0,
           "geometry: expected sizes, strides and dilations of at least 1 and paddings of at least 0");
    const int64_t room = s.in[i] + 2 * s.padding[i] - s.dilation[i] * (s.kernel[i] - 1) - 1;
    expect(room >= 0, "W: expected a kernel no larger than the padded input");
    s.out[i] = room / s.stride[i] + 1;
  }
  return s;
}

int64_t pixels(const int64_t (&size)[2]) { return size[0] * size[1]; }

const View& blocked(const View& v, const char* name) {
  expect(required(v, name).ndim == 4, "x, dy: expected shape [blocks, pixels, channels, width]");
  return v;
}

BatchNormShape shape_of(const BatchNormCall& call, const View& x) {
  blocked(x, "x");
  BatchNormShape s{full_precision(x, "x"), x.shape[0], x.shape[1], x.shape[2], x.shape[3], call.n, call.eps, call.slope,
                   std::max(1, call.threads)};
  check_width(s.width, s.dtype);
  expect(call.n > (s.blocks - 1) * s.width && call.n <= s.blocks * s.width, "n: expected samples in every block");
  expect(call.slope >= 0, "slope: expected at least 0");
  return s;
}

}  // namespace

int64_t conv_lanes(Dtype dtype) {
  expect(dtype == Dtype::f32 || dtype == Dtype::f64, "dtype: expected float32 or float64");
  return cpu::kernels().conv_lanes(dtype);
}

void conv_forward(const ConvGeometry& g, const View& x, const View& W, const View& b, double slope, const View& y) {
  blocked(x, "x");
  ConvForward p{};
  static_cast<ConvShape&>(p) = shape_of(g, full_precision(x, "x"), x.shape[0], x.shape[3], x.shape[2], required(W, "W"));
  const ElementType e = element_type(p.dtype);
  p.x = whole(x, "x", {p.blocks, pixels(p.in), p.C, p.width}, e);
  p.W = whole(W, "W", {p.O, p.C / p.groups, p.kernel[0], p.kernel[1]}, e);
  p.b = whole(b, "b", {p.O}, e);
  p.slope = slope;
  expect(slope >= 0, "slope: expected at least 0");
  p.y = whole(required(y, "y"), "y", {p.blocks, pixels(p.out), p.O, p.width}, e);
  cpu::kernels().conv_forward(p);
}

void conv_input_gradient(const ConvGeometry& g, const View& dy, const View& W, const View& below, double slope, const View& dx) {
  blocked(dy, "dy");
  ConvInputGradient p{};
  const int64_t C = required(W, "W").ndim == 4 ? W.shape[1] * g.groups : 0;
  static_cast<ConvShape&>(p) = shape_of(g, full_precision(dy, "dy"), dy.shape[0], dy.shape[3], C, W);
  const ElementType e = element_type(p.dtype);
  p.dy = whole(dy, "dy", {p.blocks, pixels(p.out), p.O, p.width}, e);
  p.W = whole(W, "W", {p.O, p.C / p.groups, p.kernel[0], p.kernel[1]}, e);
  p.below = whole(below, "below", {p.blocks, pixels(p.in), p.C, p.width}, e);
  p.slope = slope;
  p.dx = whole(required(dx, "dx"), "dx", {p.blocks, pixels(p.in), p.C, p.width}, e);
  cpu::kernels().conv_input_gradient(p);
}

void conv_weight_gradient(const ConvGeometry& g, const View& dy, const View& x, const View& dW) {
  blocked(dy, "dy");
  blocked(x, "x");
  ConvWeightGradient p{};
  static_cast<ConvShape&>(p) = shape_of(g, full_precision(x, "x"), x.shape[0], x.shape[3], x.shape[2], required(dW, "dW"));
  const ElementType e = element_type(p.dtype);
  p.dy = whole(dy, "dy", {p.blocks, pixels(p.out), p.O, p.width}, e);
  p.x = whole(x, "x", {p.blocks, pixels(p.in), p.C, p.width}, e);
  p.dW = whole(dW, "dW", {p.O, p.C / p.groups, p.kernel[0], p.kernel[1]}, e);
  cpu::kernels().conv_weight_gradient(p);
}

void batch_norm_forward(const BatchNormCall& call, const View& x, const View& weight, const View& bias, const View& y,
                        const View& mean, const View& var) {
  BatchNormForward p{};
  static_cast<BatchNormShape&>(p) = shape_of(call, x);
  const ElementType e = element_type(p.dtype);
  const auto like_x = {p.blocks, p.pixels, p.C, p.width};
  p.x = whole(x, "x", like_x, e);
  p.weight = whole(weight, "weight", {p.C}, e);
  p.bias = whole(bias, "bias", {p.C}, e);
  p.y = whole(required(y, "y"), "y", like_x, e);
  p.mean = whole(required(mean, "mean"), "mean", {p.C}, e);
  p.var = whole(required(var, "var"), "var", {p.C}, e);
  cpu::kernels().batch_norm_forward(p);
}

void batch_norm_backward(const BatchNormCall& call, const View& dy, const View& y, const View& x, const View& weight,
                         const View& mean, const View& var, const View& dx, const View& dweight, const View& dbias) {
  BatchNormBackward p{};
  static_cast<BatchNormShape&>(p) = shape_of(call, x);
  const ElementType e = element_type(p.dtype);
  const auto like_x = {p.blocks, p.pixels, p.C, p.width};
  p.dy = whole(required(dy, "dy"), "dy", like_x, e);
  p.y = whole(required(y, "y"), "y", like_x, e);
  p.x = whole(x, "x", like_x, e);
  p.weight = whole(weight, "weight", {p.C}, e);
  p.mean = whole(required(mean, "mean"), "mean", {p.C}, e);
  p.var = whole(required(var, "var"), "var", {p.C}, e);
  p.dx = whole(dx, "dx", like_x, e);
  p.dweight = whole(dweight, "dweight", {p.C}, e);
  p.dbias = whole(dbias, "dbias", {p.C}, e);
  cpu::kernels().batch_norm_backward(p);
}

}  // namespace fusegen
