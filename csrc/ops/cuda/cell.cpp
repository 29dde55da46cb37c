#include "cell.h"

#include "checks.h"

namespace fusegen {

static void write(std::string& to, const GpuCellStep& s) {
  to += detail::joined("B = ", s.B, ", I = ", s.I, ", H = ", s.H, ", dtype ", static_cast<int>(s.dtype),
                       " on device ", s.device);
}

namespace {

void check_sizes(int64_t B, int64_t I, int64_t H) {
  check(B <= 1 << 24 && I <= 1 << 20 && H <= 1 << 20 && B * H <= int64_t{1} << 38,
        "cell: expected B <= 2^24, I and H <= 2^20 and B * H <= 2^38, got B = ", B, ", I = ", I, ", H = ", H);
}

void check_matrix(const View& v, const char* name) {
  check(required(v, name).ndim == 2, name, ": expected a matrix, got ", v);
}

void check_plan(const GpuCellStep& planned, const GpuCellStep& call) {
  const bool same = planned.dtype == call.dtype && planned.B == call.B && planned.I == call.I &&
                    planned.H == call.H && planned.device == call.device;
  check(same, "plan: expected one of ", call, ", got one of ", planned);
}

}  // namespace

GpuCellPlan gpu_cell_plan(const GpuCellStep& step) {
  check_sizes(step.B, step.I, step.H);
  return {.step = step,
          .plan = cuda::choose_cell(cuda::device(step.device), step.cell,
                                    cuda::format_of(step.dtype, step.tf32), static_cast<int>(step.B),
                                    static_cast<int>(step.I), static_cast<int>(step.H))};
}

void gpu_cell_forward(const GpuCellPlan& plan, void* stream, const GpuCellForward& call) {
  const GpuChecker checked(call.x, "x");
  check_matrix(call.x, "x");
  check_matrix(call.R, "R");
  const Cell cell = plan.step.cell;
  const int G = gate_count(cell);
  const int64_t B = call.x.shape[0], I = call.x.shape[1], H = call.R.shape[1];
  check_plan(plan.step, {.cell = cell,
                         .dtype = checked.dtype(),
                         .tf32 = plan.step.tf32,
                         .B = B,
                         .I = I,
                         .H = H,
                         .device = checked.device()});
  cuda::CellForwardPass p{};
  p.cell = cell;
  p.format = cuda::format_of(checked.dtype(), plan.step.tf32);
  p.plan = plan.plan;
  p.B = static_cast<int>(B);
  p.I = static_cast<int>(I);
  p.H = static_cast<int>(H);
  p.x = checked.need(call.x, "x", {B, I});
  p.h = checked.of(call.h, "h", {B, H});
  p.c = checked.of(call.c, "c", {B, H});
  p.W = checked.need(call.W, "W", {G * H, I});
  p.R = checked.need(call.R, "R", {G * H, H});
  p.b_ih = checked.of(call.b_ih, "b_ih", {G * H});
  p.b_hh = checked.of(call.b_hh, "b_hh", {G * H});
  if (!p.plan.multiplies) {
    p.x_gates = checked.need(call.x_gates, "x_gates", {B, G * H});
    p.h_gates = checked.of(call.h_gates, "h_gates", {B, G * H});
  }
  p.h_out = checked.need(call.h_out, "h_out", {B, H});
  if (cell == Cell::lstm) p.c_out = checked.need(call.c_out, "c_out", {B, H});
  if (saved_gates(cell)) p.gates = checked.of(call.gates, "gates", {B, 4 * H});
  if (cell == Cell::lstm)
    p.cells = static_cast<float*>(checked.of(call.cells, "cells", {B, H}, ElementType::f32));
  p.stream = stream;
  p.device = checked.device();
  if (B) cuda::cell_forward(p);
}

void gpu_cell_backward(void* stream, const GpuCellBackward& call) {
  const GpuChecker checked(call.dx_gates, "dx_gates");
  check_matrix(call.dx_gates, "dx_gates");
  const int G = gate_count(call.cell);
  const int64_t B = call.dx_gates.shape[0], H = call.dx_gates.shape[1] / G;
  check_sizes(B, 1, H);
  cuda::CellBackwardPass p{};
  p.cell = call.cell;
  p.format = cuda::format_of(checked.dtype(), false);
  p.B = static_cast<int>(B);
  p.H = static_cast<int>(H);
  p.dx_gates = checked.need(call.dx_gates, "dx_gates", {B, G * H});
  p.dh = checked.of(call.dh, "dh", {B, H});
  p.dc = checked.of(call.dc, "dc", {B, H});
  p.h = checked.of(call.h, "h", {B, H});
  p.c = checked.of(call.c, "c", {B, H});
  if (saved_gates(call.cell)) {
    p.gates = checked.need(call.gates, "gates", {B, 4 * H});
  } else {
    p.h_out = checked.need(call.h_out, "h_out", {B, H});
  }
  if (call.cell == Cell::lstm)
    p.cells = static_cast<const float*>(
        checked.of(required(call.cells, "cells"), "cells", {B, H}, ElementType::f32));
  if (call.cell == Cell::gru) p.dh_gates = checked.need(call.dh_gates, "dh_gates", {B, G * H});
  p.dh_direct = checked.of(call.dh_direct, "dh_direct", {B, H});
  p.dc_in = checked.of(call.dc_in, "dc_in", {B, H});
  p.stream = stream;
  p.device = checked.device();
  if (B) cuda::cell_backward(p);
}

}  // namespace fusegen
