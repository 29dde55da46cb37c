// Layers and cells on the CPU, and their packed weights.
#include "ops/cpu/layer.h"

#include "ops/cpu/cell.h"

#include "arguments.h"
#include "bind.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

namespace {

using Packed = std::optional<Views>;
using Given = std::optional<py::tuple>;

void bind_sequences(py::module_& m) {
  m.def(
      "layer_forward",
      [](Cell cell, View x, View h0, View c0, Views weights, View lengths, View y, View h_n, View c_n,
         View gates, View cells, Packed packed, int threads, const Given& inside, int64_t recompute) {
        const LayerForward layer{.cell = cell,
                                 .x = x,
                                 .h0 = h0,
                                 .c0 = c0,
                                 .weights = std::move(weights),
                                 .lengths = lengths,
                                 .y = y,
                                 .h_n = h_n,
                                 .c_n = c_n,
                                 .gates = gates,
                                 .cells = cells,
                                 .packed = std::move(packed).value_or(Views{}),
                                 .threads = threads,
                                 .recompute = recompute,
                                 .inside = read_inside(inside)};
        py::gil_scoped_release unlocked;
        layer_forward(layer);
      },
      "cell"_a, "x"_a, "h0"_a, "c0"_a, "weights"_a, "lengths"_a, "y"_a, "h_n"_a, "c_n"_a, "gates"_a,
      "cells"_a, "packed"_a, "threads"_a, "inside"_a = py::none(), "recompute"_a = 0);
  m.def(
      "layer_backward",
      [](Cell cell, View dy, View dh_n, View dc_n, View x, View h0, View c0, Views weights, View lengths,
         View y, View gates, View cells, View dx, View dh0, View dc0, Views dweights, int threads,
         const Given& inside, View dreset_h, View dreset_c, int64_t recompute, View dgates, View dh) {
        const LayerBackward layer{.cell = cell,
                                  .dy = dy,
                                  .dh_n = dh_n,
                                  .dc_n = dc_n,
                                  .x = x,
                                  .h0 = h0,
                                  .c0 = c0,
                                  .weights = std::move(weights),
                                  .lengths = lengths,
                                  .y = y,
                                  .gates = gates,
                                  .cells = cells,
                                  .dx = dx,
                                  .dh0 = dh0,
                                  .dc0 = dc0,
                                  .dweights = std::move(dweights),
                                  .threads = threads,
                                  .recompute = recompute,
                                  .dgates = dgates,
                                  .dh = dh,
                                  .inside = read_inside(inside),
                                  .dreset_h = dreset_h,
                                  .dreset_c = dreset_c};
        py::gil_scoped_release unlocked;
        layer_backward(layer);
      },
      "cell"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "x"_a, "h0"_a, "c0"_a, "weights"_a, "lengths"_a, "y"_a, "gates"_a,
      "cells"_a, "dx"_a, "dh0"_a, "dc0"_a, "dweights"_a, "threads"_a, "inside"_a = py::none(),
      "dreset_h"_a = py::none(), "dreset_c"_a = py::none(), "recompute"_a = 0, "dgates"_a = py::none(),
      "dh"_a = py::none());
}

void bind_groups(py::module_& m) {
  m.def(
      "layer_group_gradients",
      [](Cell cell, int64_t groups, View x, View h0, Views weights, View lengths, View y, View gates,
         View cells, View dgates, View dh, Views dweights, int threads) {
        const LayerGroups layer{.cell = cell,
                                .groups = groups,
                                .x = x,
                                .h0 = h0,
                                .weights = std::move(weights),
                                .lengths = lengths,
                                .y = y,
                                .gates = gates,
                                .cells = cells,
                                .dgates = dgates,
                                .dh = dh,
                                .dweights = std::move(dweights),
                                .threads = threads};
        py::gil_scoped_release unlocked;
        layer_group_gradients(layer);
      },
      "cell"_a, "groups"_a, "x"_a, "h0"_a, "weights"_a, "lengths"_a, "y"_a, "gates"_a, "cells"_a, "dgates"_a,
      "dh"_a, "dweights"_a, "threads"_a);
}

// A cell has no projection; what is not named is not there of a single step.
void without_projection(Cell cell, Views& weights) {
  if (cell == Cell::lstm) weights.push_back({});
}

void bind_steps(py::module_& m) {
  m.def(
      "cell_forward",
      [](Cell cell, View x, View h, View c, Views weights, View h_out, View c_out, View gates, View cells,
         Packed packed, int threads) {
        without_projection(cell, weights);
        const LayerForward step{.cell = cell,
                                .x = x,
                                .h0 = h,
                                .c0 = c,
                                .weights = std::move(weights),
                                .lengths = {},
                                .y = h_out,
                                .h_n = h_out,
                                .c_n = c_out,
                                .gates = gates,
                                .cells = cells,
                                .packed = std::move(packed).value_or(Views{}),
                                .threads = threads};
        py::gil_scoped_release unlocked;
        cell_forward(step);
      },
      "cell"_a, "x"_a, "h"_a, "c"_a, "weights"_a, "h_out"_a, "c_out"_a, "gates"_a, "cells"_a, "packed"_a,
      "threads"_a);
  m.def(
      "cell_backward",
      [](Cell cell, View dh_out, View dc_out, View x, View h, View c, Views weights, View h_out, View gates,
         View cells, View dx, View dh, View dc, Views dweights, int threads) {
        without_projection(cell, weights);
        without_projection(cell, dweights);
        const LayerBackward step{.cell = cell,
                                 .dy = dh_out,
                                 .dh_n = {},
                                 .dc_n = dc_out,
                                 .x = x,
                                 .h0 = h,
                                 .c0 = c,
                                 .weights = std::move(weights),
                                 .lengths = {},
                                 .y = h_out,
                                 .gates = gates,
                                 .cells = cells,
                                 .dx = dx,
                                 .dh0 = dh,
                                 .dc0 = dc,
                                 .dweights = std::move(dweights),
                                 .threads = threads};
        py::gil_scoped_release unlocked;
        cell_backward(step);
      },
      "cell"_a, "dh_out"_a, "dc_out"_a, "x"_a, "h"_a, "c"_a, "weights"_a, "h_out"_a, "gates"_a, "cells"_a,
      "dx"_a, "dh"_a, "dc"_a, "dweights"_a, "threads"_a);
}

}  // namespace

void bind_layer(py::module_& m) {
  bind_sequences(m);
  bind_groups(m);
  bind_steps(m);
  m.def(
      "weight_drop",
      [](View R, View key, int64_t place, double rate, View out, int threads) {
        py::gil_scoped_release unlocked;
        weight_drop({.R = R, .key = key, .place = place, .rate = rate, .out = out, .threads = threads});
      },
      "R"_a, "key"_a, "place"_a, "rate"_a, "out"_a, "threads"_a);
  m.def(
      "packed_bytes",
      [](Cell cell, int64_t I, int64_t H, int64_t P, Dtype dtype) {
        return packed_bytes(cell, dtype, I, H, P);
      },
      "cell"_a, "I"_a, "H"_a, "P"_a, "dtype"_a);
  m.def(
      "pack",
      [](Cell cell, Views weights, View blob, int threads) {
        py::gil_scoped_release unlocked;
        pack_weights(cell, weights, blob, threads);
      },
      "cell"_a, "weights"_a, "blob"_a, "threads"_a);
}

}  // namespace fusegen
