#include "convolution.h"

#include <array>

#include <pybind11/stl.h>

#include "ops/cpu/convolution.h"
#include "tensor_view.h"

namespace fusegen {

namespace py = pybind11;

namespace {

using Numbers = std::array<int64_t, 9>;  // height and width of input, stride, padding, dilation; groups

ConvGeometry geometry(const Numbers& v, int threads) {
  return {{v[0], v[1]}, {v[2], v[3]}, {v[4], v[5]}, {v[6], v[7]}, v[8], threads};
}

}  // namespace

void bind_convolution(py::module_& m) {
  m.def("conv_lanes", [](bool wide) { return conv_lanes(wide ? Dtype::f64 : Dtype::f32); });
  m.def("conv_forward", [](const Numbers& shape, View x, View W, View b, double slope, View y, int threads) {
    py::gil_scoped_release unlocked;
    conv_forward(geometry(shape, threads), x, W, b, slope, y);
  });
  m.def("conv_input_gradient",
        [](const Numbers& shape, View dy, View W, View below, double slope, View dx, int threads) {
          py::gil_scoped_release unlocked;
          conv_input_gradient(geometry(shape, threads), dy, W, below, slope, dx);
        });
  m.def("conv_weight_gradient", [](const Numbers& shape, View dy, View x, View dW, int threads) {
    py::gil_scoped_release unlocked;
    conv_weight_gradient(geometry(shape, threads), dy, x, dW);
  });
  m.def("batch_norm_forward", [](View x, int64_t n, View weight, View bias, double eps, double slope, View y,
                                 View mean, View var, int threads) {
    py::gil_scoped_release unlocked;
    batch_norm_forward({n, eps, slope, threads}, {x, weight, bias, y, mean, var});
  });
  m.def("batch_norm_backward", [](View dy, View y, View x, int64_t n, View weight, View mean, View var,
                                  double eps, double slope, View dx, View dweight, View dbias, int threads) {
    py::gil_scoped_release unlocked;
    batch_norm_backward({n, eps, slope, threads}, {dy, y, x, weight, mean, var, dx, dweight, dbias});
  });
}

}  // namespace fusegen
