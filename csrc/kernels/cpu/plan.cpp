#include "plan.h"

#include <algorithm>

namespace fusegen::cpu {
namespace {

// Below this many multiply-adds a step, a barrier (0.3 us) costs more than the second thread brings.
constexpr int64_t kWorkPerThread = 32 * 1024;
// Recurrent weights up to this size stay in one core's L2 beside the activations.
constexpr int64_t kResidentBytes = 640 * 1024;

// Up to this many rows, one step is bound by reading the weights once: packing them would read and write them again.
constexpr int64_t kSmallStepRows = 8;

Plan plan(const RecurrentSizes& s, int64_t chunk_rows) {
  Plan p{};
  const int64_t gates = gate_count(s.cell) * s.H;
  const int64_t weight_bytes = gates * s.P * (s.dtype == Dtype::f64 ? 8 : 4);
  const int64_t step_work = s.B * gates * s.P;
  p.threads = std::max(1, s.threads);
  p.chunk_rows = chunk_rows;
  if (p.threads == 1) {
    p.why = "one thread was asked for";
  } else if (s.B * s.T * gates * (s.P + s.I) < 2 * kWorkPerThread) {
    p.threads = 1;
    p.why = "too little work for a second thread";
  } else if (s.T == 1) {
    p.why = "a single step: threads share units, weights are packed block by block as they are used";
  } else if (s.B >= 2 * p.threads && (weight_bytes <= kResidentBytes || step_work < p.threads * kWorkPerThread)) {
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

}  // namespace

Plan plan_forward(const RecurrentSizes& s) { return plan(s, 96); }
Plan plan_backward(const RecurrentSizes& s) { return plan(s, 384); }

int64_t block_steps(int64_t step_bytes, int64_t most) {
  return std::min<int64_t>(most, std::max<int64_t>(24 * 1024, 64 * 1024) / step_bytes);
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
