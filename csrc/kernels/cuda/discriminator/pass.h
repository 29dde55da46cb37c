// What the files of the discriminator step call of each other.
#pragma once
#include "arguments.h"

namespace fusegen::cuda {

void launch_totals(const TotalArguments& a, void* stream);

// One instance a format, each in a file of its own.
template <class T, class Fmt>
void run_mlp_forward(const MlpForwardPass& p);
template <class T, class Fmt>
void run_mlp_backward(const MlpBackwardPass& p);

}  // namespace fusegen::cuda
