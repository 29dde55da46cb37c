// Which way a call goes: a pure function of its sizes, dtype, thread count and the machine's caches. Nothing
// is timed at run time.
#pragma once
#include "kernels/params.h"
#include "machine.h"

namespace fusegen::cpu {

struct Plan {
  int threads;         // of the parallel region
  bool small_step;     // one step of few rows: dot products on the weights as they lie, nothing packed
  bool over_rows;      // each thread runs the whole sequence on rows of its own; else threads share units
  int64_t chunk_rows;  // rows (steps times active sequences) whose input product is made at once
  const char* why;
};

// Of one direction of a layer.
Plan plan_forward(const RecurrentSizes& s);
Plan plan_backward(const RecurrentSizes& s);

// Of a layer: whether each of two threads runs one of its two directions, alone, whose plan is then that of
// one thread. No barrier is needed, and each core keeps the recurrent weights of its direction.
bool directions_apart(const RecurrentSizes& s);

// Threads of a discriminator step: at most those asked for.
int plan_threads(const MlpStep& s);
// Of a convolution, a batch normalisation, likewise.
int plan_threads(const ConvShape& s);
int plan_threads(const BatchNormShape& s);

// Sizes that follow from the caches of the machine.
struct Blocks {
  // recurrent weights that stay in one core's L2 while it runs whole sequences on rows of its own
  int64_t resident_bytes;
  // of an input product that a thread makes at once, and reads again in the steps that follow
  int64_t input_bytes;
  int64_t row_bytes;         // rows of a product that the panels pass over
  int64_t panel_bytes;       // of a panel, that the tiles of these rows pass over
  int64_t column_bytes;      // columns of a weight gradient that the panels pass over
  int64_t past_cache_bytes;  // a result larger than this, written once, goes past the caches
};
Blocks blocks_for(const Machine& machine);
const Blocks& blocks();  // of this machine

}  // namespace fusegen::cpu
