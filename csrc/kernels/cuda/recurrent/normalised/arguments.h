// What the kernels of normalised cells are launched with, and how a step's numbers lie between them.
#pragma once
#include <device/number.h>

#include "../stepwise/arguments.h"
#include "pass.h"

namespace fusegen::cuda::normalised {

// A step's product of every row of the batch with the blocks of R, in float32: what stepwise::Arguments are
// of. Tiles are of one block each; `weight` is the first block, behind which the next lie, and `vectors` a
// direction's rows, a row being that of all blocks.
struct BlockProduct {
  int D, B, blocks, tiles_of_block;
  float* out;  // [D][B][blocks * units]
};
using ProductArguments = stepwise::Arguments<BlockProduct>;

// Where a unit's gate lies in a row whose blocks follow each other, the gates of a block side by side.
struct BlockPlaces {
  int gates, units;  // of a block
  // Of 2^40: with it the block of a unit is exact for all units that there may be, below 2^20.
  uint64_t reciprocal;

  FUSEGEN_DEVICE int of(int gate, int unit) const {
    const int block = static_cast<int>(static_cast<uint64_t>(unit) * reciprocal >> 40);
    return (block * (gates - 1) + gate) * units + unit;
  }
};

// A step's rows, each a launch's lanes, 32 to 256 of them.
template <class Pass>
struct RowArguments {
  Pass pass;
  BlockPlaces places;
  int log_lanes;      // 2^5 to 2^8 lanes of a row
  int step;           // counts launches of rows. Backward: 0 ran last, T leaves dh0 and dc0
  int t[2];           // of each direction; outside 0..T-1 where only those are left
  float of_group[2];  // 1 / how many numbers a layer norm averages over
  float of_state;
  // [D][B][G*H]: forward R h', and then the output gate; backward [D][B][4*H], what the activations saw
  float* gates;
  void* read;   // [D][B][H] forward: h as R reads it, in the dtype of the call
  float* c;     // [D][B][H] forward c; backward its gradient, of a GRU the part of h's that goes past R
  float* dh;    // [D][B][H] backward: R' times the gradients of the step before it
  float* sums;  // [D][B][vector_sums().all] backward: of the vectors' gradients
};

struct StartArguments {
  NormalisedForwardPass pass;
  void* read;
  float* c;
};

struct TotalArguments {
  NormalisedBackwardPass pass;
  const float* sums;
};

}  // namespace fusegen::cuda::normalised
