// Python's way to the discriminator step: on a GPU the same functions in fusegen._C, and in _simt,
// where an emulator runs the kernels.
#pragma once
#include <pybind11/pybind11.h>

#include "ops/discriminator.h"

namespace fusegen {

// A tuple in the order of MlpCall's fields; it keeps the tensors alive for the call.
MlpCall mlp_call(const pybind11::tuple& t);
void bind_gpu_discriminator(pybind11::module_& m);

}  // namespace fusegen
