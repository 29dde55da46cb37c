// Convolutions and batch norms on the CPU.
#include "ops/cpu/convolution.h"

#include <array>

#include "arguments.h"
#include "bind.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

namespace {

using Numbers = std::array<int64_t, 9>;  // height and width of input, stride, padding, dilation; groups

ConvGeometry geometry(const Numbers& v, int threads) {
  return {.in = {v[0], v[1]},
          .stride = {v[2], v[3]},
          .padding = {v[4], v[5]},
          .dilation = {v[6], v[7]},
          .groups = v[8],
          .threads = threads};
}

void bind_products(py::module_& m) {
  m.def("conv_lanes", [](bool wide) { return conv_lanes(wide ? Dtype::f64 : Dtype::f32); }, "wide"_a);
  m.def(
      "conv_forward",
      [](const Numbers& shape, View x, View W, View b, double slope, View y, int threads) {
        py::gil_scoped_release unlocked;
        conv_forward(geometry(shape, threads), x, W, b, slope, y);
      },
      "shape"_a, "x"_a, "W"_a, "b"_a, "slope"_a, "y"_a, "threads"_a);
  m.def(
      "conv_input_gradient",
      [](const Numbers& shape, View dy, View W, View below, double slope, View dx, int threads) {
        py::gil_scoped_release unlocked;
        conv_input_gradient(geometry(shape, threads), dy, W, below, slope, dx);
      },
      "shape"_a, "dy"_a, "W"_a, "below"_a, "slope"_a, "dx"_a, "threads"_a);
  m.def(
      "conv_weight_gradient",
      [](const Numbers& shape, View dy, View x, View dW, int threads) {
        py::gil_scoped_release unlocked;
        conv_weight_gradient(geometry(shape, threads), dy, x, dW);
      },
      "shape"_a, "dy"_a, "x"_a, "dW"_a, "threads"_a);
}

void bind_norms(py::module_& m) {
  m.def(
      "batch_norm_forward",
      [](View x, int64_t n, View weight, View bias, double eps, double slope, View y, View mean, View var,
         int threads) {
        const BatchNormCall call{.n = n, .eps = eps, .slope = slope, .threads = threads};
        py::gil_scoped_release unlocked;
        batch_norm_forward(call, {.x = x, .weight = weight, .bias = bias, .y = y, .mean = mean, .var = var});
      },
      "x"_a, "n"_a, "weight"_a, "bias"_a, "eps"_a, "slope"_a, "y"_a, "mean"_a, "var"_a, "threads"_a);
  m.def(
      "batch_norm_backward",
      [](View dy, View y, View x, int64_t n, View weight, View mean, View var, double eps, double slope,
         View dx, View dweight, View dbias, int threads) {
        const BatchNormCall call{.n = n, .eps = eps, .slope = slope, .threads = threads};
        py::gil_scoped_release unlocked;
        batch_norm_backward(call, {.dy = dy,
                                   .y = y,
                                   .x = x,
                                   .weight = weight,
                                   .mean = mean,
                                   .var = var,
                                   .dx = dx,
                                   .dweight = dweight,
                                   .dbias = dbias});
      },
      "dy"_a, "y"_a, "x"_a, "n"_a, "weight"_a, "mean"_a, "var"_a, "eps"_a, "slope"_a, "dx"_a, "dweight"_a,
      "dbias"_a, "threads"_a);
}

}  // namespace

void bind_convolution(py::module_& m) {
  bind_products(m);
  bind_norms(m);
}

}  // namespace fusegen
