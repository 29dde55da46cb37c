// From a step of a cell and its plan to a launch.
#pragma once
#include <device/launch.h>

#include "kernels.h"
#include "pass.h"

namespace fusegen::cuda {
namespace {

// [rows of a gate or of the batch, numbers], to be read in chunks.
inline Operand plain_operand(const void* data, int units, int numbers, int number) {
  const void* const one[2] = {data, nullptr};
  const int64_t bytes = (static_cast<int64_t>(numbers) * number + kChunk - 1) / kChunk * kChunk;
  return operand_of(one, 1, units, {numbers, bytes, number});
}

template <int Gates, class T, class Fmt>
void start_cell(const CellForwardPass& pass) {
  CellArguments a{};
  a.pass = pass;
  a.x = plain_operand(pass.x, pass.B, pass.I, sizeof(T));
  a.W = plain_operand(pass.W, pass.H, pass.I, sizeof(T));
  a.h = plain_operand(pass.h, pass.B, pass.H, sizeof(T));
  a.R = plain_operand(pass.R, pass.H, pass.H, sizeof(T));
  const CellPlan& plan = pass.plan;
  const device::Launch launch{
      .blocks = plan.blocks * plan.groups, .shared_bytes = plan.shared_bytes, .stream = pass.stream};
  device::launch(plan.tiles == 1 ? cell_kernel<Gates, T, Fmt, 1> : cell_kernel<Gates, T, Fmt, 4>, launch, a);
}

}  // namespace

template <class T, class Fmt>
void run_cell(const CellForwardPass& pass) {
  switch (gate_count(pass.cell)) {
    case 4: return start_cell<4, T, Fmt>(pass);
    case 3: return start_cell<3, T, Fmt>(pass);
    default: return start_cell<1, T, Fmt>(pass);
  }
}

}  // namespace fusegen::cuda
