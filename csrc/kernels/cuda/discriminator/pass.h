// What the files of the discriminator step call of each other.
#pragma once
#include "arguments.h"

namespace fusegen::cuda {

// One instance a format, each in a file of its own; see backend.h for what they return.
template <class T, class Fmt>
MlpRun run_mlp_forward(const MlpForwardPass& p);
template <class T, class Fmt>
MlpRun run_mlp_backward(const MlpBackwardPass& p);

}  // namespace fusegen::cuda
