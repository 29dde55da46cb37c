// What a kernel is launched with: a pass, and what the launcher worked out from its plan.
#pragma once
#include "layout.h"

namespace fusegen::cuda {

// A matrix whose rows a warp multiplies: `segments` stretches of `valid` numbers, each standing for `padded`
// of the exchanged vector.
struct Operand {
  const void* data[2];  // of a direction
  int stride;           // numbers from row to row
  int units;            // rows of a gate
  int segments, valid, padded;
  bool aligned;  // 16-byte loads fit
  int chunks;    // of the padded row, in all
};

struct Exchange {
  unsigned char* gather;  // [parity][D][groups][slices][rows][gather_bytes]
  unsigned char* publish;
  int64_t gather_parity, publish_parity;  // bytes from the even steps' copy to the odd ones'; 0: one copy
  int gather_bytes, publish_bytes;        // of a row
  uint32_t* flags;                        // [D*groups*slices][blocks], or null
};

struct Place {
  Transport transport;
  int blocks, k_splits, slices, groups;
  bool resident;         // R stays in registers
  int own_bytes_of_row;  // what a block publishes of a row
  SharedParts shared;
};

struct ForwardArguments {
  ForwardPass pass;
  Operand operand;
  Exchange exchange;
  Place place;
  int first, last;  // steps of this launch; -1 hands out h0
  float* carry;     // [2][D][B][H]: c and h between launches
  bool project;     // the product goes on to W_hr: h is not known yet
};

struct BackwardArguments {
  BackwardPass pass;
  Operand operand;
  Exchange exchange;
  Place place;
  int first, last;  // steps of this launch; T only multiplies, for dh0
  float* carry;     // [2][D][B][H]: dc and dh between launches
  bool project;     // dh comes from W_hr's product: dy and dh_n were added there
};

}  // namespace fusegen::cuda
