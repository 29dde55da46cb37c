// Python's way to convolutions and batch norms on the CPU.
#pragma once
#include <pybind11/pybind11.h>

namespace fusegen {

void bind_convolution(pybind11::module_& m);

}  // namespace fusegen
