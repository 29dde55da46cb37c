// Gradients of weights apart for each group of the batch, in the instruction set in use (isa/recurrent).
#pragma once
#include "kernels/group_gradients.h"
#include "select.h"

namespace fusegen {

FUSEGEN_KERNEL(void, group_gradients, const GroupGradients&)

}  // namespace fusegen
