// One layer of normalised cells, or of cells whose recurrent matrix is of blocks, on a GPU, both directions
// in one call: checks, a plan, then the backend. What is around it (input GEMM, weight gradients) is torch's:
// python/fusegen/ops/cuda/normalised.py. All tensors contiguous, on one device.
#pragma once
#include "kernels/backend_normalised.h"
#include "ops/view.h"

namespace fusegen {

// A pass of a layer over one batch.
struct GpuNormalisedPass {
  Cell cell;
  Norm norm;
  Dtype dtype;
  bool tf32;  // float32 only: products of TF32 numbers
  bool backward;
  int64_t B, H;
  int D;
  int64_t blocks;
  int device;
};

// A pass and how it is to run: made once, for its workspace and for the call.
struct GpuNormalisedPlan {
  GpuNormalisedPass pass;
  cuda::NormalisedPlan plan;
};
GpuNormalisedPlan gpu_normalised_plan(const GpuNormalisedPass& pass);

constexpr int kNormalisedVectors = 6;  // of a direction: g_ih, b_ih, g_hh, b_hh, g_c, b_c

struct GpuNormalisedCall {
  double eps;
  Views R;        // of a direction [blocks, G*m, m], m = H / blocks: of a block the rows of each gate
  Views vectors;  // of a direction kNormalisedVectors, or None: [G*H] four times, [H] twice
  View h0, c0, lengths;
  View resets, reset_h, reset_c;  // [T,B] of bytes, [D,B,H]
  View boundaries;                // of gpu_boundary_bytes(), written
  View workspace, error;
};

struct GpuNormalisedForward : GpuNormalisedCall {
  View gx;  // [T,B,D*G*H]: W x alone
  View y, h_n, c_n, saved, cells, stats;
};

struct GpuNormalisedBackward : GpuNormalisedCall {
  View dy, dh_n, dc_n;
  View y, saved, cells, stats;
  // [T,B,D*G*H]: the gradients of W x, and of R h' block by block, the gates of a block side by side; None
  // where these are the same
  View dx_part, dh_part;
  View dh0, dc0;
  View dreset_h, dreset_c;  // float32, zero; or None
  Views dvectors;           // as `vectors`; None: not wanted
};

// Run what was planned, whose sizes, dtype and device have to be the tensors'. An error that an earlier call
// left in `error` is raised here, and cleared.
void gpu_normalised_forward(const GpuNormalisedPlan& plan, void* stream, const GpuNormalisedForward& layer);
void gpu_normalised_backward(const GpuNormalisedPlan& plan, void* stream, const GpuNormalisedBackward& layer);

}  // namespace fusegen
