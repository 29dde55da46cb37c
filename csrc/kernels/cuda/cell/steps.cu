// The maths of a step alone, for every dtype.
#include <device/launch.h>

#include "kernels.h"
#include "pass.h"

namespace fusegen::cuda {
namespace {

template <class Pass>
using CellKernel = void (*)(Pass);

template <class T>
CellKernel<CellForwardPass> forward_of(Cell cell) {
  switch (gate_count(cell)) {
    case 4: return cell_step_kernel<4, T>;
    case 3: return cell_step_kernel<3, T>;
    default: return cell_step_kernel<1, T>;
  }
}

template <class T>
CellKernel<CellBackwardPass> backward_of(Cell cell) {
  switch (gate_count(cell)) {
    case 4: return cell_backward_kernel<4, T>;
    case 3: return cell_backward_kernel<3, T>;
    default: return cell_backward_kernel<1, T>;
  }
}

// A lane for each unit of each row.
template <class Pass>
void start(CellKernel<Pass> kernel, const Pass& pass) {
  const int64_t units = static_cast<int64_t>(pass.B) * pass.H;
  const device::Launch launch{.blocks = ceil_div(units, device::kThreads), .stream = pass.stream};
  device::launch(kernel, launch, pass);
}

}  // namespace

template <class T>
void run_cell_step(const CellForwardPass& pass) {
  start(forward_of<T>(pass.cell), pass);
}

template <class T>
void run_cell_backward(const CellBackwardPass& pass) {
  start(backward_of<T>(pass.cell), pass);
}

Code loaded_code() { return device::code_of(cell_backward_kernel<1, float>); }

template void run_cell_step<float>(const CellForwardPass&);
template void run_cell_step<device::Bf16>(const CellForwardPass&);
template void run_cell_step<device::F16>(const CellForwardPass&);
template void run_cell_backward<float>(const CellBackwardPass&);
template void run_cell_backward<device::Bf16>(const CellBackwardPass&);
template void run_cell_backward<device::F16>(const CellBackwardPass&);

}  // namespace fusegen::cuda
