#include "discriminator.h"

#include <pybind11/stl.h>

#include "ops/cuda/discriminator.h"
#include "tensor_view.h"

namespace fusegen {

namespace py = pybind11;

MlpCall mlp_call(const py::tuple& t) {
  if (t.size() != 16) throw py::value_error("step: expected 16 values, got " + std::to_string(t.size()));
  return {
      t[0].cast<std::string>(), t[1].cast<bool>(),   t[2].cast<double>(), t[3].cast<double>(),
      t[4].cast<double>(),      t[5].cast<double>(), t[6].cast<View>(),   t[7].cast<View>(),
      t[8].cast<View>(),        t[9].cast<Views>(),  t[10].cast<Views>(), t[11].cast<std::vector<double>>(),
      t[12].cast<bool>(),       t[13].cast<bool>(),  t[14].cast<bool>(),  t[15].cast<int>()};
}

namespace {

GpuMlpCall call_of(const py::tuple& step, bool tf32, uintptr_t stream = 0) {
  return {mlp_call(step), tf32, reinterpret_cast<void*>(stream)};
}

}  // namespace

void bind_gpu_discriminator(py::module_& m) {
  m.def("gpu_mlp_saved_bytes",
        [](const py::tuple& step) { return gpu_mlp_saved_bytes(call_of(step, false)); });
  m.def("gpu_mlp_workspace_bytes",
        [](const py::tuple& step) { return gpu_mlp_workspace_bytes(call_of(step, false)); });
  m.def("gpu_mlp_forward", [](const py::tuple& step, bool tf32, uintptr_t stream, View loss, View scalars,
                              View logits, View saved) {
    const GpuMlpCall call = call_of(step, tf32, stream);
    py::gil_scoped_release unlocked;
    gpu_mlp_forward(call, loss, scalars, logits, saved);
  });
  m.def("gpu_mlp_backward", [](const py::tuple& step, bool tf32, uintptr_t stream, View scale, View saved,
                               View workspace, Views dweights, Views dbiases, View dx_real, View dx_fake) {
    const GpuMlpCall call = call_of(step, tf32, stream);
    py::gil_scoped_release unlocked;
    gpu_mlp_backward(call, scale, saved, workspace, {dweights, dbiases, dx_real, dx_fake});
  });
}

}  // namespace fusegen
