// A layer whose weights have 8 bits: one or two directions, inference.
#pragma once
#include "ops/view.h"

namespace fusegen {

struct Int8Layer {
  Cell cell;
  View x, h0, c0;
  Views packed;            // a blob of int8_pack() a direction
  int64_t hidden, output;  // H and P
  bool project, weight_only;
  View lengths;  // [B] int64
  View y, h_n, c_n;
  int threads;
};
void int8_layer(const Int8Layer& layer);

// Weights of one direction: W, R, W_hr int8 (W_hr absent: no projection), a scale for each of their rows,
// biases float32 or absent.
struct Int8WeightViews {
  Cell cell;
  View W, R, W_hr, s_W, s_R, s_hr, b_ih, b_hh;
  bool weight_only;
};
int64_t int8_packed_bytes(const Int8WeightViews& weights);
void int8_pack(const Int8WeightViews& weights, const View& blob);

// A Linear layer: W [O,I] int8, its scales, b or absent.
struct Int8LinearViews {
  View W, s_W, b;
  bool weight_only;
};
int64_t int8_linear_bytes(const Int8LinearViews& weights);
void int8_linear_pack(const Int8LinearViews& weights, const View& blob);
void int8_linear(const View& x, const View& packed, bool weight_only, const View& y, int threads);

}  // namespace fusegen
