// One step of a cell on a GPU: checks, a plan, then the backend. All tensors contiguous, on one device. What
// the plan leaves to torch is in python/fusegen/ops/cuda/cells.py.
#pragma once
#include "kernels/backend.h"
#include "ops/view.h"

namespace fusegen {

// A step of one batch.
struct GpuCellStep {
  Cell cell;
  Dtype dtype;
  bool tf32;  // float32 only: products of TF32 numbers
  int64_t B, I, H;
  int device;
};

// A step and how it is to run: made once, for what it leaves to torch and for the call.
struct GpuCellPlan {
  GpuCellStep step;
  cuda::CellPlan plan;
};

struct GpuCellForward {
  View x, h, c;           // [B,I], [B,H], [B,H]; h and c may be missing
  View W, R, b_ih, b_hh;  // [G*H,I], [G*H,H], [G*H]
  View x_gates, h_gates;  // [B,G*H]
  View h_out, c_out, gates, cells;
};

struct GpuCellBackward {
  Cell cell;
  View dh, dc, h, c, h_out, gates, cells;
  View dx_gates, dh_gates, dh_direct, dc_in;
};

GpuCellPlan gpu_cell_plan(const GpuCellStep& step);
// Runs what was planned, whose sizes, dtype and device have to be the tensors'.
void gpu_cell_forward(const GpuCellPlan& plan, void* stream, const GpuCellForward& call);
void gpu_cell_backward(void* stream, const GpuCellBackward& call);

}  // namespace fusegen
