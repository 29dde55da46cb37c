// The discriminator step of a dense network on the CPU: checks, then the kernel. Shapes are those of
// params.h.
#pragma once
#include "ops/discriminator.h"

namespace fusegen {

int64_t mlp_saved_bytes(const MlpCall& call);
void mlp_forward(const MlpCall& call, const View& loss, const View& scalars, const View& logits,
                 const View& saved);
void mlp_backward(const MlpCall& call, double scale, const View& saved, const MlpGradients& gradients);

}  // namespace fusegen
