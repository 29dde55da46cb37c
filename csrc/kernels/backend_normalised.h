// What a GPU backend provides of normalised cells, and of those whose recurrent matrix is of blocks:
// backend.h goes on, with the formulas of normalised.h.
//
// Two launches a step: the product with R, then what wants whole rows of gates. Nothing of `plan`, `masks`,
// `patience` or W_hr is read.
#pragma once
#include "backend.h"
#include "normalised.h"

namespace fusegen::cuda {

// Tiles of the product, of all blocks of R, whose rows `splits` blocks of the device share; `groups` of rows
// of the batch; 2^log_lanes lanes that share a row.
struct NormalisedPlan {
  int tiles, splits, groups, log_lanes;
  int64_t workspace_bytes;
};

struct NormalisedVectors {
  const void *g_ih, *b_ih, *g_hh, *b_hh, *g_c, *b_c;  // as in NormalisedLayer
};
struct NormalisedVectorGradients {
  void *g_ih, *b_ih, *g_hh, *b_hh, *g_c, *b_c;  // or null: not wanted
};

struct NormalisedPass : Recurrence {
  Norm norm;
  int blocks;  // of R, m = H / blocks units each: R[d] is [blocks][G*m, m], the gates of a block side by side
  float eps;
  NormalisedVectors vectors[2];  // of a direction
  NormalisedPlan steps;
};

struct NormalisedForwardPass : NormalisedPass {
  const void* gx;        // [T,B,D*G*H]: W x alone
  const void *h0, *c0;   // [D,B,H], or null: zero
  void *y, *h_n, *c_n;   // [T,B,D*H], [D,B,H]
  void* saved;           // [D,T,B,normalised_saved*H], or null: inference. None of an RNN
  float *cells, *stats;  // [D,T,B,H], [D,T,B,kNormStats], or null
};

struct NormalisedBackwardPass : NormalisedPass {
  const void *dy, *dh_n, *dc_n;  // or null: zero
  const void *y, *h0, *c0, *saved;
  const float *cells, *stats;
  // [T,B,D*G*H], the gradients of W x and of R h', the latter's gates in the order of R[d]'s rows. Null where
  // they are the same: of one block, where there is one norm of the sum, or no norm but of a GRU
  void *dx_part, *dh_part;
  void *dh0, *dc0;             // or null: not wanted
  float *dreset_h, *dreset_c;  // as in BackwardPass
  NormalisedVectorGradients dvectors[2];
};

NormalisedPlan choose_normalised(const Device& device, const LayerSizes& sizes, Norm norm, int blocks);
void normalised_forward(const NormalisedForwardPass& pass);
void normalised_backward(const NormalisedBackwardPass& pass);

}  // namespace fusegen::cuda
