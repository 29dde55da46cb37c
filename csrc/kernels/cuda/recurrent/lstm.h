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
  static FUSEGEN_DEVICE Made step(const Arguments<ForwardPass>&, const float (&x)[4], const float (&sums)[4],
                                  const Before& before) {
    const auto v =
        cells::lstm<Math>(x[0] + sums[0], x[1] + sums[1], x[2] + sums[2], x[3] + sums[3], before.c);
    return {v.c, v.h, {v.i, v.f, v.g, v.o}};
  }

  struct Saved {
    float gate[4], c, c_prev;
  };
  template <class T>
  static FUSEGEN_DEVICE Saved read_saved(const Arguments<BackwardPass>& a, const Spot& s) {
    const BackwardPass& pass = a.pass;
    Saved v;
    read_gates<T>(v.gate, pass, s);
    v.c = pass.cells[s.saved * pass.H + s.unit];
    v.c_prev = !s.first  ? pass.cells[s.saved_before * pass.H + s.unit]
               : pass.c0 ? read<T>(pass.c0, s.state)
                         : 0.0f;
    return v;
  }

  static FUSEGEN_DEVICE void gradient(const Arguments<BackwardPass>&, const Saved& s, float (&g)[4],
                                      float& dc, float& dh) {
    const auto v =
        cells::lstm_backward<Math>(s.gate[0], s.gate[1], s.gate[2], s.gate[3], s.c_prev, s.c, dh, dc);
    g[0] = v.i, g[1] = v.f, g[2] = v.g, g[3] = v.o;
    dc = v.c_prev;
    dh = 0;
  }
  static constexpr int column_of(int segment) { return segment; }
};

}  // namespace fusegen::cuda
