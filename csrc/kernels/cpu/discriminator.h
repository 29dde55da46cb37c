// The discriminator step of a dense network, in the instruction set in use (isa/discriminator).
#pragma once
#include "kernels/params.h"
#include "select.h"

namespace fusegen {

FUSEGEN_KERNEL(int64_t, mlp_saved_bytes, const MlpStep&)
FUSEGEN_KERNEL(void, mlp_forward, const MlpForward&)
FUSEGEN_KERNEL(void, mlp_backward, const MlpBackward&)

}  // namespace fusegen
