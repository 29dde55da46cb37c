// The recurrence of one layer on a GPU, both directions in one call: checks, a plan, then the backend. What
// is around it (input GEMM, weight gradients) is torch's: python/fusegen/ops/gpu.py. All tensors contiguous,
// on one device.
#pragma once
#include "kernels/backend.h"
#include "ops/view.h"

namespace fusegen {

// How a call is to run, beside its tensors.
struct GpuCall {
  Cell cell;
  bool tf32;      // float32 only: products of TF32 numbers
  int transport;  // cuda::Transport, or -1: the best
  void* stream;
};

struct GpuForward {
  View gx;     // [T,B,D*G*H]
  Views R;     // of a direction [G*H,P]
  Views W_hr;  // [P,H], or empty
  Views b_hn;  // GRU: [H] or None
  View h0, c0, lengths;
  View y, h_n, c_n, gates, cells;
  View workspace, error;
};

struct GpuBackward {
  View dy, dh_n, dc_n;
  Views R;     // transposed: [P,G*H]
  Views W_hr;  // transposed: [H,P], or empty
  View y, h0, c0, lengths, gates, cells;
  View dgates, dh, dh0, dc0;
  View workspace, error;
};

cuda::Plan gpu_plan(const GpuCall& call, Dtype dtype, bool backward, int64_t B, int64_t H, int64_t P, int D,
                    const cuda::Device& device);

// Return the way that ran. An error that an earlier call left in `error` is raised here, and cleared.
cuda::Transport gpu_forward(const GpuCall& call, const GpuForward& layer);
cuda::Transport gpu_backward(const GpuCall& call, const GpuBackward& layer);

}  // namespace fusegen
