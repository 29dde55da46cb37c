// The recurrence of normalised and of block-diagonal cells, one direction of one layer, in the instruction
// set in use (isa/recurrent/normalised).
#pragma once
#include "kernels/normalised.h"
#include "select.h"

namespace fusegen {

FUSEGEN_KERNEL(void, normalised_forward, const NormalisedForward&)
FUSEGEN_KERNEL(void, normalised_backward, const NormalisedBackward&)

}  // namespace fusegen
