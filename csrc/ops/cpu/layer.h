// One layer, one or two directions: checks, then a kernel call for each direction. Shapes are those of
// params.h with D directions in front of states and saved values, and side by side in y: [T,B,D*P].
#pragma once
#include <array>

#include "ops/view.h"

namespace fusegen {

// What may happen inside the recurrence (Resets, Masks of params.h).
struct LayerInside {
  View resets;            // [T,B] bool
  View reset_h, reset_c;  // [D,B,P], [D,B,H]
  View key;               // int64, of masks
  // of recurrent dropout on the state and on the candidate, zoneout of h and c
  std::array<double, 4> rates{};
  int64_t layer = 0;  // of the stack
  bool training = true;
};

struct LayerForward {
  Cell cell;
  View x, h0, c0;
  Views weights;  // per direction W, R, b_ih, b_hh and, for LSTM, W_hr
  View lengths;   // [B] int64
  View y, h_n, c_n, gates, cells;
  Views packed;  // one blob of pack() a direction, or empty
  int threads;
  // 0, or k: no gates are given, and of an LSTM's cells those of every k-th step, [D,(T-1)/k,B,H]
  int64_t recompute = 0;
  LayerInside inside{};
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
  int threads;
  int64_t recompute = 0;  // as forward had it, on as many threads
  View dgates{}, dh{};    // what gradients of weights are formed from, where wanted
  LayerInside inside{};
  View dreset_h{}, dreset_c{};
};

// R [G*H,P], contiguous, with elements dropped; `out` of the same shape. `key` as above.
struct DroppedWeight {
  View R, key;
  int64_t place;
  double rate;
  View out;
  int threads;
};
void weight_drop(const DroppedWeight& weight);

void layer_forward(const LayerForward& layer);
void layer_backward(const LayerBackward& layer);

// Gradients of weights apart for each of `groups` that the batch is made of, from what layer_backward gave of
// a call without resets and masks.
struct LayerGroups {
  Cell cell;
  int64_t groups;
  View x, h0;
  Views weights;
  View lengths;
  View y, gates, cells;  // as above; gates and cells where a W_hr's gradient is wanted
  View dgates, dh;
  Views dweights;  // [groups,...]
  int threads;
};
void layer_group_gradients(const LayerGroups& layer);

// Weights of one direction as the kernels read them. P of a projection, else 0.
int64_t packed_bytes(Cell cell, Dtype dtype, int64_t I, int64_t H, int64_t P);
void pack_weights(Cell cell, const Views& weights, const View& blob, int threads);

}  // namespace fusegen
