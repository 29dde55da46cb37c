// What backward's sequence kernels ask of a cell: to read what forward saved of a unit in a row, to make of
// it all that does not depend on the gradients, while those are under way, and then the gradients.
#pragma once
#include "../../../cells.h"
#include "../gru.h"
#include "../lstm.h"
#include "../rnn.h"
#include "slopes.h"

namespace fusegen::cuda {

// What forward saved of all rows of the batch at one time step, [B,D*H], [B,H] and [B,4*H], and of the step
// that it ran before. Which of them a lane reads is told in numbers of 32 bits (plan.cpp sees to it), so that
// an address is one instruction.
template <class T>
struct SavedStep {
  const T *y, *y_before, *gates;
  const float *cells, *cells_before;
};
struct SavedPlace {
  int of_y, of_cells, of_gates;
};

template <class T>
FUSEGEN_DEVICE void read_gates(T (&gate)[4], const SavedStep<T>& step, const SavedPlace& at, int H) {
#pragma unroll
  for (int i = 0; i < 4; ++i) gate[i] = step.gates[at.of_gates + i * H];
}

template <class C>
struct CellBackward;

template <>
struct CellBackward<Lstm> {
  template <class T>
  struct Saved {
    T gate[4];
    float c, c_prev;
  };
  using Slopes = LstmSlopes;

  template <class T>
  static FUSEGEN_DEVICE Saved<T> read(const SavedStep<T>& step, const SavedPlace& at, int H) {
    Saved<T> v;
    read_gates(v.gate, step, at, H);
    v.c = step.cells[at.of_cells];
    v.c_prev = step.cells_before[at.of_cells];
    return v;
  }
  // [D,B,H], what c or h starts from; null: zero.
  static FUSEGEN_DEVICE const void* start(const BackwardPass& pass) { return pass.c0; }

  template <class T>
  static FUSEGEN_DEVICE Slopes slopes(const Saved<T>& v, bool first, float start) {
    return lstm_slopes(device::widen(v.gate[0]), device::widen(v.gate[1]), device::widen(v.gate[2]),
                       device::widen(v.gate[3]), first ? start : v.c_prev, v.c);
  }
  // Of a sequence that starts anew before the step, from this.
  static FUSEGEN_DEVICE const void* anew(const BackwardPass& pass) { return pass.boundaries.c; }
  template <class T>
  static FUSEGEN_DEVICE void begin_anew(Slopes& s, const Saved<T>& v, float start) {
    const float f = device::widen(v.gate[1]);
    s.f = start * f * (1 - f);
  }
  static FUSEGEN_DEVICE void gradient(const BackwardPass&, const Slopes& s, float (&g)[4], float& dh,
                                      float& dc) {
    const auto v = lstm_gradient(s, dh, dc);
    g[0] = v.i, g[1] = v.f, g[2] = v.g, g[3] = v.o;
    dc = v.c_prev;
    dh = 0;
  }
};

template <>
struct CellBackward<Gru> {
  template <class T>
  struct Saved {
    T gate[4], h_prev;
  };
  using Slopes = GruSlopes;

  template <class T>
  static FUSEGEN_DEVICE Saved<T> read(const SavedStep<T>& step, const SavedPlace& at, int H) {
    Saved<T> v;
    read_gates(v.gate, step, at, H);
    v.h_prev = step.y_before[at.of_y];
    return v;
  }
  static FUSEGEN_DEVICE const void* start(const BackwardPass& pass) { return pass.h0; }

  template <class T>
  static FUSEGEN_DEVICE Slopes slopes(const Saved<T>& v, bool first, float start) {
    return gru_slopes(device::widen(v.gate[0]), device::widen(v.gate[1]), device::widen(v.gate[2]),
                      device::widen(v.gate[3]), first ? start : device::widen(v.h_prev));
  }
  static FUSEGEN_DEVICE const void* anew(const BackwardPass& pass) { return pass.boundaries.h; }
  template <class T>
  static FUSEGEN_DEVICE void begin_anew(Slopes& s, const Saved<T>& v, float start) {
    const float z = device::widen(v.gate[1]);
    s.z = (start - device::widen(v.gate[2])) * z * (1 - z);
  }
  static FUSEGEN_DEVICE void gradient(const BackwardPass&, const Slopes& s, float (&g)[4], float& dh,
                                      float&) {
    const auto v = gru_gradient(s, dh);
    g[0] = v.n, g[1] = v.r, g[2] = v.z, g[3] = v.q;
    dh = v.h_prev;
  }
};

template <>
struct CellBackward<Rnn> {
  template <class T>
  struct Saved {
    T h;
  };
  using Slopes = float;  // h itself: relu's gradient is a choice, not a factor

  template <class T>
  static FUSEGEN_DEVICE Saved<T> read(const SavedStep<T>& step, const SavedPlace& at, int) {
    return {step.y[at.of_y]};
  }
  static FUSEGEN_DEVICE const void* start(const BackwardPass&) { return nullptr; }

  template <class T>
  static FUSEGEN_DEVICE Slopes slopes(const Saved<T>& v, bool, float) {
    return device::widen(v.h);
  }
  static FUSEGEN_DEVICE void gradient(const BackwardPass& pass, const Slopes& h, float (&g)[1], float& dh,
                                      float&) {
    g[0] = cells::rnn_backward(pass.cell == Cell::rnn_relu, h, dh);
    dh = 0;
  }
};

}  // namespace fusegen::cuda
