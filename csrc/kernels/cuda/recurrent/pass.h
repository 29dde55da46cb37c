// What the files of a recurrence call of each other. No CUDA.
#pragma once
#include "product.h"

namespace fusegen::cuda {

// The plan of a launch a step; every pass can fall back to it.
Plan choose_stepwise(const Device& device, const LayerSizes& sizes);

// Whether backward of an unprojected layer can take this transport: `plan` is then how.
bool plan_backward(Plan& plan, const LayerSizes& sizes, const Device& device, Transport transport);

// Clusters of this size that are surely resident together.
int clusters(const Device& device, int size);
// Deals B rows, in slices of so many tiles, over at most `most` groups.
void deal(Plan& plan, int B, int tiles, int most);
int power_of_two(int n);  // the next, n itself where it is one

// What a pass keeps in global memory while it runs: offsets in bytes. A launch a step, which every pass can
// fall back to, has its own (stepwise/pass.h), counted in `bytes`.
struct Workspace {
  int64_t exchange, flags, bytes;
  int64_t zeroed;  // up to here what must be zero at first: forward all, backward the flags alone
};

Workspace workspace(const Device& device, const Plan& plan, const LayerSizes& sizes);

// The launches of a pass: one instance a format and pass, each in a file of its own, instantiations/.
template <class T, class Fmt, class Pass>
Transport run(const Pass& pass);

}  // namespace fusegen::cuda
