// From a pass and its plan to its launches.
#pragma once
#include <device/launch.h>

#include "backward/run.h"
#include "forward/kernel.h"
#include "pass.h"
#include "stepwise/pass.h"
#include "wide/pass.h"

namespace fusegen::cuda {

// -- Forward's one launch --

using ForwardKernel = void (*)(Arguments<ForwardPass>);

// Of the plan's blocks, for a product with vectors of `row_bytes`.
inline Geometry geometry_of(const Plan& plan, const Product& product, int64_t row_bytes) {
  Geometry g{};
  g.transport = plan.transport;
  g.blocks = plan.blocks;
  g.k_splits = plan.k_splits;
  g.slices = plan.slices;
  g.groups = plan.groups;
  g.own_bytes_of_row = units_of_block(product, plan.k_splits) * number_bytes(product.format);
  g.shared = shared_parts(plan, product, static_cast<int>(row_bytes));
  return g;
}

inline void set_strides(Arguments<ForwardPass>& a) {
  const ForwardPass& pass = a.pass;
  const int64_t H = pass.H * number_bytes(pass.format), rows = 8 * pass.plan.tiles;
  const auto stride = [&](int64_t row) {
    return Stride{static_cast<uint32_t>(pass.B * row), static_cast<uint32_t>(rows * row)};
  };
  a.gx = stride(pass.D * gate_count(pass.cell) * H);
  a.y = stride(pass.D * H);
  a.gates = stride(4 * H);
  a.cells = stride(4 * pass.H);
}

inline device::Launch launch_of(const ForwardPass& pass, const Geometry& geometry) {
  const Plan& plan = pass.plan;
  return {.blocks = plan.blocks * plan.groups * pass.D,
          .cluster = plan.transport == Transport::cluster ? plan.blocks : 1,
          .together = plan.transport == Transport::l2,
          .shared_bytes = geometry.shared.total,
          .stream = pass.stream};
}

// The kernel for slices of so many tiles: 1, and where most_tiles() allows it 2.
template <class C, class T, class Fmt, int NT, bool kAnew>
ForwardKernel forward_kernel_with(Transport transport) {
  return transport == Transport::l2 ? forward_sequence<C, T, Fmt, NT, true, kAnew>
                                    : forward_sequence<C, T, Fmt, NT, false, kAnew>;
}
template <class C, class T, class Fmt>
ForwardKernel forward_kernel_with(const ForwardPass& pass) {
  const Transport transport = pass.plan.transport;
  if (pass.resets) return forward_kernel_with<C, T, Fmt, 1, true>(transport);
  if constexpr (sizeof(T) == 2)
    if (pass.plan.tiles == 2) return forward_kernel_with<C, T, Fmt, 2, false>(transport);
  return forward_kernel_with<C, T, Fmt, 1, false>(transport);
}

template <class T, class Fmt>
ForwardKernel forward_kernel_of(const ForwardPass& pass) {
  return pass.cell == Cell::lstm  ? forward_kernel_with<Lstm, T, Fmt>(pass)
         : pass.cell == Cell::gru ? forward_kernel_with<Gru, T, Fmt>(pass)
                                  : forward_kernel_with<Rnn, T, Fmt>(pass);
}

template <class T, class Fmt>
bool sequence_fits(const ForwardPass& pass) {
  if constexpr (sizeof(T) == 2)
    if (wide::is_wide(pass.plan)) return wide::fits<T, Fmt>(pass);
  const Product product = product_of(pass);
  const Geometry geometry = geometry_of(pass.plan, product, vector_of(pass.plan, product).bytes);
  return device::resident(forward_kernel_of<T, Fmt>(pass), launch_of(pass, geometry));
}

template <class T, class Fmt>
void run_sequence(const ForwardPass& pass, const Workspace& w, unsigned char* memory) {
  if constexpr (sizeof(T) == 2)
    if (wide::is_wide(pass.plan)) return wide::run<T, Fmt>(pass, w, memory);
  const Plan& plan = pass.plan;
  const Product product = product_of(pass);
  const PaddedVector vector = vector_of(plan, product);
  const int64_t copy =
      static_cast<int64_t>(pass.D) * plan.groups * plan.slices * 8 * plan.tiles * vector.bytes;
  Arguments<ForwardPass> a{};
  a.pass = pass;
  a.operand = operand_of(pass.R, pass.D, pass.H, vector);
  a.exchange = {.rows = memory + w.exchange,
                .parity = copy,
                .row_bytes = static_cast<int>(vector.bytes),
                .flags = reinterpret_cast<uint32_t*>(memory + w.flags)};
  a.geometry = geometry_of(plan, product, vector.bytes);
  set_strides(a);
  if (plan.transport == Transport::l2) device::zero(memory, w.zeroed, pass.stream);
  device::launch(forward_kernel_of<T, Fmt>(pass), launch_of(pass, a.geometry), a);
}

// -- Backward's --

template <class T, class Fmt>
bool sequence_fits(const BackwardPass& pass) {
  return backward_fits<T, Fmt>(pass);
}
template <class T, class Fmt>
void run_sequence(const BackwardPass& pass, const Workspace& w, unsigned char* memory) {
  if (pass.plan.transport == Transport::l2) device::zero(memory + w.flags, w.zeroed - w.flags, pass.stream);
  run_backward<T, Fmt>(pass, w, memory);
}

// -- Of either --

// The pass's plan, or the next one that the device can hold: blocks of a cluster that does not fit (MIG, code
// from before sm_90) may still be resident without it, and hand on through L2; else a launch a step. The
// workspace has room for any of them.
template <class T, class Fmt, class Pass>
Plan plan_that_fits(Pass pass) {
  const auto holds = [](const Pass& p) {
    const Transport t = p.plan.transport;
    const bool alone = t == Transport::launch || t == Transport::block;  // no block waits for another
    return alone || sequence_fits<T, Fmt>(p);
  };
  const Device device = cuda::device(pass.device);
  if (holds(pass)) return pass.plan;
  if (pass.plan.transport == Transport::cluster) {
    pass.plan = choose(device, pass, static_cast<int>(Transport::l2));
    if (holds(pass)) return pass.plan;
  }
  return choose(device, pass, static_cast<int>(Transport::launch));
}

template <class T, class Fmt, class Pass>
Transport run(const Pass& given) {
  Pass pass = given;
  pass.plan = plan_that_fits<T, Fmt>(given);
  if (pass.plan.transport == Transport::launch) {
    stepwise::run<T, Fmt>(pass);
  } else {
    run_sequence<T, Fmt>(pass, workspace(cuda::device(pass.device), pass.plan, pass),
                         static_cast<unsigned char*>(pass.workspace));
  }
  return pass.plan.transport;
}

}  // namespace fusegen::cuda
