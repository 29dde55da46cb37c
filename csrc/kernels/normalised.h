// What the kernels of normalised cells, and of cells whose recurrent matrix is of blocks, are given. Sizes
// and notation as in params.h; P is H.
#pragma once
#include "params.h"

namespace fusegen {

// What is done to W x and R h' before the cell's activations (python/fusegen/ops/normalised/formula.py has
// the formulas): nothing but biases; layer norms of each apart, over all gates or, of Ba's GRU, over r and z
// and over n; one layer norm over their sum.
enum class Norm : uint8_t { none, haste, ba, dreamer };

constexpr bool norms_apart(Norm norm) { return norm == Norm::haste || norm == Norm::ba; }
// What a layer norm of a row of gates averages over: all of them, or [0, 2H) and [2H, 3H).
constexpr int norm_groups(Norm norm, Cell cell) { return norm == Norm::ba && cell == Cell::gru ? 2 : 1; }
// Whether the state of an LSTM is normalised where the output gate reads it.
constexpr bool norms_state(Norm norm, Cell cell) { return norms_apart(norm) && cell == Cell::lstm; }
// Values saved per unit and step: those of a plain cell, then the normalised W x and R h', or their sum.
constexpr int normalised_saved(Norm norm, Cell cell) {
  return saved_gates(cell) + (norms_apart(norm) ? 2 : norm == Norm::dreamer ? 1 : 0) * gate_count(cell);
}
// Of GRU's update gate, what keeps the old state is sigmoid(sign a_z + shift).
constexpr int keep_sign(Norm norm) { return norm == Norm::none || norm == Norm::haste ? 1 : -1; }
constexpr int keep_shift(Norm norm) { return norm == Norm::dreamer ? 1 : 0; }

// Statistics saved of a row and step: 1 / the deviation of W x (1 of Ba's n), of R h' or the sum (3 of Ba's
// n); of an LSTM whose state is normalised, 1 is the mean of c and 3 is 1 / its deviation.
constexpr int64_t kNormStats = 4;

// One direction of one layer. All in the dtype of the call but cells and statistics, which are float32 also
// of 16-bit types.
struct NormalisedLayer : RecurrentSizes {
  Norm norm;
  int64_t blocks;  // of R, on its diagonal: row j H + u of it reads the units of u's block alone
  double eps;
  Rows x;       // [T,B,I]
  Rows h0, c0;  // [B,H]; absent: zero
  Matrix W, R;  // [G*H,I], [G*H,H/blocks]
  // Gains and biases behind the layer norms, [G*H], of W x (of the sum: only these) and of R h'; [H] of c.
  // Where nothing is normalised there are biases alone. Biases may be null.
  const void *g_ih, *b_ih, *g_hh, *b_hh, *g_c, *b_c;
  Resets resets;
};

struct NormalisedForward : NormalisedLayer {
  Rows y;         // [T,B,H], written; zero past a sequence's end
  Rows h_n, c_n;  // [B,H], written
  Rows saved;     // [T,B,normalised_saved*H], written where present (training)
  Rows cells;     // [T,B,H], written where present (LSTM training)
  Rows stats;     // [T,B,kNormStats], written where present (training with a norm)
};

struct NormalisedBackward : NormalisedLayer {
  Rows dy, dh_n, dc_n;  // gradients that came in; absent: zero
  Rows y, saved, cells, stats;
  Rows dx;                                            // [T,B,I], absent: not wanted
  bool add_dx;                                        // the second direction adds to what the first wrote
  Rows dh0, dc0, dreset_h, dreset_c;                  // [B,H], absent: not wanted
  Matrix dW, dR;                                      // written, contiguous; absent: not wanted
  void *dg_ih, *db_ih, *dg_hh, *db_hh, *dg_c, *db_c;  // or null: not wanted
};

}  // namespace fusegen
