// Which way a call goes: a pure function of its sizes, dtype and thread count. Nothing is timed at run time.
#pragma once
#include "../params.h"

namespace fusegen::cpu {

struct Plan {
  int threads;         // of the parallel region
  bool small_step;     // one step of few rows: dot products on the weights as they lie, nothing packed
  bool over_rows;      // each thread runs the whole sequence on rows of its own; else threads share units
  int64_t chunk_rows;  // rows (steps times active sequences) whose input product is made at once
  const char* why;
};

Plan plan_forward(const RecurrentSizes& s);
Plan plan_backward(const RecurrentSizes& s);

// Threads of a discriminator step: at most those asked for.
int plan_threads(const MlpStep& s);
// Of a convolution, a batch normalisation, likewise.
int plan_threads(const ConvShape& s);
int plan_threads(const BatchNormShape& s);

// Steps of a panel, of so many bytes each, that make a block; at most `most`.
int64_t block_steps(int64_t step_bytes, int64_t most);

}  // namespace fusegen::cpu
