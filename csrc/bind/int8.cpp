// Layers whose weights have 8 bits.
#include "ops/cpu/int8.h"

#include "arguments.h"
#include "bind.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

namespace {

// W, R, W_hr, then their scales, then the biases.
Int8WeightViews read_weights(Cell cell, const Views& weights, bool weight_only) {
  if (weights.size() != 8)
    throw py::value_error("weights: expected 8 tensors or None, got " + std::to_string(weights.size()));
  return {.cell = cell,
          .W = weights[0],
          .R = weights[1],
          .W_hr = weights[2],
          .s_W = weights[3],
          .s_R = weights[4],
          .s_hr = weights[5],
          .b_ih = weights[6],
          .b_hh = weights[7],
          .weight_only = weight_only};
}

}  // namespace

void bind_int8(py::module_& m) {
  m.def(
      "int8_packed_bytes",
      [](Cell cell, Views weights, bool weight_only) {
        return int8_packed_bytes(read_weights(cell, weights, weight_only));
      },
      "cell"_a, "weights"_a, "weight_only"_a);
  m.def(
      "int8_pack",
      [](Cell cell, Views weights, bool weight_only, View blob) {
        const Int8WeightViews read = read_weights(cell, weights, weight_only);
        py::gil_scoped_release unlocked;
        int8_pack(read, blob);
      },
      "cell"_a, "weights"_a, "weight_only"_a, "blob"_a);
  m.def(
      "int8_layer",
      [](Cell cell, View x, View h0, View c0, Views packed, std::tuple<int64_t, int64_t, bool, bool> form,
         View lengths, View y, View h_n, View c_n, int threads) {
        const auto [hidden, output, project, weight_only] = form;
        const Int8Layer layer{.cell = cell,
                              .x = x,
                              .h0 = h0,
                              .c0 = c0,
                              .packed = std::move(packed),
                              .hidden = hidden,
                              .output = output,
                              .project = project,
                              .weight_only = weight_only,
                              .lengths = lengths,
                              .y = y,
                              .h_n = h_n,
                              .c_n = c_n,
                              .threads = threads};
        py::gil_scoped_release unlocked;
        int8_layer(layer);
      },
      "cell"_a, "x"_a, "h0"_a, "c0"_a, "packed"_a, "form"_a, "lengths"_a, "y"_a, "h_n"_a, "c_n"_a,
      "threads"_a);
  m.def(
      "int8_linear_bytes",
      [](View weight, View scale, View bias, bool weight_only) {
        return int8_linear_bytes({weight, scale, bias, weight_only});
      },
      "weight"_a, "scale"_a, "bias"_a, "weight_only"_a);
  m.def(
      "int8_linear_pack",
      [](View weight, View scale, View bias, bool weight_only, View blob) {
        py::gil_scoped_release unlocked;
        int8_linear_pack({weight, scale, bias, weight_only}, blob);
      },
      "weight"_a, "scale"_a, "bias"_a, "weight_only"_a, "blob"_a);
  m.def(
      "int8_linear",
      [](View x, View packed, bool weight_only, View y, int threads) {
        py::gil_scoped_release unlocked;
        int8_linear(x, packed, weight_only, y, threads);
      },
      "x"_a, "packed"_a, "weight_only"_a, "y"_a, "threads"_a);
}

}  // namespace fusegen
