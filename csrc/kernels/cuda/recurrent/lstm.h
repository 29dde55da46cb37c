// A step of an LSTM's unit inside the sequence kernels.
#pragma once
#include "step.h"

namespace fusegen::cuda {

struct Lstm {
  static constexpr int kGates = 4;
  static constexpr int kColumns = 4;  // of a unit's gradients in dgates: i, f, g, o
  static constexpr bool kHasC = true, kSavesGates = true, kTakesHiddenBias = false;

  // `x`: W x and the biases; `sums`: R h.
  template <class T>
  static FUSEGEN_DEVICE Made step(const ForwardPass&, const float (&x)[4], const float (&sums)[4],
                                  const Before& before) {
    const auto v =
        cells::lstm<Math>(x[0] + sums[0], x[1] + sums[1], x[2] + sums[2], x[3] + sums[3], before.c);
    return {v.c, v.h, {v.i, v.f, v.g, v.o}};
  }

  static constexpr int column_of(int segment) { return segment; }
};

}  // namespace fusegen::cuda
