// What an earlier call on a GPU left for the host.
#pragma once
#include "ops/view.h"

namespace fusegen {

// Raises what is in the word `error`, int64 [1] in host memory, and clears it.
void raise_what_was_left(const View& error);

}  // namespace fusegen
