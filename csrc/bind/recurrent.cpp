#include "tensor_view.h"

#include <pybind11/stl.h>

#include "ops/cuda/cell.h"
#include "ops/cuda/layer.h"
#include "recurrent.h"

namespace fusegen {
namespace {

namespace py = pybind11;

constexpr const char* kTransports[] = {"launch", "block", "l2", "cluster"};

int transport_named(const std::string& name) {
  if (name == "best") return -1;
  for (int i = 0; i < 4; ++i)
    if (name == kTransports[i]) return i;
  throw py::value_error("transport: expected 'best', 'launch', 'block', 'l2' or 'cluster', got '" + name +
                        "'");
}

GpuCall call_of(const std::string& cell, bool relu, bool tf32, const std::string& transport,
                uintptr_t stream) {
  return {cell_named(cell, relu), tf32, transport_named(transport), reinterpret_cast<void*>(stream)};
}

const char* text(cuda::Transport t) { return kTransports[static_cast<int>(t)]; }

cuda::Plan plan(const std::string& cell, const std::string& dtype, bool tf32, bool backward, int64_t B,
                int64_t H, int64_t P, int D, const cuda::Device& device, const std::string& transport) {
  return gpu_plan(call_of(cell, false, tf32, transport, 0), dtype_named(dtype), backward, B, H, P, D, device);
}

py::dict dict_of(const cuda::Plan& p) {
  py::dict d;
  d["transport"] = text(p.transport);
  d["blocks"] = p.blocks;
  d["k_splits"] = p.k_splits;
  d["rows"] = 8 * p.tiles;
  d["slices"] = p.slices;
  d["groups"] = p.groups;
  d["shared_bytes"] = p.shared_bytes;
  d["workspace_bytes"] = p.workspace_bytes;
  d["why"] = p.why;
  return d;
}

}  // namespace

Cell cell_named(const std::string& name, bool relu) {
  if (name == "lstm") return Cell::lstm;
  if (name == "gru") return Cell::gru;
  if (name == "rnn") return relu ? Cell::rnn_relu : Cell::rnn_tanh;
  throw py::value_error("cell: expected 'lstm', 'gru' or 'rnn', got '" + name + "'");
}

Dtype dtype_named(const std::string& name) {
  if (name == "float32") return Dtype::f32;
  if (name == "bfloat16") return Dtype::bf16;
  if (name == "float16") return Dtype::f16;
  if (name == "float64") return Dtype::f64;
  throw py::value_error("dtype: expected 'float32', 'bfloat16', 'float16' or 'float64', got '" + name + "'");
}

void bind_recurrence(py::module_& m) {
  m.def("gpu_plan", [](const std::string& cell, const std::string& dtype, bool tf32, bool backward, int64_t B,
                       int64_t H, int64_t P, int D, int device, const std::string& transport) {
    return dict_of(plan(cell, dtype, tf32, backward, B, H, P, D, cuda::device(device), transport));
  });
  // for a device that need not be here
  m.def("gpu_plan_on",
        [](int sms, int shared_bytes, int major, const std::string& cell, const std::string& dtype, bool tf32,
           bool backward, int64_t B, int64_t H, int64_t P, int D, const std::string& transport) {
          return dict_of(plan(cell, dtype, tf32, backward, B, H, P, D,
                              cuda::device_of(sms, shared_bytes, major), transport));
        });
  // (bytes, the plan's transport): what a call needs of its plan, without the rest
  m.def("gpu_workspace",
        [](const std::string& cell, const std::string& dtype, bool tf32, bool backward, int64_t B, int64_t H,
           int64_t P, int D, int device, const std::string& transport) {
          const cuda::Plan p = plan(cell, dtype, tf32, backward, B, H, P, D, cuda::device(device), transport);
          return std::make_pair(p.workspace_bytes, text(p.transport));
        });
  m.def("gpu_forward",
        [](const std::string& cell, bool relu, bool tf32, const std::string& transport, uintptr_t stream,
           View gx, Views R, Views W_hr, Views b_hn, View h0, View c0, View lengths, View y, View h_n,
           View c_n, View gates, View cells, View workspace, View error) {
          const GpuCall call = call_of(cell, relu, tf32, transport, stream);
          py::gil_scoped_release unlocked;
          return text(gpu_forward(
              call, {gx, R, W_hr, b_hn, h0, c0, lengths, y, h_n, c_n, gates, cells, workspace, error}));
        });
  m.def("gpu_backward",
        [](const std::string& cell, bool relu, bool tf32, const std::string& transport, uintptr_t stream,
           View dy, View dh_n, View dc_n, Views R, Views W_hr, View y, View h0, View c0, View lengths,
           View gates, View cells, View dgates, View dh, View dh0, View dc0, View workspace, View error) {
          const GpuCall call = call_of(cell, relu, tf32, transport, stream);
          py::gil_scoped_release unlocked;
          return text(gpu_backward(call, {dy, dh_n, dc_n, R, W_hr, y, h0, c0, lengths, gates, cells, dgates,
                                          dh, dh0, dc0, workspace, error}));
        });
  m.def("gpu_cell_plan", [](const std::string& cell, const std::string& dtype, bool tf32, int64_t B,
                            int64_t I, int64_t H, int device) {
    const cuda::CellPlan p =
        gpu_cell_plan(cell_named(cell, false), dtype_named(dtype), tf32, B, I, H, device);
    py::dict d;
    d["multiplies"] = p.multiplies;
    d["blocks"] = p.blocks;
    d["k_splits"] = p.k_splits;
    d["rows"] = 8 * p.tiles;
    d["groups"] = p.groups;
    d["shared_bytes"] = p.shared_bytes;
    d["why"] = p.why;
    return d;
  });
  m.def("gpu_cell_forward", [](const std::string& cell, bool relu, bool tf32, uintptr_t stream, View x,
                               View h, View c, View W, View R, View b_ih, View b_hh, View x_gates,
                               View h_gates, View h_out, View c_out, View gates, View cells) {
    const Cell kind = cell_named(cell, relu);
    py::gil_scoped_release unlocked;
    gpu_cell_forward({kind, tf32, reinterpret_cast<void*>(stream), x, h, c, W, R, b_ih, b_hh, x_gates,
                      h_gates, h_out, c_out, gates, cells});
  });
  m.def("gpu_cell_backward",
        [](const std::string& cell, bool relu, uintptr_t stream, View dh, View dc, View h, View c, View h_out,
           View gates, View cells, View dx_gates, View dh_gates, View dh_direct, View dc_in) {
          const Cell kind = cell_named(cell, relu);
          py::gil_scoped_release unlocked;
          gpu_cell_backward({kind, reinterpret_cast<void*>(stream), dh, dc, h, c, h_out, gates, cells,
                             dx_gates, dh_gates, dh_direct, dc_in});
        });
}

}  // namespace fusegen
