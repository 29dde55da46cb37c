// From a backward pass and its plan to the launch of a sequence kernel.
#pragma once
#include <device/launch.h>

#include "../pass.h"
#include "kernel.h"

namespace fusegen::cuda {

using BackwardKernel = void (*)(BackwardArguments);

template <class C, class T, class Fmt>
BackwardKernel backward_kernel_with(int shape, bool resets) {
  static_assert(first_shape(true) == 2);
  if (resets)
    return shape == 2 ? backward_kernel<C, T, Fmt, 1, 2, true> : backward_kernel<C, T, Fmt, 1, 3, true>;
  switch (shape) {
    case 0: return backward_kernel<C, T, Fmt, 1, 0, false>;
    case 1: return backward_kernel<C, T, Fmt, 1, 1, false>;
    case 2: return backward_kernel<C, T, Fmt, 1, 2, false>;
    default: return backward_kernel<C, T, Fmt, 1, 3, false>;
  }
}

template <class T, class Fmt>
BackwardKernel backward_kernel_of(const BackwardPass& pass) {
  const int shape = pass.plan.shape;
  return pass.cell == Cell::lstm  ? backward_kernel_with<Lstm, T, Fmt>(shape, pass.resets)
         : pass.cell == Cell::gru ? backward_kernel_with<Gru, T, Fmt>(shape, pass.resets)
                                  : backward_kernel_with<Rnn, T, Fmt>(shape, pass.resets);
}

inline device::Launch backward_launch(const BackwardPass& pass) {
  const Plan& plan = pass.plan;
  return {.blocks = plan.blocks * plan.groups * pass.D,
          .cluster = plan.transport == Transport::cluster ? plan.blocks : 1,
          .together = plan.transport == Transport::l2,
          .shared_bytes = plan.shared_bytes,
          .stream = pass.stream};
}

// Whether the device can hold at once the blocks that wait for each other.
template <class T, class Fmt>
bool backward_fits(const BackwardPass& pass) {
  return device::resident(backward_kernel_of<T, Fmt>(pass), backward_launch(pass));
}

template <class T, class Fmt>
void run_backward(const BackwardPass& pass, const Workspace& w, unsigned char* memory) {
  const Plan& plan = pass.plan;
  BackwardArguments a{};
  a.pass = pass;
  a.dy = pass.dy ? pass.dy : pass.y;
  a.transport = plan.transport;
  a.blocks = plan.blocks;
  a.slices = plan.slices;
  a.groups = plan.groups;
  a.shared = backward_shared(plan, gate_count(pass.cell), number_bytes(pass.format), pass.resets);
  a.partials = memory + w.exchange;
  a.parity = backward_turn_bytes(plan, pass);
  a.flags = reinterpret_cast<uint32_t*>(memory + w.flags);
  device::launch(backward_kernel_of<T, Fmt>(pass), backward_launch(pass), a);
}

}  // namespace fusegen::cuda
