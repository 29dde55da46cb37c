#include "cell.h"

#include "checks.h"

namespace fusegen {
namespace {

void check_sizes(int64_t B, int64_t I, int64_t H) {
  if (B > 1 << 24 || I > 1 << 20 || H > 1 << 20 || B * H > int64_t{1} << 38)
    throw std::invalid_argument(
        "cell: expected B <= 2^24, I and H <= 2^20 and B * H <= 2^38, got B = " + std::to_string(B) +
        ", I = " + std::to_string(I) + ", H = " + std::to_string(H));
}

void check_matrix(const View& v, const char* name) {
  if (required(v, name).ndim != 2)
    throw std::invalid_argument(std::string(name) + ": expected a matrix, got " + shape_text(v));
}

}  // namespace

cuda::CellPlan gpu_cell_plan(Cell cell, Dtype dtype, bool tf32, int64_t B, int64_t I, int64_t H, int device) {
  check_sizes(B, I, H);
  return cuda::choose_cell(cuda::device(device), cell, cuda::format_of(dtype, tf32), static_cast<int>(B),
                           static_cast<int>(I), static_cast<int>(H));
}

void gpu_cell_forward(const GpuCellForward& call) {
  const GpuChecker check(call.x, "x");
  check_matrix(call.x, "x");
  check_matrix(call.R, "R");
  const int G = gate_count(call.cell);
  const int64_t B = call.x.shape[0], I = call.x.shape[1], H = call.R.shape[1];
  cuda::CellForwardPass p{};
  p.cell = call.cell;
  p.format = cuda::format_of(check.dtype(), call.tf32);
  p.plan = gpu_cell_plan(call.cell, check.dtype(), call.tf32, B, I, H, check.device());
  p.B = static_cast<int>(B);
  p.I = static_cast<int>(I);
  p.H = static_cast<int>(H);
  p.x = check.need(call.x, "x", {B, I});
  p.h = check.of(call.h, "h", {B, H});
  p.c = check.of(call.c, "c", {B, H});
  p.W = check.need(call.W, "W", {G * H, I});
  p.R = check.need(call.R, "R", {G * H, H});
  p.b_ih = check.of(call.b_ih, "b_ih", {G * H});
  p.b_hh = check.of(call.b_hh, "b_hh", {G * H});
  if (!p.plan.multiplies) {
    p.x_gates = check.need(call.x_gates, "x_gates", {B, G * H});
    p.h_gates = check.of(call.h_gates, "h_gates", {B, G * H});
  }
  p.h_out = check.need(call.h_out, "h_out", {B, H});
  if (call.cell == Cell::lstm) p.c_out = check.need(call.c_out, "c_out", {B, H});
  if (saved_gates(call.cell)) p.gates = check.of(call.gates, "gates", {B, 4 * H});
  if (call.cell == Cell::lstm)
    p.cells = static_cast<float*>(check.of(call.cells, "cells", {B, H}, ElementType::f32));
  p.stream = call.stream;
  p.device = check.device();
  if (B) cuda::cell_forward(p);
}

void gpu_cell_backward(const GpuCellBackward& call) {
  const GpuChecker check(call.dx_gates, "dx_gates");
  check_matrix(call.dx_gates, "dx_gates");
  const int G = gate_count(call.cell);
  const int64_t B = call.dx_gates.shape[0], H = call.dx_gates.shape[1] / G;
  check_sizes(B, 1, H);
  cuda::CellBackwardPass p{};
  p.cell = call.cell;
  p.format = cuda::format_of(check.dtype(), false);
  p.B = static_cast<int>(B);
  p.H = static_cast<int>(H);
  p.dx_gates = check.need(call.dx_gates, "dx_gates", {B, G * H});
  p.dh = check.of(call.dh, "dh", {B, H});
  p.dc = check.of(call.dc, "dc", {B, H});
  p.h = check.of(call.h, "h", {B, H});
  p.c = check.of(call.c, "c", {B, H});
  if (saved_gates(call.cell)) {
    p.gates = check.need(call.gates, "gates", {B, 4 * H});
  } else {
    p.h_out = check.need(call.h_out, "h_out", {B, H});
  }
  if (call.cell == Cell::lstm)
    p.cells =
        static_cast<const float*>(check.of(required(call.cells, "cells"), "cells", {B, H}, ElementType::f32));
  if (call.cell == Cell::gru) p.dh_gates = check.need(call.dh_gates, "dh_gates", {B, G * H});
  p.dh_direct = check.of(call.dh_direct, "dh_direct", {B, H});
  p.dc_in = check.of(call.dc_in, "dc_in", {B, H});
  p.stream = call.stream;
  p.device = check.device();
  if (B) cuda::cell_backward(p);
}

}  // namespace fusegen
