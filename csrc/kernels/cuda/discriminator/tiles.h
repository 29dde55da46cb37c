// How large a tile of a product a block takes. Host; in every build.
#pragma once
#include <vector>

#include "../../backend.h"

namespace fusegen::cuda {

template <int rows, int columns>
struct TileSize {
  static constexpr int kM = rows, kN = columns;
};

// Of a block's ring of stages: what a GPU of any generation has, 99 KB being the least; where there are
// warpgroups, 227 KB.
constexpr int ring_bytes(bool warpgroups) { return (warpgroups ? 192 : 96) * 1024; }
// Behind it: of warpgroups a barrier a stage, on which bulk copies count.
constexpr int barrier_bytes(bool warpgroups) { return warpgroups ? 64 : 0; }

struct ProductSize {
  int m, n, k;
  int phase;  // those of one are done together, after those of the phases before
};

// The tile with which these products take the least time. True float32 has no large one, since its split
// halves need the registers; warpgroups multiply 16-bit numbers on GPUs of capability 9 (whose TF32 cuts bits
// off where the others round, and takes no operand across K).
MlpTile choose_tile(const Device& device, Format format, const std::vector<ProductSize>& products);

}  // namespace fusegen::cuda
