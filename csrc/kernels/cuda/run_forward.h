#pragma once
#include "forward.h"
#include "run.h"

namespace fusegen::cuda {
namespace {

// The kernel for slices of so many tiles: 1, and where most_tiles() allows it 2.
template <int Gates, class T, class Fmt>
Kernel<ForwardArguments> forward_with(int tiles) {
  if constexpr (sizeof(T) == 2 && Gates == 1)
    if (tiles == 2) return forward_kernel<Gates, T, Fmt, 2>;
  return forward_kernel<Gates, T, Fmt, 1>;
}

template <class T, class Fmt>
Kernel<ForwardArguments> forward_of(Kind kind, int tiles) {
  switch (gates_of(kind)) {
    case 4: return forward_with<4, T, Fmt>(tiles);
    case 3: return forward_with<3, T, Fmt>(tiles);
    default: return forward_with<1, T, Fmt>(tiles);
  }
}

template <class T, class Fmt>
void start(const ForwardArguments& a, const Plan& plan) {
  device::launch(forward_of<T, Fmt>(a.pass.kind, plan.tiles), launch_of(a.pass, plan, a.place), a);
}

// Two launches a step: gates and o tanh(c), then W_hr times that.
template <class T, class Fmt>
void run_projected(const ForwardPass& pass, const Workspace& w, unsigned char* memory) {
  const Device on = cuda::device(pass.device);
  const Plan plan = pass.plan,
             outer = choose_stepwise(on, Kind::identity, pass.format, false, pass.B, pass.P, pass.D);
  const int64_t h_bytes = row_bytes(outer, Kind::identity, pass.format, false),
                m_bytes = row_bytes(plan, pass.kind, pass.format, false);
  const int64_t rows = static_cast<int64_t>(pass.D) * plan.groups * 8 * plan.tiles;
  const int number = sizeof(T);

  ForwardArguments gates{};
  gates.pass = pass;
  gates.pass.y = nullptr;
  gates.operand = operand_of(pass.A, pass.D, pass.H, 1, pass.P, padded_units(outer, Kind::identity, false),
                             h_bytes, number);
  gates.exchange = {memory + w.exchange,       memory + w.inner,          rows * h_bytes, 0,
                    static_cast<int>(h_bytes), static_cast<int>(m_bytes), nullptr};
  gates.place = place_of(plan, pass.kind, pass.format, false, gates.operand.chunks);
  gates.carry = reinterpret_cast<float*>(memory + w.carry);
  gates.project = true;

  ForwardArguments project{};
  project.pass = pass;
  project.pass.kind = Kind::identity;
  project.pass.H = pass.P;
  project.pass.gx = project.pass.gates = nullptr;
  project.pass.cells = nullptr;
  project.pass.c_n = nullptr;
  project.operand =
      operand_of(pass.W_hr, pass.D, pass.P, 1, pass.H, padded_units(plan, pass.kind, false), m_bytes, number);
  project.exchange = {memory + w.inner,          memory + w.exchange,       0,      rows * h_bytes,
                      static_cast<int>(m_bytes), static_cast<int>(h_bytes), nullptr};
  project.place = place_of(outer, Kind::identity, pass.format, false, project.operand.chunks);
  project.carry = reinterpret_cast<float*>(memory + w.inner_carry);

  for (int step = pass.h0 ? -1 : 0; step < pass.T; ++step) {
    gates.first = gates.last = project.first = project.last = step;
    if (step >= 0) start<T, Fmt>(gates, plan);
    start<T, Fmt>(project, outer);
  }
}

}  // namespace

template <class T, class Fmt>
Transport run_forward(const ForwardPass& given) {
  ForwardPass pass = given;
  pass.plan = plan_that_fits<ForwardArguments>(pass, false, forward_of<T, Fmt>);
  const Plan& plan = pass.plan;
  auto* memory = static_cast<unsigned char*>(pass.workspace);
  const Workspace w = workspace(cuda::device(pass.device), given.plan, pass.kind, pass.format, false, pass.B,
                                pass.H, pass.P, pass.D);
  if (plan.transport == Transport::launch || plan.transport == Transport::l2)
    device::zero(memory, w.zeroed, pass.stream);
  if (pass.P != pass.H) {
    run_projected<T, Fmt>(pass, w, memory);
    return plan.transport;
  }

  const int64_t bytes = row_bytes(plan, pass.kind, pass.format, false);
  const int64_t parity = static_cast<int64_t>(pass.D) * plan.groups * plan.slices * 8 * plan.tiles * bytes;
  ForwardArguments a{};
  a.pass = pass;
  a.operand =
      operand_of(pass.A, pass.D, pass.H, 1, pass.H, padded_units(plan, pass.kind, false), bytes, sizeof(T));
  a.exchange = {memory + w.exchange,
                memory + w.exchange,
                parity,
                parity,
                static_cast<int>(bytes),
                static_cast<int>(bytes),
                reinterpret_cast<uint32_t*>(memory + w.flags)};
  a.place = place_of(plan, pass.kind, pass.format, false, a.operand.chunks);
  a.carry = reinterpret_cast<float*>(memory + w.carry);
  a.first = -1;
  a.last = static_cast<int>(pass.T) - 1;
  if (plan.transport != Transport::launch) {
    start<T, Fmt>(a, plan);
    return plan.transport;
  }
  for (int step = pass.h0 ? -1 : 0; step < pass.T; ++step) {
    a.first = a.last = step;
    start<T, Fmt>(a, plan);
  }
  return plan.transport;
}

}  // namespace fusegen::cuda
