// What the files of a recurrence call of each other. No CUDA.
#pragma once
#include "product.h"

namespace fusegen::cuda {

// The plan of a launch a step; every pass can fall back to it.
Plan choose_stepwise(const Device& device, const LayerSizes& sizes);

// What a pass keeps in global memory while it runs: offsets in bytes. A launch a step, which every pass can
// fall back to, has its own (stepwise/pass.h), counted in `bytes`.
struct Workspace {
  int64_t exchange, flags, carry, bytes;
  int64_t zeroed;  // bytes from the start that must be zero at first
};

Workspace workspace(const Device& device, const Plan& plan, const LayerSizes& sizes);

// The launches of a pass: one instance a format and pass, each in a file of its own, instantiations/.
template <class T, class Fmt, class Pass>
Transport run(const Pass& pass);

}  // namespace fusegen::cuda
