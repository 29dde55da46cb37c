// One layer, one or two directions: checks, then a kernel call for each direction. Shapes are those of
// params.h with D directions in front of states and saved values, and side by side in y: [T,B,D*P].
#pragma once
#include "ops/view.h"

namespace fusegen {

struct LayerForward {
  Cell cell;
  View x, h0, c0;
  Views weights;  // per direction W, R, b_ih, b_hh and, for LSTM, W_hr
  View lengths;   // [B] int64
  View y, h_n, c_n, gates, cells;
  Views packed;  // one blob of pack() a direction, or empty
  int threads;
};

struct LayerBackward {
  Cell cell;
  View dy, dh_n, dc_n;
  View x, h0, c0;
  Views weights;
  View lengths;
  View y, gates, cells;  // y may be absent of one step of an LSTM or GRU
  View dx, dh0, dc0;
  Views dweights;
  View dgates, dh;  // what gradients of weights are formed from, where wanted
  int threads;
};

void layer_forward(const LayerForward& layer);
void layer_backward(const LayerBackward& layer);

// Weights of one direction as the kernels read them. P of a projection, else 0.
int64_t packed_bytes(Cell cell, Dtype dtype, int64_t I, int64_t H, int64_t P);
void pack_weights(Cell cell, const Views& weights, const View& blob, int threads);

}  // namespace fusegen
