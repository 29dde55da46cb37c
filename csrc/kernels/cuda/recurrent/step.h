// What the sequence kernels hand to a cell's step, and get of it.
#pragma once
#include "../../cells.h"
#include "../sigmoid_tanh.h"
#include "sequence.h"

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

// Backward: where a unit in a row has its numbers.
struct Spot {
  int unit;
  bool first;                   // step of its sequence
  int64_t at, before;           // of y; `before`: of the step that forward ran before
  int64_t saved, saved_before;  // rows of gates and cells
  int64_t state;                // of h0 and c0
};

template <class T>
FUSEGEN_DEVICE void read_gates(float (&gate)[4], const BackwardPass& pass, const Spot& s) {
#pragma unroll
  for (int i = 0; i < 4; ++i) gate[i] = read<T>(pass.gates, (s.saved * 4 + i) * pass.H + s.unit);
}

}  // namespace fusegen::cuda
