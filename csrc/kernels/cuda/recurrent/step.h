// What the sequence kernels hand to a cell's step, and get of it.
#pragma once
#include "../../cells.h"
#include "../access.h"
#include "../sigmoid_tanh.h"
#include "arguments.h"

namespace fusegen::cuda {

// Forward: a unit in a row, before the step.
struct Before {
  float c, h;
  float b_hn;  // GRU's
};
struct Made {
  float c, h;
  float saved[4];  // for backward; RNN has none
};

}  // namespace fusegen::cuda
