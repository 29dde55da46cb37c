// Kernels with a fault each, which the emulator must find.
#pragma once
#include <string>
#include <vector>

namespace simt {

// Runs the kernel of this name and gives what it wrote; throws Stuck where the emulator saw the fault itself.
std::vector<float> planted(const std::string& fault);
std::vector<std::string> planted_faults();

}  // namespace simt
