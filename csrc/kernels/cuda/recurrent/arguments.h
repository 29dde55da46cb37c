// What a kernel is launched with: a pass, and what the launcher worked out from its plan.
#pragma once
#include "../operand.h"
#include "product.h"

namespace fusegen::cuda {

// What the blocks of a group hand each other through memory.
struct Exchange {
  unsigned char* rows;  // [parity][D][groups][slices][rows][row_bytes]
  int64_t parity;       // bytes from the even steps' copy to the odd ones'
  int row_bytes;
  uint32_t* flags;  // [D*groups*slices][flag_stride(blocks)]
};

// How a launch lies on the device: its plan as a block sees it.
struct Geometry {
  Transport transport;
  int blocks, k_splits, slices, groups;
  int own_bytes_of_row;  // what a block publishes of a row
  SharedParts shared;
};

// Of a tensor of all steps, in bytes: from a step to the next in time, and from a slice's rows to the next's.
// Far below 2^32: what a step has of all rows lies in the shared memory of the blocks, too.
struct Stride {
  uint32_t step, slice;
  template <class Byte>
  FUSEGEN_DEVICE Byte* at(Byte* first, int t, int number) const {
    return first + static_cast<uint64_t>(static_cast<uint32_t>(t)) * step +
           static_cast<uint64_t>(static_cast<uint32_t>(number)) * slice;
  }
};

template <class Pass>
struct Arguments {
  Pass pass;
  Operand operand;
  Exchange exchange;
  Geometry geometry;
  Stride gx, y, gates, cells;
};

}  // namespace fusegen::cuda
