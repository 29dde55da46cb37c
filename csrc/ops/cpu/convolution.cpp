#include "convolution.h"

#include <algorithm>

#include "kernels/cpu/kernels.h"

namespace fusegen {
namespace {

constexpr int kMostThreads = 1024;              // more make the runtime give up
constexpr int64_t kLargest = int64_t{1} << 31;  // of a size: no product of two overflows

void expect(bool holds, const std::string& what) {
  if (!holds) throw std::invalid_argument(what);
}

Dtype full_precision(const View& v, const std::string& name) {
  const Dtype dtype = float_dtype(v, name.c_str());
  expect(dtype == Dtype::f32 || dtype == Dtype::f64,
         name + ": expected float32 or float64, got a dtype of 16 bits");
  return dtype;
}

void check_size(int64_t size, int64_t least) {
  expect(size >= least && size < kLargest,
         "shape: expected sizes, strides and dilations from 1 and paddings from 0 to less than 2^31, got " +
             std::to_string(size));
}

int threads_of(int asked) { return std::clamp(asked, 1, kMostThreads); }

void check_slope(double slope) {
  expect(slope >= 0, "slope: expected at least 0, got " + std::to_string(slope));
}

// A contiguous tensor of this shape, or null where it is absent.
void* whole(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType e) {
  if (!v) return nullptr;
  check(v, name, shape, e);
  int64_t stride = 1;
  for (int i = v.ndim - 1; i >= 0; stride *= v.shape[i--])
    if (v.shape[i] > 1 && v.strides[i] != stride)
      throw std::invalid_argument(std::string(name) + ": expected a contiguous tensor");
  return v.data;
}

// [blocks, pixels, channels, width], of a width that there are kernels for.
const View& blocked(const View& v, const std::string& name) {
  expect(required(v, name.c_str()).ndim == 4,
         name + ": expected shape [blocks, pixels, channels, width], got " + shape_text(v));
  const int64_t lanes = cpu::kernels().conv_lanes(full_precision(v, name)), width = v.shape[3];
  expect(width > 0 && width % lanes == 0 && width <= 4 * lanes,
         name + ": expected blocks of one to four vectors of " + std::to_string(lanes) + " samples, got " +
             shape_text(v));
  expect(v.shape[0] > 0 && v.shape[1] > 0 && v.shape[2] > 0,
         name + ": expected at least one block, pixel and channel, got " + shape_text(v));
  return v;
}

// What all passes share, from a blocked tensor of theirs and W [O, C / groups, kernel].
ConvShape shape_of(const ConvGeometry& g, const View& x, const View& W, const std::string& name) {
  expect(required(W, name.c_str()).ndim == 4,
         name + ": expected shape [O, C / groups, kh, kw], got " + shape_text(W));
  ConvShape s{};
  s.dtype = full_precision(x, "x");
  s.blocks = x.shape[0];
  s.width = x.shape[3];
  s.O = W.shape[0];
  s.groups = g.groups;
  s.threads = threads_of(g.threads);
  expect(g.groups > 0 && g.groups < kLargest, "groups: expected at least 1, got " + std::to_string(g.groups));
  s.C = W.shape[1] < kLargest ? W.shape[1] * g.groups : 0;
  expect(s.C > 0 && s.O > 0 && s.O % g.groups == 0,
         name + ": expected shape [O, C / groups, kh, kw] with O a multiple of the " +
             std::to_string(g.groups) + " groups, got " + shape_text(W));
  for (int i = 0; i < 2; ++i) {
    s.in[i] = g.in[i];
    s.kernel[i] = W.shape[2 + i];
    s.stride[i] = g.stride[i];
    s.padding[i] = g.padding[i];
    s.dilation[i] = g.dilation[i];
    for (int64_t size : {s.in[i], s.kernel[i], s.stride[i], s.dilation[i]}) check_size(size, 1);
    check_size(s.padding[i], 0);
    const int64_t room = s.in[i] + 2 * s.padding[i] - s.dilation[i] * (s.kernel[i] - 1) - 1;
    expect(room >= 0, name + ": expected a kernel no larger than the padded input, got " + shape_text(W));
    s.out[i] = room / s.stride[i] + 1;
    expect(s.out[i] < kLargest,
           "shape: expected an output of less than 2^31 a side, got " + std::to_string(s.out[i]));
  }
  return s;
}

int64_t pixels(const int64_t (&size)[2]) { return size[0] * size[1]; }

BatchNormShape shape_of(const BatchNormCall& call, const View& x) {
  blocked(x, "x");
  BatchNormShape s{
      full_precision(x, "x"),  x.shape[0], x.shape[1], x.shape[2], x.shape[3], call.n, call.eps, call.slope,
      threads_of(call.threads)};
  expect(call.n > (s.blocks - 1) * s.width && call.n <= s.blocks * s.width,
         "n: expected samples in every block, got " + std::to_string(call.n));
  expect(call.eps >= 0, "eps: expected at least 0, got " + std::to_string(call.eps));
  check_slope(call.slope);
  return s;
}

}  // namespace

int64_t conv_lanes(Dtype dtype) {
  expect(dtype == Dtype::f32 || dtype == Dtype::f64, "dtype: expected float32 or float64");
  return cpu::kernels().conv_lanes(dtype);
}

void conv_forward(const ConvGeometry& g, const View& x, const View& W, const View& b, double slope,
                  const View& y) {
  blocked(x, "x");
  ConvForward p{};
  static_cast<ConvShape&>(p) = shape_of(g, x, W, "W");
  const ElementType e = element_type(p.dtype);
  p.x = whole(x, "x", {p.blocks, pixels(p.in), p.C, p.width}, e);
  p.W = whole(W, "W", {p.O, p.C / p.groups, p.kernel[0], p.kernel[1]}, e);
  p.b = whole(b, "b", {p.O}, e);
  p.slope = slope;
  check_slope(slope);
  p.y = whole(required(y, "y"), "y", {p.blocks, pixels(p.out), p.O, p.width}, e);
  cpu::kernels().conv_forward(p);
}

void conv_input_gradient(const ConvGeometry& g, const View& dy, const View& W, const View& below,
                         double slope, const View& dx) {
  blocked(dy, "dy");
  ConvInputGradient p{};
  static_cast<ConvShape&>(p) = shape_of(g, dy, W, "W");
  const ElementType e = element_type(p.dtype);
  p.dy = whole(dy, "dy", {p.blocks, pixels(p.out), p.O, p.width}, e);
  p.W = whole(W, "W", {p.O, p.C / p.groups, p.kernel[0], p.kernel[1]}, e);
  p.below = whole(below, "below", {p.blocks, pixels(p.in), p.C, p.width}, e);
  p.slope = slope;
  check_slope(slope);
  p.dx = whole(required(dx, "dx"), "dx", {p.blocks, pixels(p.in), p.C, p.width}, e);
  cpu::kernels().conv_input_gradient(p);
}

void conv_weight_gradient(const ConvGeometry& g, const View& dy, const View& x, const View& dW) {
  blocked(dy, "dy");
  blocked(x, "x");
  ConvWeightGradient p{};
  static_cast<ConvShape&>(p) = shape_of(g, x, dW, "dW");
  const ElementType e = element_type(p.dtype);
  p.dy = whole(dy, "dy", {p.blocks, pixels(p.out), p.O, p.width}, e);
  p.x = whole(x, "x", {p.blocks, pixels(p.in), p.C, p.width}, e);
  p.dW = whole(dW, "dW", {p.O, p.C / p.groups, p.kernel[0], p.kernel[1]}, e);
  cpu::kernels().conv_weight_gradient(p);
}

void batch_norm_forward(const BatchNormCall& call, const View& x, const View& weight, const View& bias,
                        const View& y, const View& mean, const View& var) {
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

void batch_norm_backward(const BatchNormCall& call, const View& dy, const View& y, const View& x,
                         const View& weight, const View& mean, const View& var, const View& dx,
                         const View& dweight, const View& dbias) {
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
  p.dweight = whole(required(dweight, "dweight"), "dweight", {p.C}, e);
  p.dbias = whole(required(dbias, "dbias"), "dbias", {p.C}, e);
  cpu::kernels().batch_norm_backward(p);
}

}  // namespace fusegen
