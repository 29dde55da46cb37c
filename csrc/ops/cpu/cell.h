// One step of a cell for a batch: a layer of one step without directions. x [B,I], states [B,H], saved values
// [B,n].
#pragma once
#include "layer.h"

namespace fusegen {

void cell_forward(const LayerForward& step);
void cell_backward(const LayerBackward& step);

}  // namespace fusegen
