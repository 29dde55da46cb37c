// fusegen._C: the engine, as Python sees it.
#include "bind.h"
#include "tensor_view.h"

// Without a GIL too: what calls share is behind a mutex, written once, or torch's.
PYBIND11_MODULE(_C, m, pybind11::mod_gil_not_used()) {
  fusegen::find_torch();
  m.doc() = "The engine of fusegen. Shapes and meanings: csrc/kernels/params.h.";
  fusegen::bind_layer(m);
  fusegen::bind_normalised(m);
  fusegen::bind_int8(m);
  fusegen::bind_stream(m);
  fusegen::bind_discriminator(m);
  fusegen::bind_convolution(m);
  fusegen::bind_machine(m);
  fusegen::bind_cuda_layer(m);
  fusegen::bind_cuda_cell(m);
  fusegen::bind_cuda_normalised(m);
  fusegen::bind_cuda_discriminator(m);
}
