#include "convolution.h"

#include <algorithm>

#include "kernels/cpu/convolution.h"

namespace fusegen {
namespace {

constexpr int kMostThreads = 1024;              // more make the runtime give up
constexpr int64_t kLargest = int64_t{1} << 31;  // of a size: no product of two overflows

Dtype full_precision(const View& v, const char* name) {
  const Dtype dtype = float_dtype(v, name);
  check(dtype == Dtype::f32 || dtype == Dtype::f64, name,
        ": expected float32 or float64, got a dtype of 16 bits");
  return dtype;
}

void check_size(int64_t size, int64_t least) {
  check(size >= least && size < kLargest,
        "shape: expected sizes, strides and dilations from 1 and paddings from 0 to less than 2^31, got ",
        size);
}

int threads_of(int asked) { return std::clamp(asked, 1, kMostThreads); }

void check_slope(double slope) { check(slope >= 0, "slope: expected at least 0, got ", slope); }

// A contiguous tensor of this shape, or null where it is absent.
void* whole(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType e) {
  if (!v) return nullptr;
  check_tensor(v, name, shape, e);
  int64_t stride = 1;
  for (int i = v.ndim - 1; i >= 0; stride *= v.shape[i--])
    check(v.shape[i] <= 1 || v.strides[i] == stride, name, ": expected a contiguous tensor");
  return v.data;
}

// [blocks, pixels, channels, width], of a width that there are kernels for.
const View& blocked(const View& v, const char* name) {
  check(required(v, name).ndim == 4, name, ": expected shape [blocks, pixels, channels, width], got ", v);
  const int64_t lanes = cpu::conv_lanes(full_precision(v, name)), width = v.shape[3];
  check(width > 0 && width % lanes == 0 && width <= 4 * lanes, name,
        ": expected blocks of one to four vectors of ", lanes, " samples, got ", v);
  check(v.shape[0] > 0 && v.shape[1] > 0 && v.shape[2] > 0, name,
        ": expected at least one block, pixel and channel, got ", v);
  return v;
}

// What all passes share, from a blocked tensor of theirs and W [O, C / groups, kernel].
ConvShape shape_of(const ConvGeometry& g, const View& x, const View& W, const char* name) {
  check(required(W, name).ndim == 4, name, ": expected shape [O, C / groups, kh, kw], got ", W);
  ConvShape s{};
  s.dtype = full_precision(x, "x");
  s.blocks = x.shape[0];
  s.width = x.shape[3];
  s.O = W.shape[0];
  s.groups = g.groups;
  s.threads = threads_of(g.threads);
  check(g.groups > 0 && g.groups < kLargest, "groups: expected at least 1, got ", g.groups);
  s.C = W.shape[1] < kLargest ? W.shape[1] * g.groups : 0;
  check(s.C > 0 && s.O > 0 && s.O % g.groups == 0, name,
        ": expected shape [O, C / groups, kh, kw] with O a multiple of the ", g.groups, " groups, got ", W);
  for (int i = 0; i < 2; ++i) {
    s.in[i] = g.in[i];
    s.kernel[i] = W.shape[2 + i];
    s.stride[i] = g.stride[i];
    s.padding[i] = g.padding[i];
    s.dilation[i] = g.dilation[i];
    for (int64_t size : {s.in[i], s.kernel[i], s.stride[i], s.dilation[i]}) check_size(size, 1);
    check_size(s.padding[i], 0);
    const int64_t room = s.in[i] + 2 * s.padding[i] - s.dilation[i] * (s.kernel[i] - 1) - 1;
    check(room >= 0, name, ": expected a kernel no larger than the padded input, got ", W);
    s.out[i] = room / s.stride[i] + 1;
    check(s.out[i] < kLargest, "shape: expected an output of less than 2^31 a side, got ", s.out[i]);
  }
  return s;
}

int64_t pixels(const int64_t (&size)[2]) { return size[0] * size[1]; }

BatchNormShape shape_of(const BatchNormCall& call, const View& x) {
  blocked(x, "x");
  const BatchNormShape s{.dtype = full_precision(x, "x"),
                         .blocks = x.shape[0],
                         .pixels = x.shape[1],
                         .C = x.shape[2],
                         .width = x.shape[3],
                         .n = call.n,
                         .eps = call.eps,
                         .slope = call.slope,
                         .threads = threads_of(call.threads)};
  check(call.n > (s.blocks - 1) * s.width && call.n <= s.blocks * s.width,
        "n: expected samples in every block, got ", call.n);
  check(call.eps >= 0, "eps: expected at least 0, got ", call.eps);
  check_slope(call.slope);
  return s;
}

}  // namespace

int64_t conv_lanes(Dtype dtype) {
  check(dtype == Dtype::f32 || dtype == Dtype::f64, "dtype: expected float32 or float64");
  return cpu::conv_lanes(dtype);
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
  cpu::conv_forward(p);
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
  cpu::conv_input_gradient(p);
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
  cpu::conv_weight_gradient(p);
}

void batch_norm_forward(const BatchNormCall& call, const BatchNormTensors& t) {
  BatchNormForward p{};
  static_cast<BatchNormShape&>(p) = shape_of(call, t.x);
  const ElementType e = element_type(p.dtype);
  const auto like_x = {p.blocks, p.pixels, p.C, p.width};
  p.x = whole(t.x, "x", like_x, e);
  p.weight = whole(t.weight, "weight", {p.C}, e);
  p.bias = whole(t.bias, "bias", {p.C}, e);
  p.y = whole(required(t.y, "y"), "y", like_x, e);
  p.mean = whole(required(t.mean, "mean"), "mean", {p.C}, e);
  p.var = whole(required(t.var, "var"), "var", {p.C}, e);
  cpu::batch_norm_forward(p);
}

void batch_norm_backward(const BatchNormCall& call, const BatchNormGradients& t) {
  BatchNormBackward p{};
  static_cast<BatchNormShape&>(p) = shape_of(call, t.x);
  const ElementType e = element_type(p.dtype);
  const auto like_x = {p.blocks, p.pixels, p.C, p.width};
  p.dy = whole(required(t.dy, "dy"), "dy", like_x, e);
  p.y = whole(required(t.y, "y"), "y", like_x, e);
  p.x = whole(t.x, "x", like_x, e);
  p.weight = whole(t.weight, "weight", {p.C}, e);
  p.mean = whole(required(t.mean, "mean"), "mean", {p.C}, e);
  p.var = whole(required(t.var, "var"), "var", {p.C}, e);
  p.dx = whole(t.dx, "dx", like_x, e);
  p.dweight = whole(required(t.dweight, "dweight"), "dweight", {p.C}, e);
  p.dbias = whole(required(t.dbias, "dbias"), "dbias", {p.C}, e);
  cpu::batch_norm_backward(p);
}

}  // namespace fusegen
