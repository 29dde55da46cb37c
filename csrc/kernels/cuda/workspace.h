// What a pass keeps in global memory while it runs, and where.
#pragma once
#include "layout.h"

namespace fusegen::cuda {

// The plan of a launch a step; every pass can fall back to it.
Plan choose_stepwise(const Device& device, Kind kind, Format format, bool backward, int B, int units, int D);

// Offsets in bytes. A projected LSTM exchanges two vectors in turn: `exchange` holds h (backward: dgates),
// `inner` what W_hr multiplies.
struct Workspace {
  int64_t exchange, inner, carry, inner_carry, flags, bytes;
  int64_t zeroed;  // bytes from the start that must be zero at first
};

// Numbers of a row that a plan's blocks publish together, for one segment.
int64_t padded_units(const Plan& plan, Kind kind, bool backward);
// Bytes of an exchanged row: whole chunks.
int64_t row_bytes(const Plan& plan, Kind kind, Format format, bool backward);

Workspace workspace(const Device& device, const Plan& plan, Kind kind, Format format, bool backward, int B,
                    int H, int P, int D);

}  // namespace fusegen::cuda
