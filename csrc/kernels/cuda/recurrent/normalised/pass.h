// What the files of normalised cells call of each other. No CUDA.
#pragma once
#include <algorithm>

#include "../../../backend_normalised.h"
#include "../stepwise/tile.h"

namespace fusegen::cuda::normalised {

// Rows of the batch in a product's tile. One size for all batches: of few rows the products are read from
// memory for longer than the padding takes to multiply.
constexpr int kRows = 32;
using ProductTile = stepwise::Tile<1, kRows>;

// A block of R times its units of a row. Forward [G*m, m]; backward its transpose.
constexpr stepwise::Product product_of(const LayerSizes& s, int blocks) {
  const int m = s.H / blocks, gates = gate_count(s.cell) * m;
  return s.backward ? stepwise::Product{1, m, gates, s.format, s.B, s.D}
                    : stepwise::Product{1, gates, m, s.format, s.B, s.D};
}

// Of the gradients of gains and biases, which are added up in float32 for each row of the batch: where each
// begins, -1 where there is none.
struct VectorSums {
  int b_ih, g_ih, g_hh, b_hh, g_c, b_c, all;
};
constexpr VectorSums vector_sums(Norm norm, Cell cell, int H) {
  const int GH = gate_count(cell) * H;
  VectorSums s{0, -1, -1, -1, -1, -1, GH};
  const auto take = [&](bool there, int n) {
    const int at = there ? s.all : -1;
    s.all += there ? n : 0;
    return at;
  };
  s.g_ih = take(norm != Norm::none, GH);
  s.g_hh = take(norms_apart(norm), GH);
  // where W x and R h' have one sum, their biases have one gradient
  s.b_hh = take(cell == Cell::gru && norm != Norm::dreamer, GH);
  s.g_c = take(norms_state(norm, cell), H);
  s.b_c = take(norms_state(norm, cell), H);
  return s;
}

// Lanes that share a row: of small layers a block takes several rows.
constexpr int log_lanes_of_row(int H) {
  int log_lanes = 5;
  while (log_lanes < 8 && 1 << log_lanes < H) ++log_lanes;
  return log_lanes;
}

// What a pass keeps in global memory while it runs: offsets in bytes. Zero at first: what comes before
// `gates`.
struct Workspace {
  int64_t arrivals, sums, gates, read, c, dh, partials, bytes;
};
Workspace workspace(const NormalisedPlan& plan, const LayerSizes& sizes, Norm norm);

// The launches of a pass: one instance a format and pass, instantiations/.
template <class T, class Fmt>
void run_forward(const NormalisedForwardPass& pass);
template <class T, class Fmt>
void run_backward(const NormalisedBackwardPass& pass);

}  // namespace fusegen::cuda::normalised
