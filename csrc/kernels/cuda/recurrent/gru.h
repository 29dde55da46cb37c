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
  static FUSEGEN_DEVICE Made step(const Arguments<ForwardPass>&, const float (&x)[3], const float (&sums)[3],
                                  const Before& before) {
    const float q = sums[2] + before.b_hn;
    const auto v = cells::gru<Math>(x[0] + sums[0], x[1] + sums[1], x[2], q, before.h);
    return {before.c, v.h, {v.r, v.z, v.n, q}};
  }

  struct Saved {
    float gate[4], h_prev;
  };
  template <class T>
  static FUSEGEN_DEVICE Saved read_saved(const Arguments<BackwardPass>& a, const Spot& s) {
    Saved v;
    read_gates<T>(v.gate, a.pass, s);
    v.h_prev = !s.first ? read<T>(a.pass.y, s.before) : a.pass.h0 ? read<T>(a.pass.h0, s.state) : 0.0f;
    return v;
  }

  static FUSEGEN_DEVICE void gradient(const Arguments<BackwardPass>&, const Saved& s, float (&g)[4], float&,
                                      float& dh) {
    const auto v = cells::gru_backward(s.gate[0], s.gate[1], s.gate[2], s.gate[3], s.h_prev, dh);
    g[0] = v.n, g[1] = v.r, g[2] = v.z, g[3] = v.q;
    dh = v.h_prev;
  }
  static constexpr int column_of(int segment) { return segment + 1; }
};

}  // namespace fusegen::cuda
