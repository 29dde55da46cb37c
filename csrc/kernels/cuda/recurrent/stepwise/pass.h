// What other files call of the launch way.
#pragma once
#include "tile.h"

namespace fusegen::cuda::stepwise {

// The plan of a product: `blocks` tiles of units, whose rows of R `k_splits` blocks share; `tiles` of 8 rows
// of the batch in a tile, `groups` of these.
Plan choose(const Device& device, const Product& product);

// What a pass keeps in global memory while it runs: offsets in bytes.
struct Workspace {
  int64_t arrivals, carry, between, masked, partials, bytes;
};
Workspace workspace(const Device& device, const LayerSizes& sizes);

// The launches of a pass: one instance a format and pass, each in a file of its own, instantiations/.
template <class T, class Fmt, class Pass>
void run(const Pass& pass);

}  // namespace fusegen::cuda::stepwise
