// The recurrence of a layer on a GPU.
#include "ops/cuda/layer.h"

#include <algorithm>
#include <optional>

#include "bind/arguments.h"
#include "bind/bind.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

namespace {

constexpr const char* kTransports[] = {"launch", "block", "l2", "cluster"};

int transport_named(const std::string& name) {
  if (name == "best") return -1;
  for (int i = 0; i < 4; ++i)
    if (name == kTransports[i]) return i;
  throw py::value_error("transport: expected 'best', 'launch', 'block', 'l2' or 'cluster', got '" + name +
                        "'");
}

const char* name_of(cuda::Transport t) { return kTransports[static_cast<int>(t)]; }

using Given = std::optional<py::tuple>;

// None, or a tuple in the order of GpuInside's fields.
GpuInside read_gpu_inside(const Given& inside) {
  if (!inside) return {};
  const py::tuple& t = *inside;
  if (t.size() != 8) throw py::value_error("inside: expected 8 values, got " + std::to_string(t.size()));
  const auto rates = t[5].cast<std::vector<double>>();
  if (!rates.empty() && rates.size() != 4)
    throw py::value_error("rates: expected 4 numbers or none, got " + std::to_string(rates.size()));
  GpuInside read{.resets = t[0].cast<View>(),
                 .reset_h = t[1].cast<View>(),
                 .reset_c = t[2].cast<View>(),
                 .boundaries = t[3].cast<View>(),
                 .key = t[4].cast<View>(),
                 .layer = t[6].cast<int64_t>(),
                 .training = t[7].cast<bool>()};
  std::copy(rates.begin(), rates.end(), read.rates.begin());
  return read;
}

void bind_plans(py::module_& m) {
  // Local: fusegen._C and _simt of the tests have each its own.
  py::class_<GpuPlan>(m, "GpuPlan", py::module_local())
      .def_property_readonly("transport", [](const GpuPlan& p) { return name_of(p.plan.transport); })
      .def_property_readonly("blocks", [](const GpuPlan& p) { return p.plan.blocks; })
      .def_property_readonly("k_splits", [](const GpuPlan& p) { return p.plan.k_splits; })
      .def_property_readonly("rows", [](const GpuPlan& p) { return 8 * p.plan.tiles; })
      .def_property_readonly("slices", [](const GpuPlan& p) { return p.plan.slices; })
      .def_property_readonly("groups", [](const GpuPlan& p) { return p.plan.groups; })
      .def_property_readonly("shared_bytes", [](const GpuPlan& p) { return p.plan.shared_bytes; })
      .def_property_readonly("workspace_bytes", [](const GpuPlan& p) { return p.plan.workspace_bytes; })
      .def_property_readonly("why", [](const GpuPlan& p) { return p.plan.why; });
  m.def(
      "gpu_code",
      [](int device) {
        const cuda::Code c = cuda::code(device);
        return std::make_pair(c.binary, c.ptx);
      },
      "device"_a);
  m.def(
      "gpu_plan",
      [](Cell cell, Dtype dtype, bool tf32, bool backward, int64_t B, int64_t H, int64_t P, int D, int device,
         const std::string& transport, bool resets, bool masked) {
        const GpuPass pass{.cell = cell,
                           .dtype = dtype,
                           .tf32 = tf32,
                           .backward = backward,
                           .B = B,
                           .H = H,
                           .P = P,
                           .D = D,
                           .device = device,
                           .resets = resets,
                           .masked = masked};
        return gpu_plan(pass, cuda::device(device), transport_named(transport));
      },
      "cell"_a, "dtype"_a, "tf32"_a, "backward"_a, "B"_a, "H"_a, "P"_a, "D"_a, "device"_a, "transport"_a,
      "resets"_a = false, "masked"_a = false);
  m.def(
      "gpu_mask",
      [](uintptr_t stream, View key, uint32_t mask, uint32_t place, double rate, View dropped) {
        gpu_mask({mask, place, rate, key, dropped}, reinterpret_cast<void*>(stream));
      },
      "stream"_a, "key"_a, "mask"_a, "place"_a, "rate"_a, "dropped"_a);
  m.def("gpu_boundary_bytes", &gpu_boundary_bytes, "T"_a, "B"_a, "D"_a);
  m.def(
      "gpu_plan_on",
      [](int sms, int shared_bytes, int major, int code, Cell cell, Dtype dtype, bool tf32, bool backward,
         int64_t B, int64_t H, int64_t P, int D, const std::string& transport, bool resets, bool masked) {
        const GpuPass pass{.cell = cell,
                           .dtype = dtype,
                           .tf32 = tf32,
                           .backward = backward,
                           .B = B,
                           .H = H,
                           .P = P,
                           .D = D,
                           .device = kNoDevice,
                           .resets = resets,
                           .masked = masked};
        return gpu_plan(pass, cuda::device_of(sms, shared_bytes, major, code), transport_named(transport));
      },
      "sms"_a, "shared_bytes"_a, "major"_a, "code"_a, "cell"_a, "dtype"_a, "tf32"_a, "backward"_a, "B"_a,
      "H"_a, "P"_a, "D"_a, "transport"_a, "resets"_a = false, "masked"_a = false);
}

}  // namespace

void bind_cuda_layer(py::module_& m) {
  bind_plans(m);
  m.def(
      "gpu_forward",
      [](const GpuPlan& plan, uintptr_t stream, int64_t patience, View gx, Views R, Views W_hr, Views b_hn,
         View h0, View c0, View lengths, View y, View h_n, View c_n, View gates, View cells, View workspace,
         View error, const Given& inside) {
        const GpuForward layer{.gx = gx,
                               .R = std::move(R),
                               .W_hr = std::move(W_hr),
                               .b_hn = std::move(b_hn),
                               .h0 = h0,
                               .c0 = c0,
                               .lengths = lengths,
                               .y = y,
                               .h_n = h_n,
                               .c_n = c_n,
                               .gates = gates,
                               .cells = cells,
                               .workspace = workspace,
                               .error = error,
                               .inside = read_gpu_inside(inside)};
        py::gil_scoped_release unlocked;
        return name_of(gpu_forward(plan, {reinterpret_cast<void*>(stream), patience}, layer));
      },
      "plan"_a, "stream"_a, "patience"_a, "gx"_a, "R"_a, "W_hr"_a, "b_hn"_a, "h0"_a, "c0"_a, "lengths"_a,
      "y"_a, "h_n"_a, "c_n"_a, "gates"_a, "cells"_a, "workspace"_a, "error"_a, "inside"_a = py::none());
  m.def(
      "gpu_backward",
      [](const GpuPlan& plan, uintptr_t stream, int64_t patience, View dy, View dh_n, View dc_n, Views R,
         Views W_hr, View y, View h0, View c0, View lengths, View gates, View cells, View dgates, View dh,
         View dh0, View dc0, View workspace, View error, const Given& inside, View dreset_h, View dreset_c) {
        const GpuBackward layer{.dy = dy,
                                .dh_n = dh_n,
                                .dc_n = dc_n,
                                .R = std::move(R),
                                .W_hr = std::move(W_hr),
                                .y = y,
                                .h0 = h0,
                                .c0 = c0,
                                .lengths = lengths,
                                .gates = gates,
                                .cells = cells,
                                .dgates = dgates,
                                .dh = dh,
                                .dh0 = dh0,
                                .dc0 = dc0,
                                .workspace = workspace,
                                .error = error,
                                .inside = read_gpu_inside(inside),
                                .dreset_h = dreset_h,
                                .dreset_c = dreset_c};
        py::gil_scoped_release unlocked;
        return name_of(gpu_backward(plan, {reinterpret_cast<void*>(stream), patience}, layer));
      },
      "plan"_a, "stream"_a, "patience"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "R"_a, "W_hr"_a, "y"_a, "h0"_a, "c0"_a,
      "lengths"_a, "gates"_a, "cells"_a, "dgates"_a, "dh"_a, "dh0"_a, "dc0"_a, "workspace"_a, "error"_a,
      "inside"_a = py::none(), "dreset_h"_a = py::none(), "dreset_c"_a = py::none());
}

}  // namespace fusegen
