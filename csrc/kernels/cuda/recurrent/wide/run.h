// From a forward pass whose plan is wide to its launch.
#pragma once
#include <device/launch.h>

#include "kernel.h"
#include "pass.h"

namespace fusegen::cuda::wide {

using Kernel = void (*)(Arguments);

template <class C, class T, class Fmt, bool kAnew>
Kernel kernel_with(const Plan& plan) {
  const bool few = plan.tiles == 4;
  if (plan.k_splits == 2)
    return few ? wide_forward<C, T, Fmt, 2, 32, kAnew> : wide_forward<C, T, Fmt, 2, 64, kAnew>;
  return few ? wide_forward<C, T, Fmt, 1, 32, kAnew> : wide_forward<C, T, Fmt, 1, 64, kAnew>;
}
template <class C, class T, class Fmt>
Kernel kernel_of_cell(const ForwardPass& pass) {
  return pass.resets ? kernel_with<C, T, Fmt, true>(pass.plan) : kernel_with<C, T, Fmt, false>(pass.plan);
}
template <class T, class Fmt>
Kernel kernel_of(const ForwardPass& pass) {
  return pass.cell == Cell::lstm  ? kernel_of_cell<Lstm, T, Fmt>(pass)
         : pass.cell == Cell::gru ? kernel_of_cell<Gru, T, Fmt>(pass)
                                  : kernel_of_cell<Rnn, T, Fmt>(pass);
}

inline device::Launch launch_of(const ForwardPass& pass) {
  const Plan& plan = pass.plan;
  return {.blocks = plan.blocks * plan.groups * pass.D,
          .together = true,
          .shared_bytes = plan.shared_bytes,
          .stream = pass.stream};
}

template <class T, class Fmt>
bool fits(const ForwardPass& pass) {
  return device::resident(kernel_of<T, Fmt>(pass), launch_of(pass));
}

template <class T, class Fmt>
void run(const ForwardPass& pass, const Workspace& w, unsigned char* memory) {
  const Plan& plan = pass.plan;
  const int64_t row = pass.H * number_bytes(pass.format), rows = 8 * plan.tiles;
  const auto stride = [&](int64_t bytes) {
    return Stride{static_cast<uint32_t>(pass.B * bytes), static_cast<uint32_t>(rows * bytes)};
  };
  Arguments a{};
  a.pass = pass;
  a.exchange = {.rows = memory + w.exchange,
                .parity = exchanged_rows(plan, pass) * row,
                .row_bytes = static_cast<int>(row),
                .flags = reinterpret_cast<uint32_t*>(memory + w.flags)};
  a.blocks = plan.blocks;
  a.slices = plan.slices;
  a.groups = plan.groups;
  a.stages = stages(pass.H, plan.k_splits);
  a.shared = shared_parts(plan, product_of(pass));
  a.gx = stride(pass.D * gate_count(pass.cell) * row);
  a.y = stride(pass.D * row);
  a.gates = stride(4 * row);
  a.cells = stride(4 * pass.H);
  device::zero(memory + w.flags, w.zeroed - w.flags, pass.stream);
  device::launch(kernel_of<T, Fmt>(pass), launch_of(pass), a);
}

}  // namespace fusegen::cuda::wide
