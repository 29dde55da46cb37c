// What a launch of a step is given.
#pragma once
#include "tile.h"

namespace fusegen::cuda::stepwise {

// Of each direction, rows one after another. Forward [gates * units, K]; backward, which multiplies by its
// transpose, [K, units].
struct Weight {
  const void* data[2];
  int units, K;
  bool aligned;  // 16-byte copies fit
};

// The numbers that each row of the batch multiplies, of each direction, `stride` from row to row; null: zero.
struct Vectors {
  const void* data[2];
  int64_t stride;
  // Forward, a sequence that begins with this step has these, h0, instead, and one that starts anew its own.
  bool starts;
  const void* first[2];
  int64_t first_stride;
  bool aligned;  // 16-byte copies fit
};

// Sums of blocks that share rows of R: the last of them to come adds all up, in their order.
struct Partials {
  float* sums;         // [D][tiles][groups][splits][values of a lane][256]
  uint32_t* arrivals;  // [D][tiles][groups], zero between launches
};

// Of a forward step that is halved by a projection: the cell's part gives o tanh(c), the product with W_hr h.
enum class Half : uint8_t { both, cell, projection };

struct StartMasked {
  ForwardPass pass;
  void* copies;  // [2][D][B][P]
};

template <class Pass>
struct Arguments {
  Pass pass;
  Half half;
  int tiles, splits, groups;  // of a direction; splits share K
  Weight weight;
  Vectors vectors;
  int step;  // counts launches. Backward: 0 ran last, T only multiplies, which gives dh0
  int t[2];  // of each direction; outside 0..T-1 where only dh0 is left
  Partials partials;
  float* carry;  // [D][B][H]: c; backward dc of LSTM, of GRU the part of dh that goes past R
  // Of masked calls. Forward, where state dropout is: h as R reads it at the next step, [D][B][P]; backward:
  // [D][B][P], what of dh zoneout hands past the cell.
  void* read_next;
  float* carry_h;
  void* out[2];  // forward: where h (of the cell's half: o tanh(c)) of row 0 goes
  int64_t out_stride;
};

}  // namespace fusegen::cuda::stepwise
