// Convolutions and batch norms, in the instruction set in use (isa/convolution).
#pragma once
#include "kernels/params.h"
#include "select.h"

namespace fusegen {

// Samples of a vector: a block's width is one to four times as many.
FUSEGEN_KERNEL(int64_t, conv_lanes, Dtype)
FUSEGEN_KERNEL(void, conv_forward, const ConvForward&)
FUSEGEN_KERNEL(void, conv_input_gradient, const ConvInputGradient&)
FUSEGEN_KERNEL(void, conv_weight_gradient, const ConvWeightGradient&)
FUSEGEN_KERNEL(void, batch_norm_forward, const BatchNormForward&)
FUSEGEN_KERNEL(void, batch_norm_backward, const BatchNormBackward&)

}  // namespace fusegen
