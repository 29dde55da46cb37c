// The practical peak of the machine in the instruction set in use (isa/vector/peak.cpp).
#pragma once
#include "select.h"

namespace fusegen {

// float32, of so many threads.
FUSEGEN_KERNEL(double, peak_gflops, int)

}  // namespace fusegen
