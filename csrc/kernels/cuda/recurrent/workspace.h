// What a pass keeps in global memory while it runs, and where.
#pragma once
#include "product.h"

namespace fusegen::cuda {

// The plan of a launch a step; every pass can fall back to it.
Plan choose_stepwise(const Device& device, const Product& product);

// Offsets in bytes. A projected LSTM exchanges two vectors in turn: `exchange` holds h (backward: dgates),
// `inner` what W_hr multiplies.
struct Workspace {
  int64_t exchange, inner, carry, inner_carry, flags, bytes;
  int64_t zeroed;  // bytes from the start that must be zero at first
};

Workspace workspace(const Device& device, const Plan& plan, const LayerSizes& sizes);

}  // namespace fusegen::cuda
