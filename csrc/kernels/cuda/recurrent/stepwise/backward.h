// A step of a layer, backward: R' times all gates' gradients of the step before it (of time: t+1), then the
// gradient of the cell's maths. Those gradients are read out of dgates; what goes past R (LSTM: dc, GRU: the
// part of dh through z) stays in float32 in the workspace.
//
// With a projection the first launch of a step gives dh_t = dy_t + R' dgates_{t+1} to `dh`, the second W_hr'
// times that.
//
// Bytes of a step at H 2048 as forward's: R' is read once, by 32 tiles of units, whose rows four blocks
// share.
#pragma once
#include "../../../cells.h"
#include "../../sigmoid_tanh.h"
#include "rows.h"

namespace fusegen::cuda::stepwise {

// Where an item has its numbers.
struct Spot {
  int unit;
  bool first, anew;             // step of its sequence; its state was replaced before
  int64_t at, before;           // rows of y; `before`: of the step that forward ran before
  int64_t saved, saved_before;  // rows of gates and cells
  int64_t state;                // of h0 and c0
};

template <class T>
FUSEGEN_DEVICE void read_gates(float (&gate)[4], const BackwardPass& pass, const Spot& s) {
#pragma unroll
  for (int i = 0; i < 4; ++i) gate[i] = read<T>(pass.gates, (s.saved * 4 + i) * pass.H + s.unit);
}

struct LstmGradient {
  static constexpr int kColumns = 4;  // of a unit in dgates: i, f, g, o
  static constexpr bool kCarriesC = true, kCarriesH = false;
  struct Saved {
    float gate[4], c, c_prev;
  };
  template <class T>
  static FUSEGEN_DEVICE Saved read_saved(const Arguments<BackwardPass>& a, const Spot& s) {
    const BackwardPass& pass = a.pass;
    Saved v;
    read_gates<T>(v.gate, pass, s);
    v.c = pass.cells[s.saved * pass.H + s.unit];
    v.c_prev = s.anew    ? read_or_zero<T>(pass.boundaries.c, s.state)
               : s.first ? read_or_zero<T>(pass.c0, s.state)
                         : pass.cells[s.saved_before * pass.H + s.unit];
    return v;
  }
  // `past`: dc, and what of it reaches the step before.
  static FUSEGEN_DEVICE void gradient(const Arguments<BackwardPass>&, const Saved& s, float (&g)[4], float dh,
                                      float& past) {
    const auto v =
        cells::lstm_backward<Math>(s.gate[0], s.gate[1], s.gate[2], s.gate[3], s.c_prev, s.c, dh, past);
    g[0] = v.i, g[1] = v.f, g[2] = v.g, g[3] = v.o;
    past = v.c_prev;
  }
  // The same under masks; `dh`: of h before zoneout. Where zoneout has changed c, it is made again.
  static FUSEGEN_DEVICE void masked_gradient(const Arguments<BackwardPass>& a, const Saved& s,
                                             const UnitMasks& m, float (&g)[4], float dh, float& past) {
    const float i = s.gate[0], f = s.gate[1], tanh_g = s.gate[2], o = s.gate[3], kept = tanh_g * m.candidate;
    const float c = a.pass.masks.zoneout_c > 0 ? f * s.c_prev + i * kept : s.c;
    const float tc = Math::tanh(c), d = (1 - m.old_c) * past + dh * o * (1 - tc * tc);
    g[0] = d * kept * i * (1 - i);
    g[1] = d * s.c_prev * f * (1 - f);
    g[2] = d * i * m.candidate * (1 - tanh_g * tanh_g);
    g[3] = dh * tc * o * (1 - o);
    past = d * f + m.old_c * past;
  }
};

struct GruGradient {
  // n_x, r, z, n_h: the first three feed dx and dW, the last three R's product and dR.
  static constexpr int kColumns = 4;
  static constexpr bool kCarriesC = false, kCarriesH = true;
  struct Saved {
    float gate[4], h_prev;
  };
  template <class T>
  static FUSEGEN_DEVICE Saved read_saved(const Arguments<BackwardPass>& a, const Spot& s) {
    Saved v;
    read_gates<T>(v.gate, a.pass, s);
    v.h_prev = s.anew    ? read_or_zero<T>(a.pass.boundaries.h, s.state)
               : s.first ? read_or_zero<T>(a.pass.h0, s.state)
                         : read<T>(a.pass.y, s.before * a.pass.H + s.unit);
    return v;
  }
  static FUSEGEN_DEVICE void gradient(const Arguments<BackwardPass>&, const Saved& s, float (&g)[4], float dh,
                                      float& past) {
    const auto v = cells::gru_backward(s.gate[0], s.gate[1], s.gate[2], s.gate[3], s.h_prev, dh);
    g[0] = v.n, g[1] = v.r, g[2] = v.z, g[3] = v.q;
    past = v.h_prev;
  }
  static FUSEGEN_DEVICE void masked_gradient(const Arguments<BackwardPass>&, const Saved& s,
                                             const UnitMasks& m, float (&g)[4], float dh, float& past) {
    const float r = s.gate[0], z = s.gate[1], n = s.gate[2], q = s.gate[3];
    const float of_n = dh * m.candidate * (1 - z) * (1 - n * n);
    g[0] = of_n;
    g[1] = of_n * q * r * (1 - r);
    g[2] = dh * (s.h_prev - n * m.candidate) * z * (1 - z);
    g[3] = of_n * r;
    past = dh * z;
  }
};

// And dh of a projection, which is a plain product.
struct RnnGradient {
  static constexpr int kColumns = 1;
  static constexpr bool kCarriesC = false, kCarriesH = false;
  struct Saved {
    float h;
  };
  template <class T>
  static FUSEGEN_DEVICE Saved read_saved(const Arguments<BackwardPass>& a, const Spot& s) {
    if (a.half == Half::projection) return {0};
    if (a.pass.gates) return {read<T>(a.pass.gates, s.saved * a.pass.H + s.unit)};
    return {read<T>(a.pass.y, s.at * a.pass.H + s.unit)};
  }
  // Where zoneout has kept the old h, dh is zero.
  static FUSEGEN_DEVICE void masked_gradient(const Arguments<BackwardPass>& a, const Saved& s,
                                             const UnitMasks& m, float (&g)[1], float dh, float& past) {
    g[0] = 0;
    if (m.candidate != 0) gradient(a, {s.h / m.candidate}, g, dh * m.candidate, past);
  }
  static FUSEGEN_DEVICE void gradient(const Arguments<BackwardPass>& a, const Saved& s, float (&g)[1],
                                      float dh, float&) {
    g[0] = a.half == Half::projection ? dh : cells::rnn_backward(a.pass.cell == Cell::rnn_relu, s.h, dh);
  }
};

// What a lane does with an item, part by part.
template <class C, class T, class Tile>
class BackwardItem {
public:
  using At = Step<BackwardPass, T, Tile>;
  struct Given {
    Row row;
    bool leaves;  // behind its first step: what is left is dh0
    // The state was replaced behind this step: what the next one gives back is no gradient of this step's.
    bool cut;
    float dh, past;
    float zoned;  // what zoneout has handed past the cell
    typename C::Saved saved;
  };

  FUSEGEN_DEVICE BackwardItem(const Arguments<BackwardPass>& a, const At& at) : a_(a), at_(at) {}

  FUSEGEN_DEVICE void fetch(Given& given, int item) const {
    const BackwardPass& pass = a_.pass;
    given = {};
    given.row = at_.row(item);
    const Row& row = given.row;
    if (!row.there) return;
    given.leaves = at_.reverse() ? at_.t() == row.length : at_.t() < 0;
    if (!row.live && !given.leaves) return;
    const int64_t state = at_.state(row);
    const bool fresh = row.last || row.length <= 0;
    given.cut = at_.anew(row.b, at_.order() + 1);
    if (fresh && a_.half != Half::cell) given.dh = read_or_zero<T>(pass.dh_n, state);
    if constexpr (C::kCarriesC) given.past = fresh ? read_or_zero<T>(pass.dc_n, state) : a_.carry[state];
    if constexpr (C::kCarriesH) {
      if (!fresh) (given.cut ? given.past : given.dh) = a_.carry[state];
    }
    if (pass.masked && !fresh && a_.half != Half::cell) given.zoned = a_.carry_h[state];
    if (!row.live) return;
    const int t = at_.t(), before = at_.reverse() ? t + 1 : t - 1;
    const Spot spot{.unit = at_.unit(),
                    .first = row.first,
                    .anew = row.anew,
                    .at = at_.row_of_call(row, t),
                    .before = at_.row_of_call(row, before),
                    .saved = at_.saved_row(row, t),
                    .saved_before = at_.saved_row(row, before),
                    .state = state};
    if (pass.dy && a_.half != Half::cell) given.dh += read<T>(pass.dy, spot.at * a_.weight.units + spot.unit);
    given.saved = C::template read_saved<T>(a_, spot);
  }

  FUSEGEN_DEVICE void finish(const Given& given, const float (&sum)[1]) const {
    const BackwardPass& pass = a_.pass;
    const Row& row = given.row;
    if (!row.there) return;
    const int64_t state = at_.state(row);
    const bool bad = row.length < 0;
    if (bad && a_.step == 0) device::store_first(pass.error, error_of_length(row.b));
    const bool has_h = a_.half != Half::cell, stops = given.cut && has_h;
    float arrives = sum[0];
    if (pass.masked && has_h)
      arrives = given.zoned +
                arrives * state_dropout(pass.masks, at_.direction(), row.b, a_.weight.units, at_.unit());
    if (stops && pass.dreset_h) pass.dreset_h[state] += arrives + (C::kCarriesH ? given.past : 0.0f);
    const float dh = bad ? device::not_a_number() : given.dh + (stops ? 0.0f : arrives);
    if ((given.leaves || (bad && a_.step == 0)) && a_.half != Half::cell)
      write_if_wanted<T>(pass.dh0, state, dh);
    if (a_.step == pass.T) return;

    float g[C::kColumns] = {}, past = given.past;
    const auto stop = [&] {
      if (pass.dreset_c) pass.dreset_c[state] += past;
      past = 0;
    };
    if (C::kCarriesC && given.cut) stop();
    if (row.live) {
      if (pass.masked) {
        const UnitMasks m = at_.masks(row, a_.half != Half::projection, has_h);
        if (has_h) a_.carry_h[state] = m.old_h * dh;
        C::masked_gradient(a_, given.saved, m, g, (1 - m.old_h) * dh, past);
      } else {
        C::gradient(a_, given.saved, g, dh, past);
      }
      if (C::kCarriesC && row.first && row.anew) stop();  // no further launch may follow
      if constexpr (C::kCarriesC || C::kCarriesH) a_.carry[state] = past;
    }
    if constexpr (C::kCarriesC) {
      if (row.first || (row.length <= 0 && a_.step == 0))
        write_if_wanted<T>(pass.dc0, state,
                           bad        ? device::not_a_number()
                           : row.live ? past
                                      : read_or_zero<T>(pass.dc_n, state));
    }
    void* const to = a_.half == Half::projection ? pass.dh : pass.dgates;
    const int64_t i = at_.row_of_call(row, at_.t()) * C::kColumns * a_.weight.units + at_.unit();
#pragma unroll
    for (int column = 0; column < C::kColumns; ++column)
      write<T>(to, i + column * static_cast<int64_t>(a_.weight.units), bad ? dh : g[column]);
  }

private:
  const Arguments<BackwardPass>& a_;
  const At& at_;
};

template <class C, class T, class Format, int N>
FUSEGEN_KERNEL void step_backward_kernel(FUSEGEN_ARGUMENT Arguments<BackwardPass> a) {
  using Of = Tile<1, N>;
  const Place place(a);
  const Step<BackwardPass, T, Of> at(a, place);
  run_step<Of, Format>(a, place, at, BackwardItem<C, T, Of>(a, at));
}

}  // namespace fusegen::cuda::stepwise
