// From a pass and its plan to launches: the same for both passes, which differ by their traits.
#pragma once
#include <device/launch.h>

#include "backward.h"
#include "backward/run.h"
#include "forward.h"
#include "forward/kernel.h"
#include "pass.h"

namespace fusegen::cuda {

template <class Pass>
using Kernel = void (*)(Arguments<Pass>);

// -- How the passes differ --

template <class Pass>
struct Traits;

template <>
struct Traits<ForwardPass> {
  template <class C, class T, class Fmt, int NT>
  static Kernel<ForwardPass> kernel(Transport transport) {
    if (transport == Transport::launch) return forward_kernel<C, T, Fmt, NT>;
    return transport == Transport::l2 ? forward_sequence<C, T, Fmt, NT, true>
                                      : forward_sequence<C, T, Fmt, NT, false>;
  }

  // -1: the first hand-over is h0. One launch has it always, since blocks wait for it; with a launch a step
  // an h0 of zero is the workspace as it is at first.
  static constexpr int kFirst = -1;
  static int first(const ForwardPass& pass) { return pass.h0 ? -1 : 0; }
  static int last(const ForwardPass& pass) { return static_cast<int>(pass.T) - 1; }
  static constexpr bool kProjectionFirst = false;

  static ForwardPass cell_half(ForwardPass pass) {
    pass.y = nullptr;
    return pass;
  }
  static ForwardPass projection_half(ForwardPass pass) {
    pass.H = pass.P;
    pass.gx = pass.gates = nullptr;
    pass.cells = nullptr;
    pass.c_n = nullptr;
    return pass;
  }
};

template <>
struct Traits<BackwardPass> {
  template <class C, class T, class Fmt, int NT>
  static Kernel<BackwardPass> kernel(Transport) {
    return backward_kernel<C, T, Fmt, NT>;
  }

  static constexpr int kFirst = 0;
  static int first(const BackwardPass&) { return kFirst; }
  // T only multiplies, which gives dh0.
  static int last(const BackwardPass& pass) { return static_cast<int>(pass.T); }
  static constexpr bool kProjectionFirst = true;

  static BackwardPass cell_half(BackwardPass pass) {
    pass.dy = pass.dh_n = nullptr;
    return pass;
  }
  static BackwardPass projection_half(BackwardPass pass) {
    pass.H = pass.P;
    pass.dgates = pass.dh;
    pass.dc0 = nullptr;
    return pass;
  }
};

// -- What a launch is given --

// Of the plan's blocks, for a product with vectors of `gather_bytes`.
inline Geometry geometry_of(const Plan& plan, const Product& product, int64_t gather_bytes) {
  Geometry g{};
  g.transport = plan.transport;
  g.blocks = plan.blocks;
  g.k_splits = plan.k_splits;
  g.slices = plan.slices;
  g.groups = plan.groups;
  g.resident = plan.transport != Transport::launch;
  g.own_bytes_of_row =
      product.segments * units_of_block(product, plan.k_splits) * number_bytes(product.format);
  g.shared = shared_parts(plan, product, static_cast<int>(gather_bytes));
  return g;
}

inline void set_strides(Arguments<ForwardPass>& a) {
  const ForwardPass& pass = a.pass;
  const int64_t H = pass.H * number_bytes(pass.format), rows = 8 * pass.plan.tiles;
  const auto stride = [&](int64_t row) { return Stride{pass.B * row, rows * row}; };
  a.gx = stride(pass.D * gate_count(pass.cell) * H);
  a.y = stride(pass.D * H);
  a.gates = stride(4 * H);
  a.cells = stride(4 * pass.H);
}
inline void set_strides(Arguments<BackwardPass>&) {}

inline device::Launch launch_of(const Recurrence& pass, const Plan& plan, const Geometry& geometry) {
  return {.blocks = plan.blocks * plan.groups * pass.D,
          .cluster = plan.transport == Transport::cluster ? plan.blocks : 1,
          .together = plan.transport == Transport::l2,
          .shared_bytes = geometry.shared.total,
          .stream = pass.stream};
}

// The kernel for slices of so many tiles: 1, and where most_tiles() allows it 2.
template <class Pass, class C, class T, class Fmt>
Kernel<Pass> kernel_with(const Plan& plan) {
  if constexpr (sizeof(T) == 2 && C::kGates == 1)
    if (plan.tiles == 2) return Traits<Pass>::template kernel<C, T, Fmt, 2>(plan.transport);
  return Traits<Pass>::template kernel<C, T, Fmt, 1>(plan.transport);
}

template <class Pass, class T, class Fmt>
Kernel<Pass> kernel_of(Cell cell, Half half, const Plan& plan) {
  if (half == Half::projection) return kernel_with<Pass, Rnn, T, Fmt>(plan);
  switch (cell) {
    case Cell::lstm: return kernel_with<Pass, Lstm, T, Fmt>(plan);
    case Cell::gru: return kernel_with<Pass, Gru, T, Fmt>(plan);
    case Cell::rnn_tanh:
    case Cell::rnn_relu: break;
  }
  return kernel_with<Pass, Rnn, T, Fmt>(plan);
}

template <class T, class Fmt, class Pass>
void start(const Arguments<Pass>& a, const Plan& plan) {
  device::launch(kernel_of<Pass, T, Fmt>(a.pass.cell, a.half, plan), launch_of(a.pass, plan, a.geometry), a);
}

// -- One launch, or one a step --

// `plan`, or a launch a step where the device cannot hold its blocks at once.
template <class T, class Fmt, class Pass>
Plan plan_that_fits(const Pass& pass) {
  const Plan& plan = pass.plan;
  if (plan.transport == Transport::launch || plan.transport == Transport::block) return plan;
  const Product product = product_of(pass);
  if constexpr (std::is_same_v<Pass, BackwardPass>) {
    if (backward_fits<T, Fmt>(pass)) return plan;
    return choose_stepwise(cuda::device(pass.device), product);
  }
  const Geometry geometry = geometry_of(plan, product, vector_of(plan, product).bytes);
  if (device::resident(kernel_of<Pass, T, Fmt>(pass.cell, Half::both, plan), launch_of(pass, plan, geometry)))
    return plan;
  return choose_stepwise(cuda::device(pass.device), product);
}

template <class T, class Fmt, class Pass>
void run_whole(const Pass& pass, const Workspace& w, unsigned char* memory) {
  const Plan& plan = pass.plan;
  const Product product = product_of(pass);
  const PaddedVector vector = vector_of(plan, product);
  const int64_t copy =
      static_cast<int64_t>(pass.D) * plan.groups * plan.slices * 8 * plan.tiles * vector.bytes;
  Arguments<Pass> a{};
  a.pass = pass;
  a.operand = operand_of(pass.R, pass.D, pass.H, vector, pass.backward);
  a.exchange = {.gather = memory + w.exchange,
                .publish = memory + w.exchange,
                .gather_parity = copy,
                .publish_parity = copy,
                .gather_bytes = static_cast<int>(vector.bytes),
                .publish_bytes = static_cast<int>(vector.bytes),
                .flags = reinterpret_cast<uint32_t*>(memory + w.flags)};
  a.geometry = geometry_of(plan, product, vector.bytes);
  set_strides(a);
  a.half = Half::both;
  a.carry = reinterpret_cast<float*>(memory + w.carry);
  a.first = Traits<Pass>::kFirst;
  a.last = Traits<Pass>::last(pass);
  if (plan.transport != Transport::launch) return start<T, Fmt>(a, plan);
  for (int step = Traits<Pass>::first(pass), last = a.last; step <= last; ++step) {
    a.first = a.last = step;
    start<T, Fmt>(a, plan);
  }
}

// -- A projection: two launches a step --

// Half of a step: it takes a vector and gives one.
template <class Pass>
Arguments<Pass> half_of(const Pass& pass, Half half, const Plan& plan, const PaddedVector& taken) {
  const bool cell = half == Half::cell;
  Arguments<Pass> a{};
  a.half = half;
  a.pass = cell ? Traits<Pass>::cell_half(pass) : Traits<Pass>::projection_half(pass);
  a.operand = operand_of(cell == Traits<Pass>::kProjectionFirst ? pass.W_hr : pass.R, pass.D, a.pass.H, taken,
                         pass.backward);
  a.geometry = geometry_of(plan, cell ? product_of(pass) : projection_of(pass), taken.bytes);
  return a;
}

// Forward: the cell gives o tanh(c), and W_hr times that is h. Backward: R' times the gates' gradients is dh,
// and the cell takes W_hr' dh. What the second half gives goes on to the next step, from one copy to the
// other; what the first gives only to the second, `inner`.
template <class T, class Fmt, class Pass>
void run_projected(const Pass& pass, const Workspace& w, unsigned char* memory) {
  constexpr Half kFirst = Traits<Pass>::kProjectionFirst ? Half::projection : Half::cell;
  constexpr Half kSecond = Traits<Pass>::kProjectionFirst ? Half::cell : Half::projection;
  const Plan outer = choose_stepwise(cuda::device(pass.device), projection_of(pass));
  const auto plan_of = [&](Half half) { return half == Half::cell ? pass.plan : outer; };
  const PaddedVector of_cell = vector_of(pass.plan, product_of(pass)),
                     of_projection = vector_of(outer, projection_of(pass));
  const PaddedVector& inner = kFirst == Half::cell ? of_cell : of_projection;
  const PaddedVector& handed_on = kFirst == Half::cell ? of_projection : of_cell;
  const int64_t copy =
      static_cast<int64_t>(pass.D) * pass.plan.groups * 8 * pass.plan.tiles * handed_on.bytes;
  const auto carry_of = [&](Half half) {
    return reinterpret_cast<float*>(memory + (half == Half::cell ? w.carry : w.inner_carry));
  };

  Arguments<Pass> first = half_of(pass, kFirst, plan_of(kFirst), handed_on);
  first.exchange = {.gather = memory + w.exchange,
                    .publish = memory + w.inner,
                    .gather_parity = copy,
                    .publish_parity = 0,
                    .gather_bytes = static_cast<int>(handed_on.bytes),
                    .publish_bytes = static_cast<int>(inner.bytes),
                    .flags = nullptr};
  first.carry = carry_of(kFirst);

  Arguments<Pass> second = half_of(pass, kSecond, plan_of(kSecond), inner);
  second.exchange = {.gather = memory + w.inner,
                     .publish = memory + w.exchange,
                     .gather_parity = 0,
                     .publish_parity = copy,
                     .gather_bytes = static_cast<int>(inner.bytes),
                     .publish_bytes = static_cast<int>(handed_on.bytes),
                     .flags = nullptr};
  second.carry = carry_of(kSecond);

  for (int step = Traits<Pass>::first(pass); step <= Traits<Pass>::last(pass); ++step)
    for (Arguments<Pass>* a : {&first, &second}) {
      if (a->half == Half::cell && (step < 0 || step >= pass.T))
        continue;  // only hands out h0, only gives dh0
      a->first = a->last = step;
      start<T, Fmt>(*a, plan_of(a->half));
    }
}

template <class T, class Fmt, class Pass>
Transport run(const Pass& given) {
  Pass pass = given;
  pass.plan = plan_that_fits<T, Fmt>(pass);
  auto* memory = static_cast<unsigned char*>(pass.workspace);
  const Workspace w = workspace(cuda::device(pass.device), given.plan, pass);
  const Transport way = pass.plan.transport;
  if constexpr (std::is_same_v<Pass, BackwardPass>) {
    if (way != Transport::launch) {
      if (way == Transport::l2) device::zero(memory + w.flags, w.zeroed - w.flags, pass.stream);
      run_backward<T, Fmt>(pass, w, memory);
      return way;
    }
  }
  if (way == Transport::launch || way == Transport::l2) device::zero(memory, w.zeroed, pass.stream);
  if (pass.P != pass.H) {
    run_projected<T, Fmt>(pass, w, memory);
  } else {
    run_whole<T, Fmt>(pass, w, memory);
  }
  return way;
}

}  // namespace fusegen::cuda
