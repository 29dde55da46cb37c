// What a kernel is given: plain structs, no Python, no torch. Sizes:
// T steps, B batch, I input, H hidden, P what h_t holds (the projection, or H), G gates.
#pragma once
#include <cstdint>

namespace fusegen {

enum class Dtype : uint8_t { f32, bf16, f16, f64 };
enum class Cell : uint8_t { lstm, gru, rnn_tanh, rnn_relu };

constexpr int gate_count(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }
// Values saved per unit and step for the backward pass. GRU: r, z, n and q = R_n h + b_hn.
constexpr int saved_gates(Cell cell) { return cell == Cell::lstm || cell == Cell::gru ? 4 : 0; }
constexpr int64_t dtype_size(Dtype d) { return d == Dtype::f64 ? 8 : d == Dtype::f32 ? 4 : 2; }

// [T,B,n] or [B,n] with a contiguous last dimension; strides in elements; data == nullptr: absent.
struct Rows {
  void* data = nullptr;
  int64_t stride_t = 0;
  int64_t stride_b = 0;
};

// A weight [rows, columns] with contiguous columns, or absent.
struct Matrix {
  void* data = nullptr;
  int64_t stride = 0;  // elements from row to row
};

// Where sequences start anew, and from what.
struct Resets {
  // [T,B], or null: nowhere. True at t: a boundary between the steps t-1 and t. Forward in time, the state is
  // replaced before step t reads it (of t = 0, h0); in reverse, before step t-1 does (of t = 0, never).
  const bool* at = nullptr;
  int64_t stride_t = 0, stride_b = 0;  // in elements
  Rows h, c;                           // [B,P], [B,H] what the state becomes; absent: zero
};

// The random masks of a call, made from `key` where they are used (philox.h); all zero: none.
struct Masks {
  uint64_t key = 0;
  uint32_t place = 0;                  // of this direction of this layer in the stack: layer * D + direction
  float state_dropout = 0;             // of h where R reads it, one mask [B,P] a sequence
  float candidate_dropout = 0;         // of the LSTM's g, the GRU's n, an RNN's tanh or relu, [T,B,H]
  float zoneout_h = 0, zoneout_c = 0;  // [T,B,P], [T,B,H]: how likely a unit keeps its old state
  bool training = true;                // else zoneout takes its expectation, and nothing is dropped
};

constexpr bool any(const Resets& resets) { return resets.at; }
constexpr bool any(const Masks& m) {
  return m.state_dropout || m.candidate_dropout || m.zoneout_h || m.zoneout_c;
}

struct RecurrentSizes {
  Cell cell;
  Dtype dtype;
  int64_t T, B, I, H, P;
  int64_t D;               // directions of the layer, of which a kernel runs one
  bool project;            // h_t is W_hr times the cell's output, whether or not P is H
  bool reverse;            // runs from the last step to the first
  const int64_t* lengths;  // [B], or null: all T
  int threads;
};

// One direction of one layer. All in the dtype of the call but `cells`, which is float32 also of 16-bit
// types.
struct RecurrentForward : RecurrentSizes {
  Rows x;                   // [T,B,I]
  Rows h0, c0;              // [B,P], [B,H]; absent: zero
  Matrix W, R, W_hr;        // [G*H,I], [G*H,P], [P,H]
  const void *b_ih, *b_hh;  // [G*H], or null
  const void* packed;       // W, R, W_hr as recurrent_pack() laid them out, or null
  Rows y;                   // [T,B,P], written; zero past a sequence's end
  Rows h_n, c_n;            // [B,P], [B,H], written
  // [T,B,saved_gates*H], written where present (training); of an RNN [T,B,H], h before zoneout, where its
  // expectation is taken
  Rows gates;
  Rows cells;  // [T,B,H], written where present (LSTM training)
  Resets resets;
  Masks masks;
  // 0, or k: backward makes the gates again. Of the cells, `cells` [(T-1)/k,B,H] holds those of each
  // sequence's own steps k-1, 2k-1, ...
  int64_t recompute;
};

struct RecurrentBackward : RecurrentSizes {
  Rows dy, dh_n, dc_n;  // gradients that came in; absent: zero
  Rows x, h0, c0;
  Matrix W, R, W_hr;
  Rows y, gates, cells;  // what forward wrote; y may be absent of one step of an LSTM or GRU
  Rows dx;               // [T,B,I], absent: not wanted
  bool add_dx;           // the second direction adds to what the first wrote
  Rows dh0, dc0;         // absent: not wanted
  Matrix dW, dR, dW_hr;  // written, contiguous; absent: not wanted
  void *db_ih, *db_hh;   // or null: not wanted
  Resets resets;
  Masks masks;
  Rows dreset_h, dreset_c;  // [B,P], [B,H], written: summed over all starts; absent: not wanted
  // As in forward. Where not 0, gates are absent (of an LSTM or GRU), and what made them is needed again.
  int64_t recompute;
  const void *b_ih, *b_hh;
  int forward_threads;
  // What those of weights are formed from, written where present, in float32 at least and zero past a
  // sequence's end: gradients of the gates before their activations, [T,B,4H] of LSTM and GRU (n_x, r, z,
  // n_h), [T,B,H] of an RNN; with a projection, of its product, [T,B,P].
  Rows dgates, dh;
};

// W, R, W_hr of one direction into the layout that the kernels of this instruction set read.
struct RecurrentPack {
  Cell cell;
  Dtype dtype;
  int64_t I, H, P;
  Matrix W, R, W_hr;
  void* packed;
  int threads;
};

// A recurrent matrix with elements dropped: R * mask / (1 - rate) by Mask::weight_drop, whose rows are R's.
struct WeightDrop {
  Dtype dtype;
  int64_t rows, columns;
  uint64_t key;
  uint32_t place;
  float rate;
  const void* R;  // contiguous
  void* out;      // likewise, written
  int threads;
};

// -- Weights of 8 bits
// ----------------------------------------------------------------------------------------

// A row of a weight is scale times integers of -127..127. One direction of one layer, contiguous.
struct Int8Pack {
  Cell cell;
  int64_t I, H, P;
  bool project;
  bool weight_only;               // the kernels read activations as float32; else in 8 bits too
  const int8_t *W, *R, *W_hr;     // [G*H,I], [G*H,P], [P,H]
  const float *s_W, *s_R, *s_hr;  // scales of their rows
  const float *b_ih, *b_hh;       // [G*H], or null
  void* packed;
};

// y = W x + b of n rows. Packed with W, its scales and b alone.
struct Int8Linear {
  Dtype dtype;
  int64_t n, I, O;
  bool weight_only;
  const void* packed;
  const void* x;  // [n,I]
  void* y;        // [n,O], written
  int threads;
};
struct Int8LinearPack {
  int64_t I, O;
  bool weight_only;
  const int8_t* W;  // [O,I]
  const float* s_W;
  const float* b;  // [O], or null
  void* packed;
};

struct Int8Forward : RecurrentSizes {
  bool weight_only;
  const void* packed;  // as int8_pack() laid it out
  Rows x, h0, c0;
  Rows y, h_n, c_n;  // written
};

// -- A stack of layers, step by step ------------------------------------------------------------------------

struct StreamLayer {
  int64_t I;
  const void* packed;       // as recurrent_pack() laid its weights out
  const void *b_ih, *b_hh;  // [G*H], or null
};

// All layers are of one cell, H and P; one direction. What lasts from call to call, the states and the biases
// as kernels read them, lies in `memory`, of stream_bytes().
struct Stream {
  Cell cell;
  Dtype dtype;
  int64_t B, H, P;
  bool project;
  const StreamLayer* layers;
  int64_t depth;
  void* memory;
  int64_t taken;  // steps since stream_begin(): the state lies in one of two places by turns
  int threads;
};

struct StreamRun : Stream {
  int64_t T;
  Rows x;  // [T,B,I]
  Rows y;  // [T,B,P], written: of the last layer
};

// The states of all layers, [depth,count,P] and [depth,count,H], stride_t being a layer's.
struct StreamStates : Stream {
  Rows h, c;            // absent: zero, of states that are set
  bool set;             // else they are read
  const int64_t* rows;  // of the batch, [count] of 0..B
  int64_t count;
};

// -- The discriminator step of a network of dense layers (one logit a sample) ---------------------------

enum class GanLoss : uint8_t { non_saturating, minimax, hinge, least_squares, wasserstein, relativistic };

// What stands behind a dense layer.
enum class Activation : uint8_t { piecewise_linear, tanh, sigmoid, silu, gelu, gelu_tanh, elu };

// Whether it has a second derivative.
constexpr bool smooth(Activation a) { return a != Activation::piecewise_linear; }

struct DenseLayer {
  Matrix W;       // [outputs, inputs of this layer]
  const void* b;  // [outputs], or null
  int64_t outputs;
  Activation activation;  // of the last layer, which has one output: piecewise_linear
  // of a piecewise linear activation, its slope below zero: 0 ReLU, 1 none; of ELU its alpha. Not used for
  // the last layer
  double slope;
  // [0, 1): how likely an input of this layer is dropped, one mask for each of real, fake and mixed samples:
  // Mask::discriminator at place 3 * layer + group, its rows numbered within the group; a sample with noise
  // has the mask of the one without
  double dropout;
};

constexpr bool plain(const DenseLayer& layer) { return !smooth(layer.activation) && layer.dropout == 0; }

// What the step is asked for, in the order of its scalars.
enum MlpScalar {
  kLoss,
  kPenalty,
  kMeanReal,
  kMeanFake,
  kSignReal,
  kSignFake,
  kNormReal,
  kNormFake,
  kNormMixed,
  kMlpScalars
};

// Rows are real, fake and mixed samples one after another; mixed ones, the interpolates of WGAN-GP, take part
// in the penalty alone. A generator's step wants the gradient of its loss by the fake samples; real ones only
// where the loss pairs them.
struct MlpStep {
  Dtype dtype;
  GanLoss loss;
  bool generator;
  double target;      // of real samples: 1 - label smoothing
  double r1, r2, gp;  // weights of the penalties; 0: none
  // of approximate ones, w in w/2 mean (D(x + noise) - D(x))^2; 0: none. Of a group that has one the exact
  // penalty's weight is 0, and the second half of the rows are the samples of the first half with noise
  double near_real, near_fake;
  int64_t real, fake, mixed;
  int64_t inputs;
  int64_t counted;  // the first of the inputs: those that count in ||v||; the others get no gradient
  Rows x_real, x_fake, x_mixed;  // [rows, inputs]
  const DenseLayer* layers;
  int depth;
  uint64_t key;           // of the dropout masks
  bool weight_gradients;  // backward will want them
  bool dx_real, dx_fake;  // backward will want the gradient of these inputs
  int threads;
};

// Samples of a group without those that an approximate penalty adds.
constexpr int64_t own_real(const MlpStep& p) { return p.near_real > 0 ? p.real / 2 : p.real; }
constexpr int64_t own_fake(const MlpStep& p) { return p.near_fake > 0 ? p.fake / 2 : p.fake; }

struct MlpForward : MlpStep {
  double* scalars;  // [kMlpScalars], written; norms and signs NaN where there is nothing to tell
  void* logits;     // [real + fake] in the dtype of the call, written
  void* saved;      // of mlp_saved_bytes(), written: what backward needs. Of a GPU, 16-byte aligned
};

struct MlpBackward : MlpStep {
  double scale;  // the gradient that reached the loss
  const void* saved;
  Matrix* dW;  // [depth], contiguous, written; absent: not wanted
  void** db;   // [depth], or null each
  Rows dx[2];  // of real and fake, written where wanted
};

// -- Convolutions and batch norms ---------------------------------------------------------------------------
// Of tensors [blocks, pixels, channels, width]: samples lie side by side, `width` in a block, so that a
// vector holds the same value of so many of them. Two spatial dims, one of size 1 where there is but one; a
// dense layer is one pixel.

struct ConvShape {
  Dtype dtype;            // f32 or f64
  int64_t blocks, width;  // width: 1 to 4 vectors
  int64_t C, O, groups;   // channels in and out
  int64_t in[2], out[2], kernel[2], stride[2], padding[2], dilation[2];
  int threads;
};

struct ConvForward : ConvShape {
  const void* x;  // [blocks, in, C, width]
  const void* W;  // [O, C / groups, kernel]
  const void* b;  // [O], or null
  double slope;   // of the activation below zero: 0 ReLU, 1 none
  void* y;        // [blocks, out, O, width], written
};

struct ConvInputGradient : ConvShape {
  const void* dy;  // [blocks, out, O, width]
  const void* W;
  // [blocks, in, C, width], or null: what an activation gave, the slope of which is applied
  const void* below;
  double slope;
  void* dx;  // [blocks, in, C, width], written
};

struct ConvWeightGradient : ConvShape {
  const void *dy, *x;  // where there is no sample, one is zero and the other finite
  void* dW;            // [O, C / groups, kernel], written
};

struct BatchNormShape {
  Dtype dtype;  // f32 or f64
  int64_t blocks, pixels, C, width;
  int64_t n;  // samples: the first of them; what lies past them takes no part
  double eps;
  double slope;  // of the activation behind it
  int threads;
};

struct BatchNormForward : BatchNormShape {
  const void* x;              // [blocks, pixels, C, width]
  const void *weight, *bias;  // [C], or null
  void* y;                    // as x, written, zero past the samples
  void *mean, *var;           // [C], written; var divides by the count
};

struct BatchNormBackward : BatchNormShape {
  const void *dy, *y, *x;  // y: what forward gave
  const void *weight, *mean, *var;
  void* dx;               // as x, written, zero past the samples; or null
  void *dweight, *dbias;  // [C], written
};

}  // namespace fusegen
