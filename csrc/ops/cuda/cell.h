// One step of a cell on a GPU: checks, a plan, then the backend. All tensors contiguous, on one device. What
// the plan leaves to torch is in python/fusegen/ops/gpu_cells.py.
#pragma once
#include "kernels/backend.h"
#include "ops/view.h"

namespace fusegen {

struct GpuCellForward {
  Cell cell;
  bool tf32;  // float32 only: products of TF32 numbers
  void* stream;
  View x, h, c;           // [B,I], [B,H], [B,H]; h and c may be missing
  View W, R, b_ih, b_hh;  // [G*H,I], [G*H,H], [G*H]
  View x_gates, h_gates;  // [B,G*H]
  View h_out, c_out, gates, cells;
};

struct GpuCellBackward {
  Cell cell;
  void* stream;
  View dh, dc, h, c, h_out, gates, cells;
  View dx_gates, dh_gates, dh_direct, dc_in;
};

cuda::CellPlan gpu_cell_plan(Cell cell, Dtype dtype, bool tf32, int64_t B, int64_t I, int64_t H, int device);
void gpu_cell_forward(const GpuCellForward& call);
void gpu_cell_backward(const GpuCellBackward& call);

}  // namespace fusegen
