#include "layer.h"

#include "checks.h"
#include "error.h"

namespace fusegen {

static void write(std::string& to, const GpuPass& p) {
  to += detail::joined(p.backward ? "backward" : "forward", " with B = ", p.B, ", H = ", p.H, ", P = ", p.P,
                       ", ", p.D, " direction(s) and dtype ", static_cast<int>(p.dtype), " on device ",
                       p.device, p.resets ? ", with resets" : "", p.masked ? ", with masks" : "");
}

namespace {

void check_plan(const GpuPass& planned, const GpuPass& call) {
  const bool same = planned.dtype == call.dtype && planned.backward == call.backward && planned.B == call.B &&
                    planned.H == call.H && planned.P == call.P && planned.D == call.D &&
                    planned.device == call.device && planned.resets == call.resets &&
                    planned.masked == call.masked;
  check(same, "plan: expected one of ", call, ", got one of ", planned);
}

uint64_t read_key(const View& key) {
  check(required(key, "key").dtype == ElementType::i64 && key.ndim == 0 && key.device_type == 1,
        "key: expected an int64 in host memory, got ", key);
  return *static_cast<const uint64_t*>(key.data);
}

// Of direction 0.
Masks masks_of(const GpuInside& inside, int D) {
  for (double rate : inside.rates)
    check(rate >= 0 && rate < 1, "rates: expected probabilities in [0, 1), got ", rate);
  if (!inside.masked()) return {};
  const auto [state, candidate, h, c] = inside.rates;
  const auto dropout = [&](double rate) { return inside.training ? static_cast<float>(rate) : 0.0f; };
  return {.key = inside.training ? read_key(inside.key) : 0,
          .place = static_cast<uint32_t>(inside.layer * D),
          .state_dropout = dropout(state),
          .candidate_dropout = dropout(candidate),
          .zoneout_h = static_cast<float>(h),
          .zoneout_c = static_cast<float>(c),
          .training = inside.training};
}

// An RNN saves what it read off its output, but where that is a mean of old and new.
bool saves_mean(Cell cell, const Masks& masks) {
  return !saved_gates(cell) && masks.zoneout_h > 0 && !masks.training;
}

// Sizes, lengths, workspace and plan; R's shapes differ between the passes, so each sets its own.
template <class Layer>
void fill(cuda::Recurrence& r, const GpuPlan& plan, const GpuLaunch& launch, const GpuChecker& checked,
          int64_t T, const Layer& layer) {
  const View& workspace = layer.workspace;
  check(T < INT32_MAX, "recurrence: expected fewer than 2^31 - 1 steps, got ", T);
  const GpuPass& pass = plan.pass;
  r.cell = pass.cell;
  r.format = cuda::format_of(pass.dtype, pass.tf32);
  r.backward = pass.backward;
  r.T = T;
  r.B = static_cast<int>(pass.B);
  r.H = static_cast<int>(pass.H);
  r.P = static_cast<int>(pass.P);
  r.D = pass.D;
  r.resets = pass.resets;
  r.lengths = static_cast<const int64_t*>(checked.of(layer.lengths, "lengths", {pass.B}, ElementType::i64));
  r.plan = plan.plan;
  check(required(workspace, "workspace").ndim == 1 && workspace.shape[0] >= r.plan.workspace_bytes,
        "workspace: expected ", r.plan.workspace_bytes, " bytes, got ", workspace);
  r.workspace = checked.of(workspace, "workspace", {workspace.shape[0]}, ElementType::u8);
  r.error = static_cast<int64_t*>(layer.error.data);
  r.patience = launch.patience;
  r.stream = launch.stream;
  r.device = checked.device();
  const GpuInside& inside = layer.inside;
  r.masked = pass.masked;
  r.masks = masks_of(inside, pass.D);
  if (!inside.resets) return;
  r.boundaries.at =
      static_cast<const bool*>(checked.of(inside.resets, "resets", {T, pass.B}, ElementType::u8));
  r.boundaries.h = checked.of(inside.reset_h, "reset_h", {pass.D, pass.B, pass.P});
  r.boundaries.c = checked.of(inside.reset_c, "reset_c", {pass.D, pass.B, pass.H});
  r.boundaries.bits =
      static_cast<uint32_t*>(checked.of(required(inside.boundaries, "boundaries"), "boundaries",
                                        {gpu_boundary_bytes(T, pass.B, pass.D)}, ElementType::u8));
}

int directions(const Views& R) {
  check(R.size() == 1 || R.size() == 2, "R: expected 1 or 2 directions, got ", R.size());
  check(required(R[0], "R").ndim == 2, "R: expected a matrix, got ", R[0]);
  return static_cast<int>(R.size());
}

}  // namespace

int64_t gpu_boundary_bytes(int64_t T, int64_t B, int D) {
  return cuda::boundary_bytes(T, static_cast<int>(B), D);
}

void gpu_mask(const GpuMask& mask, void* stream) {
  const View& dropped = required(mask.dropped, "dropped");
  check(dropped.device_type == cuda::device_type() && dropped.dtype == ElementType::u8 && dropped.ndim == 2 &&
            dropped.strides[1] == 1 && dropped.strides[0] == dropped.shape[1],
        "dropped: expected contiguous bytes [rows, n] on the GPU backend's device, got ", dropped);
  check(mask.rate >= 0 && mask.rate < 1, "rate: expected a probability in [0, 1), got ", mask.rate);
  cuda::make_mask({.key = read_key(mask.key),
                   .mask = mask.mask,
                   .place = mask.place,
                   .rate = static_cast<float>(mask.rate),
                   .rows = dropped.shape[0],
                   .n = dropped.shape[1],
                   .dropped = static_cast<bool*>(dropped.data),
                   .stream = stream,
                   .device = dropped.device_id});
}

GpuPlan gpu_plan(const GpuPass& pass, const cuda::Device& device, int transport) {
  check(pass.B <= 1 << 24 && pass.H <= 1 << 20 && pass.P <= 1 << 20,
        "recurrence: expected B <= 2^24 and H <= 2^20, got B = ", pass.B, ", H = ", pass.H);
  const cuda::LayerSizes sizes{.cell = pass.cell,
                               .format = cuda::format_of(pass.dtype, pass.tf32),
                               .backward = pass.backward,
                               .B = static_cast<int>(pass.B),
                               .H = static_cast<int>(pass.H),
                               .P = static_cast<int>(pass.P),
                               .D = pass.D,
                               .resets = pass.resets,
                               .masked = pass.masked};
  return {.pass = pass, .plan = cuda::choose(device, sizes, transport)};
}

cuda::Transport gpu_forward(const GpuPlan& plan, const GpuLaunch& launch, const GpuForward& layer) {
  raise_what_was_left(layer.error);
  const GpuChecker checked(layer.gx, "gx");
  const Cell cell = plan.pass.cell;
  const int D = directions(layer.R), G = gate_count(cell);
  check(layer.gx.ndim == 3, "gx: expected shape [T, B, D*G*H], got ", layer.gx);
  const int64_t T = layer.gx.shape[0], B = layer.gx.shape[1], H = layer.R[0].shape[0] / G,
                P = layer.R[0].shape[1];
  check_plan(plan.pass, {.cell = cell,
                         .dtype = checked.dtype(),
                         .tf32 = plan.pass.tf32,
                         .backward = false,
                         .B = B,
                         .H = H,
                         .P = P,
                         .D = D,
                         .device = checked.device(),
                         .resets = static_cast<bool>(layer.inside.resets),
                         .masked = layer.inside.masked()});
  cuda::ForwardPass p{};
  fill(p, plan, launch, checked, T, layer);
  p.gx = checked.need(layer.gx, "gx", {T, B, D * G * H});
  for (int d = 0; d < D; ++d) {
    p.R[d] = checked.need(layer.R[d], "R", {G * H, P});
    if (!layer.W_hr.empty()) p.W_hr[d] = checked.need(layer.W_hr.at(d), "W_hr", {P, H});
    if (!layer.b_hn.empty()) p.b_hn[d] = checked.of(layer.b_hn.at(d), "b_hn", {H});
  }
  check(P == H || p.W_hr[0], "W_hr: expected a projection, since R has ", P, " columns");
  check(P != H || !p.W_hr[0], "W_hr: expected fewer rows than H = ", H);
  p.h0 = checked.of(layer.h0, "h0", {D, B, P});
  p.c0 = checked.of(layer.c0, "c0", {D, B, H});
  p.y = checked.need(layer.y, "y", {T, B, D * P});
  p.h_n = checked.need(layer.h_n, "h_n", {D, B, P});
  if (cell == Cell::lstm) p.c_n = checked.need(layer.c_n, "c_n", {D, B, H});
  if (saved_gates(cell)) p.gates = checked.of(layer.gates, "gates", {D, T, B, 4 * H});
  if (saves_mean(cell, p.masks)) p.gates = checked.of(layer.gates, "gates", {D, T, B, H});
  if (cell == Cell::lstm)
    p.cells = static_cast<float*>(checked.of(layer.cells, "cells", {D, T, B, H}, ElementType::f32));
  return B && T ? cuda::forward(p) : p.plan.transport;
}

cuda::Transport gpu_backward(const GpuPlan& plan, const GpuLaunch& launch, const GpuBackward& layer) {
  raise_what_was_left(layer.error);
  const GpuChecker checked(layer.y, "y");
  const Cell cell = plan.pass.cell;
  const int D = directions(layer.R), G = gate_count(cell), columns = saved_gates(cell) ? 4 : 1;
  check(layer.y.ndim == 3, "y: expected shape [T, B, D*P], got ", layer.y);
  const int64_t T = layer.y.shape[0], B = layer.y.shape[1], P = layer.R[0].shape[1],
                H = layer.R[0].shape[0] / G;
  check_plan(plan.pass, {.cell = cell,
                         .dtype = checked.dtype(),
                         .tf32 = plan.pass.tf32,
                         .backward = true,
                         .B = B,
                         .H = H,
                         .P = P,
                         .D = D,
                         .device = checked.device(),
                         .resets = static_cast<bool>(layer.inside.resets),
                         .masked = layer.inside.masked()});
  cuda::BackwardPass p{};
  fill(p, plan, launch, checked, T, layer);
  for (int d = 0; d < D; ++d) {
    p.R[d] = checked.need(layer.R[d], "R", {G * H, P});
    if (!layer.W_hr.empty()) p.W_hr[d] = checked.need(layer.W_hr.at(d), "W_hr", {P, H});
  }
  check(P == H || p.W_hr[0], "W_hr: expected a projection, since R has ", P, " columns");
  p.dy = checked.of(layer.dy, "dy", {T, B, D * P});
  p.dh_n = checked.of(layer.dh_n, "dh_n", {D, B, P});
  p.dc_n = checked.of(layer.dc_n, "dc_n", {D, B, H});
  p.y = checked.need(layer.y, "y", {T, B, D * P});
  p.h0 = checked.of(layer.h0, "h0", {D, B, P});
  p.c0 = checked.of(layer.c0, "c0", {D, B, H});
  if (columns == 4) p.gates = checked.need(layer.gates, "gates", {D, T, B, 4 * H});
  if (saves_mean(cell, p.masks)) p.gates = checked.need(layer.gates, "gates", {D, T, B, H});
  if (cell == Cell::lstm)
    p.cells = static_cast<const float*>(
        checked.of(required(layer.cells, "cells"), "cells", {D, T, B, H}, ElementType::f32));
  p.dgates = checked.need(layer.dgates, "dgates", {T, B, D * columns * H});
  if (P != H) p.dh = checked.need(layer.dh, "dh", {T, B, D * P});
  p.dh0 = checked.of(layer.dh0, "dh0", {D, B, P});
  p.dc0 = checked.of(layer.dc0, "dc0", {D, B, H});
  p.dreset_h = static_cast<float*>(checked.of(layer.dreset_h, "dreset_h", {D, B, P}, ElementType::f32));
  p.dreset_c = static_cast<float*>(checked.of(layer.dreset_c, "dreset_c", {D, B, H}, ElementType::f32));
  return B && T ? cuda::backward(p) : p.plan.transport;
}

}  // namespace fusegen
