// A step of an RNN's unit inside the sequence kernels; and of LSTM's projection, which is a plain product.
#pragma once
#include "step.h"

namespace fusegen::cuda {

struct Rnn {
  static constexpr int kGates = 1, kColumns = 1;
  static constexpr bool kHasC = false, kSavesGates = false;

  template <class T>
  static FUSEGEN_DEVICE Made step(const Arguments<ForwardPass>& a, const float (&x)[1],
                                  const float (&sums)[1], const Before& before) {
    const float v = x[0] + sums[0];
    const float h = a.half == Half::projection      ? v
                    : a.pass.cell == Cell::rnn_tanh ? Math::tanh(v)
                                                    : (v > 0 || v != v ? v : 0.0f);
    return {before.c, h, {}};
  }

  struct Saved {
    float h;
  };
  template <class T>
  static FUSEGEN_DEVICE Saved read_saved(const Arguments<BackwardPass>& a, const Spot& s) {
    return {a.half == Half::projection ? 0.0f : read<T>(a.pass.y, s.at)};
  }

  static FUSEGEN_DEVICE void gradient(const Arguments<BackwardPass>& a, const Saved& s, float (&g)[1], float&,
                                      float& dh) {
    g[0] = a.half == Half::projection      ? dh
           : a.pass.cell == Cell::rnn_tanh ? cells::rnn_tanh_backward(s.h, dh)
                                           : (s.h > 0 || s.h != s.h ? dh : 0.0f);
    dh = 0;
  }
  static constexpr int column_of(int segment) { return segment; }
};

}  // namespace fusegen::cuda
