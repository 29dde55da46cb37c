// What the kernel of the discriminator step is launched with.
//
// Rows are samples: real, fake, then mixed. With H the activations, U the adjoints of one logit (u_L = 1), v
// = U_1 W_1 the gradient by the input, T the tangents of v through the same masks, s the derivative of the
// loss by the logit and c the factor of the penalty's direction c v, every weight gradient is one product:
// dW_l = U_l' (s H_{l-1} + c T_{l-1}).
//
// A step that is not plain() has more: dropout, smooth activations, which add R_l' H_{l-1} to the gradient of
// a penalty (docs/penalties.md), approximate penalties, inputs that do not count. It runs kernels of its own
// (step.h), so that the plain one's neither branch for it nor keep registers.
#pragma once
#include <climits>

#include <device/number.h>

#include "../../params.h"
#include "../../philox.h"
#include "../layout.h"

namespace fusegen::cuda {

// Rows of numbers in up to three pieces, one below another.
struct Input {
  const void* data[3];
  int64_t stride[3];  // numbers
  int first[3];       // row of each piece
  bool aligned;       // rows begin on 16 bytes, and the last word of one is whole
};

template <class T>
FUSEGEN_DEVICE const T* row_of(const Input& s, int row) {
  // Written out: an index would put the arguments into local memory.
  const bool second = row >= s.first[1], third = row >= s.first[2];
  const void* data = third ? s.data[2] : second ? s.data[1] : s.data[0];
  const int64_t stride = third ? s.stride[2] : second ? s.stride[1] : s.stride[0];
  const int first = third ? s.first[2] : second ? s.first[1] : s.first[0];
  return static_cast<const T*>(data) + (row - first) * stride;
}

// Some of the rows: i goes to first + i, from `split` on to `jump` more.
struct RowMap {
  int count, first, split, jump;
  constexpr int operator()(int i) const { return first + i + (i >= split ? jump : 0); }
};

// Memory of our own: padded rows of which the first is number `first`.
struct Scratch {
  void* data;
  int stride;  // numbers; what lies past a row's width is zero
  int first;
};

template <class T>
FUSEGEN_DEVICE T* row_of(const Scratch& o, int row) {
  return static_cast<T*>(o.data) + static_cast<int64_t>(row - o.first) * o.stride;
}

// A weight.
struct Weight {
  const void* data;
  int64_t stride;  // numbers
  bool aligned;    // as Input's
};

enum Groups : unsigned { kReal = 1, kFake = 2, kMixed = 4 };

struct Split {
  int real, plain, rows;  // real; and fake; and mixed
};
FUSEGEN_DEVICE bool among(const Split& split, unsigned groups, int row) {
  return groups & (row < split.real ? kReal : row < split.plain ? kFake : kMixed);
}

// Words of a row's mask of n elements, a bit an element.
constexpr int mask_groups(int n) { return ceil_div(n, 4 * philox::kGroup); }

// What dropout drops of rows of n elements.
struct Dropped {
  const uint64_t* bits;  // [all rows, mask_groups(n)], set where an element is dropped; null: none is
  float kept;            // by which the others are multiplied
};

// What becomes of a layer's sums in a step that is not plain (options/finish.h).
enum class Result : uint8_t {
  activations,
  adjoints,
  input_gradient,   // v
  tangents,         // and the first part of R
  sent_back,        // the second, to `out` as it is
  sample_gradient,  // of a penalty, beside s v: a gradient that the caller gets
};

// One layer of all rows: activations, tangents, adjoints or the gradient by the input.
struct LayerArguments {
  Scratch a;  // [rows of the map, K]; null: the samples
  RowMap rows;
  int K, N;
  Weight W;          // [N, K], or of adjoints [K, N]
  bool across;       // the latter
  const void* bias;  // [N], or null
  // activations whose sign masks the result; null: not masked, or by its own sign (`activate`). Of a smooth
  // activation its derivative, dropout's factors in it, which forward writes here
  Scratch mask;
  bool activate;
  float slope;
  Scratch out;  // [rows of the map, N]
  // Of the last hidden layer: the weights [N] of the one logit behind it, and the adjoints that they give
  // there, U = m w, for the same rows. `adjoints` null: not wanted.
  const void* logit_weights;
  Scratch adjoints;

  // -- Of a step that is not plain --
  Result result;
  Activation activation;  // whose value or derivative the result is of
  bool compact;           // `rows` are numbers among the penalised ones
  Dropped dropped;        // of `out`
  // [penalised rows, N] a smooth activation's second derivative, dropout's factors in it, which the adjoints
  // multiply by what comes from above; null: not wanted
  Scratch second;
  Scratch bend;  // [penalised.count, N] the first part of R, written beside tangents; null: not wanted
};

// dW = U' (s H + c T) of one layer.
struct WeightGradient {
  Scratch u;     // [rows, M]
  Scratch h, t;  // [rows, N]; h null: the samples; t null: no tangents
  int M, N;
  void* out;  // [M, N]
  Scratch r;  // [penalised.count, M], which adds R' H; null: nothing. Not of a plain step
};

// out[n] = scale sum over the rows of s x + c t: the gradients of biases and of the last layer.
struct ColumnSum {
  Scratch x, t;  // x null: the samples, `ones`: 1; t null: none
  bool ones;
  int n;
  void* out;
  Scratch r;  // [penalised.count, n], which is added as it is; null: nothing. Not of a plain step
};

// The mask of what a layer reads, of every row.
struct MaskArguments {
  uint64_t* bits;   // [all rows, mask_groups(n)], written
  Scratch samples;  // [all rows, n] those without what is dropped, written; null: of inner layers
  int n;
  uint32_t place;      // of real samples; those of fake and of mixed ones are the next
  uint32_t threshold;  // philox.h
  float kept;
};

// The parts of a step. A unit of the first two is a tile of the result, of sums 32 columns, else 8 rows; the
// totals are one.
enum class Part : uint8_t { layer, product, sum, logits, norms, totals, input_gradients, masks };

struct Job {
  Part part;
  bool waits;  // until all blocks have done the jobs before
  bool bulk;   // of a product by warpgroups: bulk copies bring its operands, see bulk.h
  int units;   // which the blocks share out
  int first;   // the block that takes the first one
  union {
    LayerArguments layer;
    WeightGradient product;
    ColumnSum sum;
    MaskArguments mask;
  };
};

struct LogitArguments {
  Scratch in;         // [rows, n]; null: the samples
  const void *w, *b;  // [n]; [1] or null
  int n;
  Scratch v;  // where there is no hidden layer: v = w, for rows of `groups`; else null
  unsigned groups;
  void* out;        // [real + fake], in the dtype of the call
  Dropped dropped;  // of v; not of a plain step
};

struct TotalArguments {
  GanLoss loss;
  bool generator;
  float target, r1, r2, gp;
  double* scalars;
  float* loss_out;
  // Not of a plain step. T is kept without the second of the factors that dropout of the samples puts before
  // it (v has the first): c takes it.
  float near_real, near_fake, tangents_kept;
};

// Jobs of one launch; what has more takes several.
constexpr int kJobs = 16;

struct StepArguments {
  Split split;
  Input samples;
  int inputs;
  float *logit, *norm2;  // [rows]
  float *s, *c, *unit;   // [rows]; s and c are kept as parts of `unit`, a power of two
  Scratch v;             // [rows of some groups, inputs]
  RowMap penalised;
  LogitArguments logits;
  TotalArguments totals;
  unsigned tangents;   // groups of rows
  const float* scale;  // [], the gradient that reached the loss
  void* dx[2];         // [real, inputs], [fake, inputs], or null
  // -- Of a step that is not plain --
  uint64_t key;            // of the masks
  int own_real, own_fake;  // samples of a group without those with noise, which lie behind them
  int counted;             // of the inputs
  int blocks, jobs;
  Job job[kJobs];
};
static_assert(sizeof(StepArguments) <= 4096, "a kernel's arguments");

}  // namespace fusegen::cuda
