#include "normalised.h"

#include "checks.h"
#include "error.h"

namespace fusegen {

static void write(std::string& to, const GpuNormalisedPass& p) {
  to += detail::joined(p.backward ? "backward" : "forward", " with B = ", p.B, ", H = ", p.H, ", ", p.D,
                       " direction(s), ", p.blocks, " block(s) and dtype ", static_cast<int>(p.dtype),
                       " on device ", p.device);
}

namespace {

void check_plan(const GpuNormalisedPass& planned, const GpuNormalisedPass& call) {
  const bool same = planned.dtype == call.dtype && planned.backward == call.backward && planned.B == call.B &&
                    planned.H == call.H && planned.D == call.D && planned.blocks == call.blocks &&
                    planned.device == call.device;
  check(same, "plan: expected one of ", call, ", got one of ", planned);
}

cuda::LayerSizes sizes_of(const GpuNormalisedPass& pass) {
  return {.cell = pass.cell,
          .format = cuda::format_of(pass.dtype, pass.tf32),
          .backward = pass.backward,
          .B = static_cast<int>(pass.B),
          .H = static_cast<int>(pass.H),
          .P = static_cast<int>(pass.H),
          .D = pass.D,
          .resets = false,
          .masked = false};
}

// A call's checker and sizes, from its y or gx.
struct Checked : GpuChecker {
  int64_t T, B, H, D, GH, m;

  Checked(const View& first, const char* name, const GpuNormalisedPlan& plan, bool backward,
          const GpuNormalisedCall& call)
      : GpuChecker(first, name) {
    check(first.ndim == 3, name, ": expected three dimensions, got ", first);
    check(call.R.size() == 1 || call.R.size() == 2, "R: expected 1 or 2 directions, got ", call.R.size());
    const View& R = required(call.R[0], "R");
    const int G = gate_count(plan.pass.cell);
    check(R.ndim == 3 && R.shape[1] == G * R.shape[2], "R: expected shape [blocks, G*m, m], got ", R);
    T = first.shape[0];
    B = first.shape[1];
    m = R.shape[2];
    H = R.shape[0] * m;
    D = static_cast<int64_t>(call.R.size());
    GH = G * H;
    check(T < INT32_MAX, "recurrence: expected fewer than 2^31 - 1 steps, got ", T);
    check_plan(plan.pass, {.cell = plan.pass.cell,
                           .norm = plan.pass.norm,
                           .dtype = dtype(),
                           .tf32 = plan.pass.tf32,
                           .backward = backward,
                           .B = B,
                           .H = H,
                           .D = static_cast<int>(D),
                           .blocks = R.shape[0],
                           .device = device()});
  }

  float* floats(const View& v, const char* name, std::initializer_list<int64_t> shape) const {
    return static_cast<float*>(of(v, name, shape, ElementType::f32));
  }
};

void fill(cuda::NormalisedPass& p, const Checked& s, const GpuNormalisedPlan& plan, void* stream,
          const GpuNormalisedCall& call) {
  const GpuNormalisedPass& pass = plan.pass;
  static_cast<cuda::LayerSizes&>(p) = sizes_of(pass);
  p.T = s.T;
  p.norm = pass.norm;
  p.blocks = static_cast<int>(pass.blocks);
  p.eps = static_cast<float>(call.eps);
  p.steps = plan.plan;
  p.lengths = static_cast<const int64_t*>(s.of(call.lengths, "lengths", {s.B}, ElementType::i64));
  check(call.vectors.size() == static_cast<size_t>(s.D) * kNormalisedVectors, "vectors: expected ",
        s.D * kNormalisedVectors, " tensors or None, got ", call.vectors.size());
  for (int d = 0; d < s.D; ++d) {
    p.R[d] = s.need(call.R[d], "R", {pass.blocks, s.GH / pass.blocks, s.m});
    const View* v = call.vectors.data() + d * kNormalisedVectors;
    p.vectors[d] = {.g_ih = s.of(v[0], "g_ih", {s.GH}),
                    .b_ih = s.of(v[1], "b_ih", {s.GH}),
                    .g_hh = s.of(v[2], "g_hh", {s.GH}),
                    .b_hh = s.of(v[3], "b_hh", {s.GH}),
                    .g_c = s.of(v[4], "g_c", {s.H}),
                    .b_c = s.of(v[5], "b_c", {s.H})};
    check(pass.norm == Norm::none || p.vectors[d].g_ih, "g_ih: expected one, of a layer with a norm");
    check(!norms_apart(pass.norm) || p.vectors[d].g_hh, "g_hh: expected one, of a norm of R h");
    check(!norms_state(pass.norm, pass.cell) || p.vectors[d].g_c, "g_c: expected one, of a norm of c");
  }
  const View& workspace = required(call.workspace, "workspace");
  check(workspace.ndim == 1 && workspace.shape[0] >= plan.plan.workspace_bytes, "workspace: expected ",
        plan.plan.workspace_bytes, " bytes, got ", workspace);
  p.workspace = s.of(workspace, "workspace", {workspace.shape[0]}, ElementType::u8);
  p.error = static_cast<int64_t*>(call.error.data);
  p.stream = stream;
  p.device = s.device();
  if (!call.resets) return;
  p.boundaries.at = static_cast<const bool*>(s.of(call.resets, "resets", {s.T, s.B}, ElementType::u8));
  p.boundaries.h = s.of(call.reset_h, "reset_h", {s.D, s.B, s.H});
  p.boundaries.c = s.of(call.reset_c, "reset_c", {s.D, s.B, s.H});
  const int64_t bytes = cuda::boundary_bytes(s.T, static_cast<int>(s.B), static_cast<int>(s.D));
  p.boundaries.bits = static_cast<uint32_t*>(
      s.of(required(call.boundaries, "boundaries"), "boundaries", {bytes}, ElementType::u8));
}

// What forward saves and backward reads. All that there is of it, or nothing.
template <class Pass, class Layer>
void set_saved(Pass& p, const Checked& s, const Layer& layer) {
  const int values = normalised_saved(p.norm, p.cell);
  if (values == 0) return;
  p.saved = s.of(layer.saved, "saved", {s.D, s.T, s.B, values * s.H});
  if (p.cell == Cell::lstm) p.cells = s.floats(layer.cells, "cells", {s.D, s.T, s.B, s.H});
  if (p.norm != Norm::none) p.stats = s.floats(layer.stats, "stats", {s.D, s.T, s.B, kNormStats});
  check(p.cell != Cell::lstm || !p.saved == !p.cells, "saved, cells: expected both or neither");
  check(p.norm == Norm::none || !p.saved == !p.stats, "saved, stats: expected both or neither");
}

}  // namespace

GpuNormalisedPlan gpu_normalised_plan(const GpuNormalisedPass& pass) {
  check(pass.B <= 1 << 24 && pass.H >= 1 && pass.H < 1 << 20,
        "recurrence: expected B <= 2^24 and 1 <= H < 2^20, got B = ", pass.B, ", H = ", pass.H);
  check(pass.blocks >= 1 && pass.H % pass.blocks == 0, "blocks: expected a divisor of H = ", pass.H, ", got ",
        pass.blocks);
  check(pass.norm == Norm::none || gate_count(pass.cell) > 1, "norm: an RNN has none");
  return {.pass = pass,
          .plan = cuda::choose_normalised(cuda::device(pass.device), sizes_of(pass), pass.norm,
                                          static_cast<int>(pass.blocks))};
}

void gpu_normalised_forward(const GpuNormalisedPlan& plan, void* stream, const GpuNormalisedForward& layer) {
  raise_what_was_left(layer.error);
  const Checked s(layer.gx, "gx", plan, false, layer);
  cuda::NormalisedForwardPass p{};
  fill(p, s, plan, stream, layer);
  p.gx = s.need(layer.gx, "gx", {s.T, s.B, s.D * s.GH});
  p.h0 = s.of(layer.h0, "h0", {s.D, s.B, s.H});
  p.c0 = s.of(layer.c0, "c0", {s.D, s.B, s.H});
  p.y = s.need(layer.y, "y", {s.T, s.B, s.D * s.H});
  p.h_n = s.need(layer.h_n, "h_n", {s.D, s.B, s.H});
  if (p.cell == Cell::lstm) p.c_n = s.need(layer.c_n, "c_n", {s.D, s.B, s.H});
  set_saved(p, s, layer);
  if (s.B && s.T) cuda::normalised_forward(p);
}

void gpu_normalised_backward(const GpuNormalisedPlan& plan, void* stream,
                             const GpuNormalisedBackward& layer) {
  raise_what_was_left(layer.error);
  const Checked s(layer.y, "y", plan, true, layer);
  cuda::NormalisedBackwardPass p{};
  fill(p, s, plan, stream, layer);
  p.dy = s.of(layer.dy, "dy", {s.T, s.B, s.D * s.H});
  p.dh_n = s.of(layer.dh_n, "dh_n", {s.D, s.B, s.H});
  p.dc_n = s.of(layer.dc_n, "dc_n", {s.D, s.B, s.H});
  p.y = s.need(layer.y, "y", {s.T, s.B, s.D * s.H});
  p.h0 = s.of(layer.h0, "h0", {s.D, s.B, s.H});
  p.c0 = s.of(layer.c0, "c0", {s.D, s.B, s.H});
  if (normalised_saved(p.norm, p.cell)) required(layer.saved, "saved");
  set_saved(p, s, layer);
  p.dx_part = s.need(layer.dx_part, "dx_part", {s.T, s.B, s.D * s.GH});
  p.dh_part = s.of(layer.dh_part, "dh_part", {s.T, s.B, s.D * s.GH});
  const bool same = p.norm == Norm::dreamer || (p.norm == Norm::none && p.cell != Cell::gru);
  check(p.dh_part || (same && p.blocks == 1),
        "dh_part: expected one, of a gradient of R h that is not W x's");
  p.dh0 = s.of(layer.dh0, "dh0", {s.D, s.B, s.H});
  p.dc0 = s.of(layer.dc0, "dc0", {s.D, s.B, s.H});
  p.dreset_h = s.floats(layer.dreset_h, "dreset_h", {s.D, s.B, s.H});
  p.dreset_c = s.floats(layer.dreset_c, "dreset_c", {s.D, s.B, s.H});
  check(layer.dvectors.size() == layer.vectors.size(), "dvectors: expected ", layer.vectors.size(),
        " tensors or None, got ", layer.dvectors.size());
  for (int d = 0; d < s.D; ++d) {
    const View* v = layer.dvectors.data() + d * kNormalisedVectors;
    p.dvectors[d] = {.g_ih = s.of(v[0], "dg_ih", {s.GH}),
                     .b_ih = s.of(v[1], "db_ih", {s.GH}),
                     .g_hh = s.of(v[2], "dg_hh", {s.GH}),
                     .b_hh = s.of(v[3], "db_hh", {s.GH}),
                     .g_c = s.of(v[4], "dg_c", {s.H}),
                     .b_c = s.of(v[5], "db_c", {s.H})};
  }
  if (s.B && s.T) cuda::normalised_backward(p);
}

}  // namespace fusegen
