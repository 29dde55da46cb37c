#pragma once
#include "backward.h"
#include "run.h"

namespace fusegen::cuda {
namespace {

// The kernel for slices of so many tiles: 1, and where most_tiles() allows it 2.
template <int Gates, class T, class Fmt>
Kernel<BackwardArguments> backward_with(int tiles) {
  if constexpr (sizeof(T) == 2 && Gates == 1)
    if (tiles == 2) return backward_kernel<Gates, T, Fmt, 2>;
  return backward_kernel<Gates, T, Fmt, 1>;
}

template <class T, class Fmt>
Kernel<BackwardArguments> backward_of(Kind kind, int tiles) {
  switch (gates_of(kind)) {
    case 4: return backward_with<4, T, Fmt>(tiles);
    case 3: return backward_with<3, T, Fmt>(tiles);
    default: return backward_with<1, T, Fmt>(tiles);
  }
}

template <class T, class Fmt>
void start(const BackwardArguments& a, const Plan& plan) {
  device::launch(backward_of<T, Fmt>(a.pass.kind, plan.tiles), launch_of(a.pass, plan, a.place), a);
}

// Two launches a step: dh, then W_hr' dh and the cell.
template <class T, class Fmt>
void run_projected(const BackwardPass& pass, const Workspace& w, unsigned char* memory) {
  const Device on = cuda::device(pass.device);
  const Plan plan = pass.plan,
             outer = choose_stepwise(on, Kind::identity, pass.format, true, pass.B, pass.P, pass.D);
  const int64_t gates_bytes = row_bytes(plan, pass.kind, pass.format, true),
                dh_bytes = row_bytes(outer, Kind::identity, pass.format, true);
  const int64_t rows = static_cast<int64_t>(pass.D) * plan.groups * 8 * plan.tiles;
  const int number = sizeof(T);

  BackwardArguments project{};
  project.pass = pass;
  project.pass.kind = Kind::identity;
  project.pass.H = pass.P;
  project.pass.dgates = pass.dh;
  project.pass.dc0 = nullptr;
  project.operand =
      operand_of(pass.A, pass.D, pass.P, 4, pass.H, padded_units(plan, pass.kind, true), gates_bytes, number);
  project.exchange = {
      memory + w.exchange,        memory + w.inner, rows * gates_bytes, 0, static_cast<int>(gates_bytes),
      static_cast<int>(dh_bytes), nullptr};
  project.place = place_of(outer, Kind::identity, pass.format, true, project.operand.chunks);
  project.carry = reinterpret_cast<float*>(memory + w.inner_carry);

  BackwardArguments gates{};
  gates.pass = pass;
  gates.pass.dy = gates.pass.dh_n = nullptr;
  gates.operand = operand_of(pass.W_hr, pass.D, pass.H, 1, pass.P, padded_units(outer, Kind::identity, true),
                             dh_bytes, number);
  gates.exchange = {memory + w.inner,           memory + w.exchange,           0,      rows * gates_bytes,
                    static_cast<int>(dh_bytes), static_cast<int>(gates_bytes), nullptr};
  gates.place = place_of(plan, pass.kind, pass.format, true, gates.operand.chunks);
  gates.carry = reinterpret_cast<float*>(memory + w.carry);
  gates.project = true;

  for (int step = 0; step <= pass.T; ++step) {
    gates.first = gates.last = project.first = project.last = step;
    start<T, Fmt>(project, outer);
    if (step < pass.T) start<T, Fmt>(gates, plan);
  }
}

}  // namespace

template <class T, class Fmt>
Transport run_backward(const BackwardPass& given) {
  BackwardPass pass = given;
  pass.plan = plan_that_fits<BackwardArguments>(pass, true, backward_of<T, Fmt>);
  const Plan& plan = pass.plan;
  auto* memory = static_cast<unsigned char*>(pass.workspace);
  const Workspace w = workspace(cuda::device(pass.device), given.plan, pass.kind, pass.format, true, pass.B,
                                pass.H, pass.P, pass.D);
  if (plan.transport == Transport::launch || plan.transport == Transport::l2)
    device::zero(memory, w.zeroed, pass.stream);
  if (pass.P != pass.H) {
    run_projected<T, Fmt>(pass, w, memory);
    return plan.transport;
  }

  const int64_t bytes = row_bytes(plan, pass.kind, pass.format, true);
  const int64_t parity = static_cast<int64_t>(pass.D) * plan.groups * plan.slices * 8 * plan.tiles * bytes;
  BackwardArguments a{};
  a.pass = pass;
  a.operand = operand_of(pass.A, pass.D, pass.H, gates_of(pass.kind), pass.H,
                         padded_units(plan, pass.kind, true), bytes, sizeof(T));
  a.exchange = {memory + w.exchange,
                memory + w.exchange,
                parity,
                parity,
                static_cast<int>(bytes),
                static_cast<int>(bytes),
                reinterpret_cast<uint32_t*>(memory + w.flags)};
  a.place = place_of(plan, pass.kind, pass.format, true, a.operand.chunks);
  a.carry = reinterpret_cast<float*>(memory + w.carry);
  a.first = 0;
  a.last = static_cast<int>(pass.T);
  if (plan.transport != Transport::launch) {
    start<T, Fmt>(a, plan);
    return plan.transport;
  }
  for (int step = 0; step <= pass.T; ++step) {
    a.first = a.last = step;
    start<T, Fmt>(a, plan);
  }
  return plan.transport;
}

}  // namespace fusegen::cuda
