// A step of a GRU's unit inside the sequence kernels.
#pragma once
#include "step.h"

namespace fusegen::cuda {

struct Gru {
  static constexpr int kGates = 3;
  // n_x, r, z, n_h: the first three feed dx and dW, the last three R's product and dR.
  static constexpr int kColumns = 4;
  static constexpr bool kHasC = false, kSavesGates = true, kTakesHiddenBias = true;

  template <class T>
  static FUSEGEN_DEVICE Made step(const ForwardPass&, const float (&x)[3], const float (&sums)[3],
                                  const Before& before) {
    const float q = sums[2] + before.b_hn;
    const auto v = cells::gru<Math>(x[0] + sums[0], x[1] + sums[1], x[2], q, before.h);
    return {before.c, v.h, {v.r, v.z, v.n, q}};
  }

  static constexpr int column_of(int segment) { return segment + 1; }
};

}  // namespace fusegen::cuda
