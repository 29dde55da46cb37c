// Stacks of layers that keep their states between calls.
#include "ops/cpu/stream.h"

#include "arguments.h"
#include "bind.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

void bind_stream(py::module_& m) {
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  py::class_<StackStream>(m, "Stream")
      .def(py::init([](Cell cell, const std::vector<Views>& layers, int64_t batch, int threads) {
             py::gil_scoped_release unlocked;
             return std::make_unique<StackStream>(cell, layers, batch, threads);
           }),
           "cell"_a, "layers"_a, "batch"_a, "threads"_a)
      .def("run", &StackStream::run, "x"_a, "y"_a, Unlocked())
      .def("get_states", &StackStream::get_states, "rows"_a, "h"_a, "c"_a, Unlocked())
      .def("set_states", &StackStream::set_states, "rows"_a, "h"_a, "c"_a, Unlocked());
}

}  // namespace fusegen
