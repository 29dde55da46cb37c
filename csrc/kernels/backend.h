// What a GPU backend provides: kernels/cuda/ or, where it was not built, no_cuda.cpp, which throws. All
// pointers are of the device unless said otherwise; nothing allocates device memory, waits for the device or
// reads from it.
//
// Of a recurrence, torch multiplies by the input weights before, and forms the weight gradients after; the
// backend owns what must go step by step. G gates, K numbers that a step multiplies: P forward, G*P backward.
#pragma once
#include "device_error.h"
#include "params.h"

namespace fusegen::cuda {

// How the blocks that share a sequence hand each other a step.
enum class Transport : uint8_t {
  launch,   // a launch a step: anything fits, R is read again at every step
  block,    // one block holds all of R
  l2,       // through global memory, with flags; all blocks resident
  cluster,  // through each other's shared memory
};

struct Device {
  int sms;
  int shared_bytes;  // the most a block may have
  int major;         // of the compute capability
  int code;          // the capability that the code loaded there was compiled for, times 10: see Code
  int largest_cluster;
};

// One of this capability: clusters came with 9.0, and are of 8 blocks at most from 12.0 on. The code has to
// know them too: what the driver makes of PTX of compute_80 does not, on whatever GPU.
constexpr Device device_of(int sms, int shared_bytes, int major, int code) {
  return {sms, shared_bytes, major, code, major < 9 || code < 90 ? 1 : major < 12 ? 16 : 8};
}

// What the driver has loaded of the build's kernels for a device: machine code of `binary`, compiled from
// PTX of `ptx` (90: of compute_90), which says what the code knows. They differ where the build has none for
// this GPU and the driver compiled its PTX.
struct Code {
  int binary, ptx;
};

// How a recurrence lies on a device. A group of `blocks` holds R once and owns tiles*8*slices rows of the
// batch; directions are further groups. In a block, warps share units and, where R's rows are long, their
// columns.
struct Plan {
  Transport transport;
  int blocks;    // of a group
  int k_splits;  // warps that share a row of R; 8 / k_splits warps share units
  int shape;     // backward: of a block's share of R, see cuda/recurrent/backward/shard.h
  int tiles;     // of 8 rows of the batch, in a slice
  int slices;    // of a group, one after another in each step
  int groups;    // of a direction
  int shared_bytes;
  int64_t workspace_bytes;
  const char* why;
};

enum class Format : uint8_t { bf16, f16, f32, tf32 };

constexpr Format format_of(Dtype dtype, bool tf32) {
  return dtype == Dtype::bf16  ? Format::bf16
         : dtype == Dtype::f16 ? Format::f16
         : tf32                ? Format::tf32
                               : Format::f32;
}

// What the plan of a pass over a layer depends on, beside the device.
struct LayerSizes {
  Cell cell;
  Format format;
  bool backward;
  int B, H, P, D;
  bool resets;  // sequences start anew inside the call: blocks then keep from what
  bool masked;  // some of Masks is asked for: by a launch a step alone
};

// Where sequences start anew inside a call, and from what (params.h, Resets): of all directions.
struct Boundaries {
  const bool* at;     // [T,B], or null: nowhere
  uint32_t* bits;     // of boundary_bytes(), written ahead of the pass (cuda/recurrent/boundaries.h)
  const void *h, *c;  // [D,B,P], [D,B,H] what the state becomes, or null: zero
};

// Words of a bit for each row of the batch, whole copies of 16 bytes.
constexpr int boundary_words(int B) { return (B + 127) / 128 * 4; }
constexpr int64_t boundary_bytes(int64_t T, int B, int D) { return D * (T + 1) * boundary_words(B) * 4; }

struct Recurrence : LayerSizes {
  int64_t T;
  const int64_t* lengths;  // [B], or null. A value outside 0..T is taken as the nearest; `error` says so
  Boundaries boundaries;
  Masks masks;          // place: of direction 0
  const void* R[2];     // of a direction: [G*H, P]
  const void* W_hr[2];  // [P, H], or null
  Plan plan;
  void* workspace;   // plan.workspace_bytes, 16-byte aligned
  int64_t* error;    // host memory that the device can write: see device_error.h
  int64_t patience;  // nanoseconds that blocks wait for each other; 0: for ever
  void* stream;
  int device;
};

struct ForwardPass : Recurrence {
  const void* gx;       // [T,B,D*G*H]: W x and the biases; GRU without b_hn
  const void* b_hn[2];  // [H], or null
  const void *h0, *c0;  // [D,B,P], [D,B,H], or null: zero
  void* y;              // [T,B,D*P]
  void *h_n, *c_n;      // [D,B,P], [D,B,H]
  // [D,T,B,saved*H], or null: inference. Of an RNN, whose zoneout takes its expectation, [D,T,B,H]: h before
  // it
  void* gates;
  float* cells;  // [D,T,B,H], or null
};

struct BackwardPass : Recurrence {
  const void *dy, *dh_n, *dc_n;  // or null: zero
  const void *y, *h0, *c0, *gates;
  const float* cells;
  void* dgates;     // [T,B,D*G*H], of gx. GRU: [T,B,D*4H], columns n_x, r, z, n_h
  void* dh;         // [T,B,D*P], the gradient of W_hr's product; only where there is one
  void *dh0, *dc0;  // or null: not wanted
  // [D,B,P], [D,B,H], zero at first: the gradients that reach what the state becomes at a boundary are added;
  // or null: not wanted
  float *dreset_h, *dreset_c;
};

// A mask as a tensor (philox.h).
struct MaskPass {
  uint64_t key;
  uint32_t mask, place;  // philox::Mask
  float rate;
  int64_t rows, n;
  bool* dropped;  // [rows,n], written
  void* stream;
  int device;
};

// -- One step of a cell --

// The products W x and R h are the kernel's own where the plan says so; else torch's, and what it made comes
// in.
struct CellPlan {
  bool multiplies;
  int blocks, k_splits, tiles, groups;  // as in Plan
  int shared_bytes;
  const char* why;
};

struct CellForwardPass {
  Cell cell;
  Format format;
  int B, I, H;
  CellPlan plan;
  const void *x, *h, *c;            // [B,I], [B,H], [B,H]; h, c null: zero
  const void *W, *R, *b_ih, *b_hh;  // [G*H,I], [G*H,H], [G*H]; biases may be null
  // [B,G*H], the products, where the plan leaves them to torch; LSTM and RNN: x_gates
  const void *x_gates, *h_gates;
  // is the sum of both, h_gates null
  void *h_out, *c_out;  // [B,H]
  void* gates;          // [B,4H], or null: inference; RNN: null
  float* cells;         // [B,H], or null
  void* stream;
  int device;
};

struct CellBackwardPass {
  Cell cell;
  Format format;
  int B, H;
  const void *dh, *dc;                // [B,H], or null: zero
  const void *h, *c, *h_out, *gates;  // h, c null: zero; h_out: RNN alone; gates: all but RNN
  const float* cells;
  void *dx_gates, *dh_gates;  // [B,G*H], of W x and of R h; dh_gates where they differ (GRU)
  // [B,H] the part of h's gradient beside R (GRU), of c; or null: not wanted
  void *dh_direct, *dc_in;
  void* stream;
  int device;
};

CellPlan choose_cell(const Device& device, Cell cell, Format format, int B, int I, int H);
void cell_forward(const CellForwardPass& pass);
void cell_backward(const CellBackwardPass& pass);

// -- The discriminator step of a dense network: params.h, all of it in device memory --

struct MlpPlace {
  Format format;
  void* stream;
  int device;
};

// The tile of a product that a block takes: 32 x 32, 64 x 64 or 128 x 128 numbers, these by warps or by
// warpgroups.
enum class MlpTile : uint8_t { small, medium, large, warpgroups };

// How a pass ran.
struct MlpRun {
  // False where the device cannot hold all blocks of a launch at once, and each of its phases was a launch of
  // its own.
  bool together;
  MlpTile tile;
  int products;
  // Of these, by warpgroups: whose operands bulk copies brought. Rows that do not begin on 16 bytes, of the
  // samples or a weight, keep one from it: lanes copy both operands.
  int bulk;
  // Tiles of the latter in which lanes copied all the same, since they hold 64 rows that do not lie on end.
  int torn_tiles;
};

// `saved` is of mlp_saved_bytes(), 16-byte aligned. A pass is one launch, of a deep network a few.
struct MlpForwardPass : MlpForward, MlpPlace {
  float* loss_out;  // [], written: scalars[kLoss]
};

struct MlpBackwardPass : MlpBackward, MlpPlace {
  const float* scale_in;  // [], instead of `scale`: the host does not know it
  void* workspace;        // of mlp_workspace_bytes(), 16-byte aligned
};

int64_t mlp_saved_bytes(const MlpStep& step);
int64_t mlp_workspace_bytes(const MlpStep& step);  // of backward
MlpRun mlp_forward(const MlpForwardPass& pass);
MlpRun mlp_backward(const MlpBackwardPass& pass);

// -- The device --

int device_type();  // of its tensors, in DLPack's numbers
Device device(int index);
Code code(int index);

// A pure function of its arguments. `transport` is the one to take where it can be taken, else the next
// simpler; from -1 the best.
Plan choose(const Device& device, const LayerSizes& sizes, int transport);

// Return the transport that was taken: the plan's, or the next that the device can hold: through L2 for a
// cluster, else a launch a step.
Transport forward(const ForwardPass& pass);
Transport backward(const BackwardPass& pass);

void make_mask(const MaskPass& pass);

}  // namespace fusegen::cuda
