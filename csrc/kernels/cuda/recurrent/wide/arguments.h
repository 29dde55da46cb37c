// What the wide kernels are launched with.
#pragma once
#include "../arguments.h"
#include "shared.h"

namespace fusegen::cuda::wide {

struct Arguments {
  ForwardPass pass;
  Exchange exchange;  // of rows of H numbers
  int blocks, slices, groups, stages;
  SharedParts shared;
  Stride gx, y, gates, cells;
};

}  // namespace fusegen::cuda::wide
