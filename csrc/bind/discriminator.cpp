// The discriminator step of a dense network on the CPU.
#include "ops/cpu/discriminator.h"

#include "arguments.h"
#include "bind.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

void bind_discriminator(py::module_& m) {
  m.def("mlp_saved_bytes", [](const py::tuple& step) { return mlp_saved_bytes(read_step(step)); }, "step"_a);
  m.def(
      "mlp_forward",
      [](const py::tuple& step, View loss, View scalars, View logits, View saved) {
        const MlpCall call = read_step(step);
        py::gil_scoped_release unlocked;
        mlp_forward(call, loss, scalars, logits, saved);
      },
      "step"_a, "loss"_a, "scalars"_a, "logits"_a, "saved"_a);
  m.def(
      "mlp_backward",
      [](const py::tuple& step, double scale, View saved, Views dweights, Views dbiases, View dx_real,
         View dx_fake) {
        const MlpCall call = read_step(step);
        const MlpGradients gradients{.dweights = std::move(dweights),
                                     .dbiases = std::move(dbiases),
                                     .dx_real = dx_real,
                                     .dx_fake = dx_fake};
        py::gil_scoped_release unlocked;
        mlp_backward(call, scale, saved, gradients);
      },
      "step"_a, "scale"_a, "saved"_a, "dweights"_a, "dbiases"_a, "dx_real"_a, "dx_fake"_a);
}

}  // namespace fusegen
