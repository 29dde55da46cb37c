// One layer of normalised cells, or of cells whose recurrent matrix is of blocks, in one or two directions:
// checks, then a kernel call for each. Shapes are those of kernels/normalised.h with D directions in front of
// states and saved values, and side by side in y: [T,B,D*H].
#pragma once
#include <string>

#include "kernels/normalised.h"
#include "ops/view.h"

namespace fusegen {

constexpr int kNormalisedWeights = 8;  // of a direction: W, R, g_ih, b_ih, g_hh, b_hh, g_c, b_c

struct NormalisedCall {
  Cell cell;
  Norm norm;
  int64_t blocks;
  double eps;
  View x, h0, c0;
  Views weights;
  View lengths;                   // [B] int64
  View resets, reset_h, reset_c;  // [T,B] uint8, [D,B,H]
  int threads;
};

struct NormalisedLayerForward : NormalisedCall {
  View y, h_n, c_n, saved, cells, stats;
};

struct NormalisedLayerBackward : NormalisedCall {
  View dy, dh_n, dc_n;
  View y, saved, cells, stats;
  View dx, dh0, dc0, dreset_h, dreset_c;
  Views dweights;
};

void normalised_forward(const NormalisedLayerForward& layer);
void normalised_backward(const NormalisedLayerBackward& layer);

}  // namespace fusegen
