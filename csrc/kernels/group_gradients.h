// Gradients of weights that stay apart for each group of the batch: what a kernel is given of it.
#pragma once
#include "params.h"

namespace fusegen {

// One direction of one layer, of a call without resets and masks, from what RecurrentBackward gave.
struct GroupGradients : RecurrentSizes {
  int64_t groups;                         // of B / groups rows each, one after another
  Rows x, h0, y;                          // y may be absent of one step
  Rows gates, cells;                      // of a projection: where dW_hr is wanted
  Rows dgates, dh;                        // as there
  void *dW, *dR, *db_ih, *db_hh, *dW_hr;  // [groups,...], contiguous, written; null: not wanted
};

}  // namespace fusegen
