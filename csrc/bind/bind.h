// What Python sees of the engine, a file for each subject. Python allocates every output; the GIL is released
// while kernels run. The arguments are named here and in python/fusegen/_C.pyi, which a test holds to this.
#pragma once
#include <pybind11/pybind11.h>

namespace fusegen {

void bind_layer(pybind11::module_& m);
void bind_normalised(pybind11::module_& m);
void bind_int8(pybind11::module_& m);
void bind_stream(pybind11::module_& m);
void bind_discriminator(pybind11::module_& m);
void bind_convolution(pybind11::module_& m);
void bind_machine(pybind11::module_& m);

// In fusegen._C, and in _simt of the tests, where an emulator runs the kernels.
void bind_cuda_layer(pybind11::module_& m);
void bind_cuda_cell(pybind11::module_& m);
void bind_cuda_normalised(pybind11::module_& m);
void bind_cuda_discriminator(pybind11::module_& m);

}  // namespace fusegen
