// From a pass and its plan to launches.
#pragma once
#include <device/launch.h>

#include "arguments.h"
#include "workspace.h"

namespace fusegen::cuda {

// -- What a launch is given
// -----------------------------------------------------------------------------------------

// Geometry of the plan's blocks for a product with rows of `chunks` chunks.
inline Place place_of(const Plan& plan, Kind kind, Format format, bool backward, int chunks) {
  const int gates = row_gates(kind, backward), segments = backward ? gates_of(kind) : 1,
            number = number_bytes(format);
  Place p{};
  p.transport = plan.transport;
  p.blocks = plan.blocks;
  p.k_splits = plan.k_splits;
  p.slices = plan.slices;
  p.groups = plan.groups;
  p.resident = plan.transport != Transport::launch;
  p.own_bytes_of_row = segments * 8 / plan.k_splits * units_of_warp(gates) * number;
  p.shared = shared_parts(plan.transport, gates, segments, chunks * kChunk, plan.k_splits, plan.tiles,
                          plan.slices, number);
  return p;
}

// [gates*units, segments*valid], to be multiplied with rows of `gather_bytes` whose segments are `padded`
// numbers.
inline Operand operand_of(const void* const (&data)[2], int D, int units, int segments, int valid,
                          int64_t padded, int64_t gather_bytes, int number) {
  Operand a{};
  a.units = units;
  a.stride = segments * valid;
  a.segments = segments;
  a.valid = valid;
  a.padded = static_cast<int>(padded);
  a.chunks = static_cast<int>(gather_bytes / kChunk);
  a.aligned = valid * number % 16 == 0;
  for (int d = 0; d < D; ++d) {
    a.data[d] = data[d];
    a.aligned = a.aligned && reinterpret_cast<uintptr_t>(data[d]) % 16 == 0;
  }
  return a;
}

inline device::Launch launch_of(const Recurrence& pass, const Plan& plan, const Place& place) {
  return {plan.blocks * plan.groups * pass.D, plan.transport == Transport::cluster ? plan.blocks : 1,
          plan.transport == Transport::l2, place.shared.total, pass.stream};
}

template <class Arguments>
using Kernel = void (*)(Arguments);

// `plan`, or a launch a step where the device cannot hold its blocks at once.
template <class Arguments>
Plan plan_that_fits(const Recurrence& pass, bool backward, Kernel<Arguments> (*kernel)(Kind, int)) {
  const Plan& plan = pass.plan;
  if (plan.transport == Transport::launch || plan.transport == Transport::block) return plan;
  const auto chunks = static_cast<int>(row_bytes(plan, pass.kind, pass.format, backward) / kChunk);
  const device::Launch l = launch_of(pass, plan, place_of(plan, pass.kind, pass.format, backward, chunks));
  if (device::resident(kernel(pass.kind, plan.tiles), l)) return plan;
  return choose_stepwise(cuda::device(pass.device), pass.kind, pass.format, backward, pass.B, pass.H, pass.D);
}

// One instance a format, each in a file of its own.
template <class T, class Fmt>
Transport run_forward(const ForwardPass& pass);
template <class T, class Fmt>
Transport run_backward(const BackwardPass& pass);
template <class T, class Fmt>
void run_cell(const CellForwardPass& pass);
// One instance a dtype.
template <class T>
void run_cell_step(const CellForwardPass& pass);
template <class T>
void run_cell_backward(const CellBackwardPass& pass);

}  // namespace fusegen::cuda
