// One step of a cell on a GPU.
#include "ops/cuda/cell.h"

#include "bind/arguments.h"
#include "bind/bind.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

void bind_cuda_cell(py::module_& m) {
  py::class_<GpuCellPlan>(m, "GpuCellPlan", py::module_local())
      .def_property_readonly("multiplies", [](const GpuCellPlan& p) { return p.plan.multiplies; })
      .def_property_readonly("blocks", [](const GpuCellPlan& p) { return p.plan.blocks; })
      .def_property_readonly("k_splits", [](const GpuCellPlan& p) { return p.plan.k_splits; })
      .def_property_readonly("rows", [](const GpuCellPlan& p) { return 8 * p.plan.tiles; })
      .def_property_readonly("groups", [](const GpuCellPlan& p) { return p.plan.groups; })
      .def_property_readonly("shared_bytes", [](const GpuCellPlan& p) { return p.plan.shared_bytes; })
      .def_property_readonly("why", [](const GpuCellPlan& p) { return p.plan.why; });
  m.def(
      "gpu_cell_plan",
      [](Cell cell, Dtype dtype, bool tf32, int64_t B, int64_t I, int64_t H, int device) {
        return gpu_cell_plan(
            {.cell = cell, .dtype = dtype, .tf32 = tf32, .B = B, .I = I, .H = H, .device = device});
      },
      "cell"_a, "dtype"_a, "tf32"_a, "B"_a, "I"_a, "H"_a, "device"_a);
  m.def(
      "gpu_cell_forward",
      [](const GpuCellPlan& plan, uintptr_t stream, View x, View h, View c, View W, View R, View b_ih,
         View b_hh, View x_gates, View h_gates, View h_out, View c_out, View gates, View cells) {
        const GpuCellForward step{.x = x,
                                  .h = h,
                                  .c = c,
                                  .W = W,
                                  .R = R,
                                  .b_ih = b_ih,
                                  .b_hh = b_hh,
                                  .x_gates = x_gates,
                                  .h_gates = h_gates,
                                  .h_out = h_out,
                                  .c_out = c_out,
                                  .gates = gates,
                                  .cells = cells};
        py::gil_scoped_release unlocked;
        gpu_cell_forward(plan, reinterpret_cast<void*>(stream), step);
      },
      "plan"_a, "stream"_a, "x"_a, "h"_a, "c"_a, "W"_a, "R"_a, "b_ih"_a, "b_hh"_a, "x_gates"_a, "h_gates"_a,
      "h_out"_a, "c_out"_a, "gates"_a, "cells"_a);
  m.def(
      "gpu_cell_backward",
      [](Cell cell, uintptr_t stream, View dh, View dc, View h, View c, View h_out, View gates, View cells,
         View dx_gates, View dh_gates, View dh_direct, View dc_in) {
        const GpuCellBackward step{.cell = cell,
                                   .dh = dh,
                                   .dc = dc,
                                   .h = h,
                                   .c = c,
                                   .h_out = h_out,
                                   .gates = gates,
                                   .cells = cells,
                                   .dx_gates = dx_gates,
                                   .dh_gates = dh_gates,
                                   .dh_direct = dh_direct,
                                   .dc_in = dc_in};
        py::gil_scoped_release unlocked;
        gpu_cell_backward(reinterpret_cast<void*>(stream), step);
      },
      "cell"_a, "stream"_a, "dh"_a, "dc"_a, "h"_a, "c"_a, "h_out"_a, "gates"_a, "cells"_a, "dx_gates"_a,
      "dh_gates"_a, "dh_direct"_a, "dc_in"_a);
}

}  // namespace fusegen
