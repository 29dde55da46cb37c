// The recurrence of one layer on a GPU, both directions in one call: checks, a plan, then the backend. What
// is around it (input GEMM, weight gradients) is torch's: python/fusegen/ops/cuda/layers.py. All tensors
// contiguous, on one device.
#pragma once
#include <array>

#include "kernels/backend.h"
#include "ops/view.h"

namespace fusegen {

constexpr int kNoDevice = -1;  // of a plan for a device that is not here

// A pass of a layer over one batch.
struct GpuPass {
  Cell cell;
  Dtype dtype;
  bool tf32;  // float32 only: products of TF32 numbers
  bool backward;
  int64_t B, H, P;
  int D, device;
  bool resets;  // sequences start anew inside the call
  bool masked;  // some of GpuInside::rates is not zero
};

// A pass and how it is to run: made once, for its workspace and for the call.
struct GpuPlan {
  GpuPass pass;
  cuda::Plan plan;
};

// Where and how a pass is launched.
struct GpuLaunch {
  void* stream;
  int64_t patience;  // nanoseconds that its blocks wait for each other before they give up; 0: for ever
};

// What may happen inside the recurrence (Resets, Masks of params.h).
struct GpuInside {
  View resets;            // [T,B] of bytes
  View reset_h, reset_c;  // [D,B,P], [D,B,H]
  View boundaries;        // of gpu_boundary_bytes(), written
  View key;               // int64, in host memory; of masks
  // of recurrent dropout on the state and on the candidate, zoneout of h and c
  std::array<double, 4> rates{};
  int64_t layer = 0;  // of the stack
  bool training = true;

  bool masked() const { return rates != std::array<double, 4>{}; }
};
int64_t gpu_boundary_bytes(int64_t T, int64_t B, int D);

struct GpuForward {
  View gx;     // [T,B,D*G*H]
  Views R;     // of a direction [G*H,P]
  Views W_hr;  // [P,H], or empty
  Views b_hn;  // GRU: [H] or None
  View h0, c0, lengths;
  View y, h_n, c_n, gates, cells;
  View workspace, error;
  GpuInside inside;
};

struct GpuBackward {
  View dy, dh_n, dc_n;
  Views R;     // of a direction [G*H,P]
  Views W_hr;  // [P,H], or empty
  View y, h0, c0, lengths, gates, cells;
  View dgates, dh, dh0, dc0;
  View workspace, error;
  GpuInside inside;
  View dreset_h, dreset_c;  // float32, zero; or None
};

// A mask of rows of n elements (philox.h): `dropped`, [rows,n] of bytes on the device, is written.
struct GpuMask {
  uint32_t mask, place;
  double rate;
  View key;  // int64, in host memory
  View dropped;
};
void gpu_mask(const GpuMask& mask, void* stream);

// transport: a cuda::Transport, or -1: the best.
GpuPlan gpu_plan(const GpuPass& pass, const cuda::Device& device, int transport);

// Run what was planned, whose sizes, dtype and device have to be the tensors'. Return the transport that ran.
// An error that an earlier call left in `error` is raised here, and cleared.
cuda::Transport gpu_forward(const GpuPlan& plan, const GpuLaunch& launch, const GpuForward& layer);
cuda::Transport gpu_backward(const GpuPlan& plan, const GpuLaunch& launch, const GpuBackward& layer);

}  // namespace fusegen
