// Normalised cells and those whose recurrent matrix is of blocks, on the CPU.
#include "ops/cpu/normalised.h"

#include "arguments.h"
#include "bind.h"
#include "norm.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

namespace {

// A tuple in the order of NormalisedCall's fields; it keeps the tensors alive for the call.
NormalisedCall read_call(const py::tuple& t) {
  if (t.size() != 13) throw py::value_error("call: expected 13 values, got " + std::to_string(t.size()));
  return {.cell = t[0].cast<Cell>(),
          .norm = read_norm(t[1].cast<std::string>()),
          .blocks = t[2].cast<int64_t>(),
          .eps = t[3].cast<double>(),
          .x = t[4].cast<View>(),
          .h0 = t[5].cast<View>(),
          .c0 = t[6].cast<View>(),
          .weights = t[7].cast<Views>(),
          .lengths = t[8].cast<View>(),
          .resets = t[9].cast<View>(),
          .reset_h = t[10].cast<View>(),
          .reset_c = t[11].cast<View>(),
          .threads = t[12].cast<int>()};
}

}  // namespace

void bind_normalised(py::module_& m) {
  m.def(
      "normalised_forward",
      [](const py::tuple& call, View y, View h_n, View c_n, View saved, View cells, View stats) {
        NormalisedLayerForward layer{};
        static_cast<NormalisedCall&>(layer) = read_call(call);
        layer.y = y;
        layer.h_n = h_n;
        layer.c_n = c_n;
        layer.saved = saved;
        layer.cells = cells;
        layer.stats = stats;
        py::gil_scoped_release unlocked;
        normalised_forward(layer);
      },
      "call"_a, "y"_a, "h_n"_a, "c_n"_a, "saved"_a, "cells"_a, "stats"_a);
  m.def(
      "normalised_backward",
      [](const py::tuple& call, View dy, View dh_n, View dc_n, View y, View saved, View cells, View stats,
         View dx, View dh0, View dc0, View dreset_h, View dreset_c, Views dweights) {
        NormalisedLayerBackward layer{};
        static_cast<NormalisedCall&>(layer) = read_call(call);
        layer.dy = dy;
        layer.dh_n = dh_n;
        layer.dc_n = dc_n;
        layer.y = y;
        layer.saved = saved;
        layer.cells = cells;
        layer.stats = stats;
        layer.dx = dx;
        layer.dh0 = dh0;
        layer.dc0 = dc0;
        layer.dreset_h = dreset_h;
        layer.dreset_c = dreset_c;
        layer.dweights = std::move(dweights);
        py::gil_scoped_release unlocked;
        normalised_backward(layer);
      },
      "call"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "y"_a, "saved"_a, "cells"_a, "stats"_a, "dx"_a, "dh0"_a, "dc0"_a,
      "dreset_h"_a, "dreset_c"_a, "dweights"_a);
}

}  // namespace fusegen
