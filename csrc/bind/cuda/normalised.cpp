// Normalised cells and those whose recurrent matrix is of blocks, on a GPU.
#include "ops/cuda/normalised.h"

#include "bind/arguments.h"
#include "bind/bind.h"
#include "bind/norm.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

namespace {

// A tuple in the order of GpuNormalisedCall's fields; it keeps the tensors alive for the call.
GpuNormalisedCall read_call(const py::tuple& t) {
  if (t.size() != 12) throw py::value_error("call: expected 12 values, got " + std::to_string(t.size()));
  return {.eps = t[0].cast<double>(),
          .R = t[1].cast<Views>(),
          .vectors = t[2].cast<Views>(),
          .h0 = t[3].cast<View>(),
          .c0 = t[4].cast<View>(),
          .lengths = t[5].cast<View>(),
          .resets = t[6].cast<View>(),
          .reset_h = t[7].cast<View>(),
          .reset_c = t[8].cast<View>(),
          .boundaries = t[9].cast<View>(),
          .workspace = t[10].cast<View>(),
          .error = t[11].cast<View>()};
}

}  // namespace

void bind_cuda_normalised(py::module_& m) {
  // Local: fusegen._C and _simt of the tests have each its own.
  py::class_<GpuNormalisedPlan>(m, "GpuNormalisedPlan", py::module_local())
      .def_property_readonly("tiles", [](const GpuNormalisedPlan& p) { return p.plan.tiles; })
      .def_property_readonly("splits", [](const GpuNormalisedPlan& p) { return p.plan.splits; })
      .def_property_readonly("groups", [](const GpuNormalisedPlan& p) { return p.plan.groups; })
      .def_property_readonly("lanes", [](const GpuNormalisedPlan& p) { return 1 << p.plan.log_lanes; })
      .def_property_readonly("workspace_bytes",
                             [](const GpuNormalisedPlan& p) { return p.plan.workspace_bytes; });
  m.def(
      "gpu_normalised_plan",
      [](Cell cell, const std::string& norm, Dtype dtype, bool tf32, bool backward, int64_t B, int64_t H,
         int D, int64_t blocks, int device) {
        return gpu_normalised_plan({.cell = cell,
                                    .norm = read_norm(norm),
                                    .dtype = dtype,
                                    .tf32 = tf32,
                                    .backward = backward,
                                    .B = B,
                                    .H = H,
                                    .D = D,
                                    .blocks = blocks,
                                    .device = device});
      },
      "cell"_a, "norm"_a, "dtype"_a, "tf32"_a, "backward"_a, "B"_a, "H"_a, "D"_a, "blocks"_a, "device"_a);
  m.def(
      "gpu_normalised_forward",
      [](const GpuNormalisedPlan& plan, uintptr_t stream, const py::tuple& call, View gx, View y, View h_n,
         View c_n, View saved, View cells, View stats) {
        GpuNormalisedForward layer{};
        static_cast<GpuNormalisedCall&>(layer) = read_call(call);
        layer.gx = gx;
        layer.y = y;
        layer.h_n = h_n;
        layer.c_n = c_n;
        layer.saved = saved;
        layer.cells = cells;
        layer.stats = stats;
        py::gil_scoped_release unlocked;
        gpu_normalised_forward(plan, reinterpret_cast<void*>(stream), layer);
      },
      "plan"_a, "stream"_a, "call"_a, "gx"_a, "y"_a, "h_n"_a, "c_n"_a, "saved"_a, "cells"_a, "stats"_a);
  m.def(
      "gpu_normalised_backward",
      [](const GpuNormalisedPlan& plan, uintptr_t stream, const py::tuple& call, View dy, View dh_n,
         View dc_n, View y, View saved, View cells, View stats, View dx_part, View dh_part, View dh0,
         View dc0, View dreset_h, View dreset_c, Views dvectors) {
        GpuNormalisedBackward layer{};
        static_cast<GpuNormalisedCall&>(layer) = read_call(call);
        layer.dy = dy;
        layer.dh_n = dh_n;
        layer.dc_n = dc_n;
        layer.y = y;
        layer.saved = saved;
        layer.cells = cells;
        layer.stats = stats;
        layer.dx_part = dx_part;
        layer.dh_part = dh_part;
        layer.dh0 = dh0;
        layer.dc0 = dc0;
        layer.dreset_h = dreset_h;
        layer.dreset_c = dreset_c;
        layer.dvectors = std::move(dvectors);
        py::gil_scoped_release unlocked;
        gpu_normalised_backward(plan, reinterpret_cast<void*>(stream), layer);
      },
      "plan"_a, "stream"_a, "call"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "y"_a, "saved"_a, "cells"_a, "stats"_a,
      "dx_part"_a, "dh_part"_a, "dh0"_a, "dc0"_a, "dreset_h"_a, "dreset_c"_a, "dvectors"_a);
}

}  // namespace fusegen
