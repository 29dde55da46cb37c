#include "plan.h"

#include <algorithm>

namespace fusegen::cpu {
namespace {

// Multiply-adds of a step, below which a barrier (0.3 us) costs more than the second thread brings: at 60 to
// 120 of them a nanosecond, what a machine of today reaches, they take 0.3 to 0.5 us.
constexpr int64_t kWorkPerThread = 32 * 1024;

// Up to this many rows, one step is bound by reading the weights once: packing them would read and write them
// again.
constexpr int64_t kSmallStepRows = 8;

// Multiply-adds of one direction.
int64_t all_work(const RecurrentSizes& s) { return s.B * s.T * gate_count(s.cell) * s.H * (s.P + s.I); }

// Whether threads had better not meet at every step: a core's L2 holds all recurrent weights, or a step is
// less work than a barrier.
bool barrier_is_dear(const RecurrentSizes& s, int threads) {
  const int64_t weights = gate_count(s.cell) * s.H * s.P;
  return weights * (s.dtype == Dtype::f64 ? 8 : 4) <= blocks().resident_bytes ||
         s.B * weights < threads * kWorkPerThread;
}

Plan plan(const RecurrentSizes& s, int64_t chunk_rows) {
  Plan p{};
  const bool no_barrier = barrier_is_dear(s, s.threads);
  const int64_t step_work = s.B * gate_count(s.cell) * s.H * s.P;
  p.threads = std::max(1, s.threads);
  p.chunk_rows = chunk_rows;
  if (p.threads == 1) {
    p.why = "one thread was asked for";
  } else if (all_work(s) < 2 * kWorkPerThread) {
    p.threads = 1;
    p.why = "too little work for a second thread";
  } else if (s.T == 1) {
    p.why = "a single step: threads share units, weights are packed block by block as they are used";
  } else if (s.B >= 2 * p.threads && no_barrier) {
    p.over_rows = true;
    p.why = "recurrent weights fit each core's L2, so threads take rows and need no barrier";
  } else if (step_work < p.threads * kWorkPerThread) {
    p.threads = 1;
    p.why = "a barrier at each step would cost more than a second thread brings";
  } else {
    p.why = "each core keeps its share of the recurrent weights near, at a barrier a step";
  }
  if (s.T == 1 && s.B <= kSmallStepRows && !s.project && !s.lengths) {
    p.small_step = true;
    p.why = "a single step of few rows: dot products on the weights as they lie";
  }
  return p;
}

// Rows of an input product, in steps times sequences: as many as keep it in L2 until the steps read it, but
// no fewer than half of kMost, since each weight is read once for so many, and no more than kMost, beyond
// which nothing was gained.
int64_t input_rows(const RecurrentSizes& s) {
  constexpr int64_t kMost = 96;
  const int64_t row = gate_count(s.cell) * s.H * (s.dtype == Dtype::f64 ? 8 : 4);
  return std::clamp(blocks().input_bytes * std::max(1, s.threads) / row, kMost / 2, kMost);
}

// Rows of dgates that become weight gradients at once. The gradients are read and written once for so many:
// at 384 multiply-adds for 8 bytes, a core's 60 to 120 a nanosecond ask for 1.3 to 2.5 GB/s, which memory
// gives beside all else.
constexpr int64_t kGradientRows = 384;

}  // namespace

Blocks blocks_for(const Machine& m) {
  Blocks b{};
  // Beside them lie the activations of a step, and what streams by.
  b.resident_bytes = m.l2 * 5 / 8;
  b.input_bytes = m.l2 / 3;
  // Half of L2; the other half is the panels', which are fetched ahead.
  b.row_bytes = m.l2 / 2;
  // In L1 beside a tile's rows where a panel's step is small enough for a block of useful length, else in L2,
  // of which it takes an eighth.
  b.panel_bytes = std::max(m.l1d * 3 / 4, m.l2 / 8);
  b.column_bytes = m.l2 / 4;
  b.past_cache_bytes = m.l2;
  return b;
}

const Blocks& blocks() {
  static const Blocks chosen = blocks_for(machine());
  return chosen;
}

Plan plan_forward(const RecurrentSizes& s) { return plan(s, input_rows(s)); }
Plan plan_backward(const RecurrentSizes& s) { return plan(s, kGradientRows); }

bool directions_apart(const RecurrentSizes& s) {
  return s.D == 2 && s.threads == 2 && s.T > 1 && all_work(s) >= 2 * kWorkPerThread && barrier_is_dear(s, 2);
}

int plan_threads(const MlpStep& s) {
  int64_t work = 0, inputs = s.inputs;
  for (int l = 0; l < s.depth; ++l) {
    work += (s.real + s.fake + s.mixed) * inputs * s.layers[l].outputs;
    inputs = s.layers[l].outputs;
  }
  return work < 2 * kWorkPerThread ? 1 : std::max(1, s.threads);
}

int plan_threads(const ConvShape& s) {
  const double outputs = static_cast<double>(s.blocks * s.width) * s.out[0] * s.out[1] * s.O;
  const double work = outputs * (s.C / s.groups) * s.kernel[0] * s.kernel[1];
  return work < 2 * kWorkPerThread ? 1 : std::max(1, s.threads);
}

int plan_threads(const BatchNormShape& s) {
  return s.blocks * s.pixels * s.C * s.width < 2 * kWorkPerThread ? 1 : std::max(1, s.threads);
}

}  // namespace fusegen::cpu
