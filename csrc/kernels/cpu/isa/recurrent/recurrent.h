// The recurrence of a cell. Each cell and direction of time is compiled in a file of its own
// (instantiations/), so that they build side by side.
#pragma once
#include "kernels/params.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <Cell cell>
void run_forward(const RecurrentForward& p);
template <Cell cell>
void run_backward(const RecurrentBackward& p);

}  // namespace fusegen::FUSEGEN_ISA_NS
