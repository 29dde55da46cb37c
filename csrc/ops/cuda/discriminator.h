// The discriminator step of a dense network on a GPU: checks, then the backend. Shapes are those of params.h;
// all tensors lie on one device.
#pragma once
#include "kernels/backend.h"
#include "ops/discriminator.h"

namespace fusegen {

// How a step is to run, beside its tensors.
struct GpuMlpCall {
  MlpCall step;
  bool tf32;  // float32 only: products of TF32 numbers
  void* stream;
};

int64_t gpu_mlp_saved_bytes(const GpuMlpCall& call);
int64_t gpu_mlp_workspace_bytes(const GpuMlpCall& call);  // of backward
cuda::MlpRun gpu_mlp_forward(const GpuMlpCall& call, const View& loss, const View& scalars,
                             const View& logits, const View& saved);
cuda::MlpRun gpu_mlp_backward(const GpuMlpCall& call, const View& scale, const View& saved,
                              const View& workspace, const MlpGradients& gradients);

}  // namespace fusegen
