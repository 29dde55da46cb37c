// A step of an RNN's unit inside the sequence kernels.
#pragma once
#include "step.h"

namespace fusegen::cuda {

struct Rnn {
  static constexpr int kGates = 1, kColumns = 1;
  static constexpr bool kHasC = false, kSavesGates = false, kTakesHiddenBias = false;

  template <class T>
  static FUSEGEN_DEVICE Made step(const ForwardPass& pass, const float (&x)[1], const float (&sums)[1],
                                  const Before& before) {
    return {before.c, cells::rnn<Math>(pass.cell == Cell::rnn_relu, x[0] + sums[0]), {}};
  }

  static constexpr int column_of(int segment) { return segment; }
};

}  // namespace fusegen::cuda
