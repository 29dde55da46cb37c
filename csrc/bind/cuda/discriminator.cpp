// The discriminator step of a dense network on a GPU.
#include "ops/cuda/discriminator.h"

#include "bind/arguments.h"
#include "bind/bind.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

namespace {

GpuMlpCall call_of(const py::tuple& step, bool tf32, uintptr_t stream = 0) {
  return {.step = read_step(step), .tf32 = tf32, .stream = reinterpret_cast<void*>(stream)};
}

constexpr const char* kTiles[] = {"small", "medium", "large", "warpgroups"};

}  // namespace

void bind_cuda_discriminator(py::module_& m) {
  py::class_<cuda::MlpRun>(m, "MlpRun", py::module_local())
      .def_property_readonly("together", [](const cuda::MlpRun& r) { return r.together; })
      .def_property_readonly("tile", [](const cuda::MlpRun& r) { return kTiles[static_cast<int>(r.tile)]; })
      .def_property_readonly("products", [](const cuda::MlpRun& r) { return r.products; })
      .def_property_readonly("bulk", [](const cuda::MlpRun& r) { return r.bulk; })
      .def_property_readonly("torn_tiles", [](const cuda::MlpRun& r) { return r.torn_tiles; });
  m.def(
      "gpu_mlp_saved_bytes", [](const py::tuple& step) { return gpu_mlp_saved_bytes(call_of(step, false)); },
      "step"_a);
  m.def(
      "gpu_mlp_workspace_bytes",
      [](const py::tuple& step) { return gpu_mlp_workspace_bytes(call_of(step, false)); }, "step"_a);
  m.def(
      "gpu_mlp_forward",
      [](const py::tuple& step, bool tf32, uintptr_t stream, View loss, View scalars, View logits,
         View saved) {
        const GpuMlpCall call = call_of(step, tf32, stream);
        py::gil_scoped_release unlocked;
        return gpu_mlp_forward(call, loss, scalars, logits, saved);
      },
      "step"_a, "tf32"_a, "stream"_a, "loss"_a, "scalars"_a, "logits"_a, "saved"_a);
  m.def(
      "gpu_mlp_backward",
      [](const py::tuple& step, bool tf32, uintptr_t stream, View scale, View saved, View workspace,
         Views dweights, Views dbiases, View dx_real, View dx_fake) {
        const GpuMlpCall call = call_of(step, tf32, stream);
        const MlpGradients gradients{.dweights = std::move(dweights),
                                     .dbiases = std::move(dbiases),
                                     .dx_real = dx_real,
                                     .dx_fake = dx_fake};
        py::gil_scoped_release unlocked;
        return gpu_mlp_backward(call, scale, saved, workspace, gradients);
      },
      "step"_a, "tf32"_a, "stream"_a, "scale"_a, "saved"_a, "workspace"_a, "dweights"_a, "dbiases"_a,
      "dx_real"_a, "dx_fake"_a);
}

}  // namespace fusegen
