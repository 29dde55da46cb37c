// Python's way to the GPU's recurrence: the same functions in fusegen._C, and in _simt, where an
// emulator runs the kernels.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

#include "kernels/params.h"

namespace fusegen {

Cell cell_named(const std::string& name, bool relu = false);
Dtype dtype_named(const std::string& name);
void bind_recurrence(pybind11::module_& m);

}  // namespace fusegen
