// A step of a layer, forward: R h_{t-1} on tensor cores, then the cell's maths on the sums. h_{t-1} is read
// out of y, or h0 where a sequence begins; c stays in float32 in the workspace. Gate inputs are asked for
// before the product, so that it covers their way.
//
// Bytes of a step at H 2048, LSTM, bf16: R 32 MB, h once for each of 128 blocks (8 MB of 16 rows, 32 MB of
// 64), gate inputs, c, y and what is saved 1.3 MB for 16 rows. R stays in an L2 of 50 MB: about 8 and 13 us
// at 5.5 TB/s. float32 reads 64 MB from memory: about 17 and 30 us (of which 64 rows multiply for 22).
#pragma once
#include "../../../cells.h"
#include "../../sigmoid_tanh.h"
#include "rows.h"

namespace fusegen::cuda::stepwise {

struct Made {
  float c, h;
  float saved[4];  // for backward; RNN has none
};

struct Lstm {
  static constexpr int kGates = 4;
  static constexpr bool kHasC = true, kTakesH = false, kSaves = true;
  // `x`: W x and the biases; `sum`: R h; `before`: c.
  static FUSEGEN_DEVICE Made step(const Arguments<ForwardPass>&, const float (&x)[4], const float (&sum)[4],
                                  float before, float) {
    const auto v = cells::lstm<Math>(x[0] + sum[0], x[1] + sum[1], x[2] + sum[2], x[3] + sum[3], before);
    return {v.c, v.h, {v.i, v.f, v.g, v.o}};
  }
  // The same with what the candidate g is multiplied by.
  static FUSEGEN_DEVICE void drop(Made& v, float before, float kept) {
    const auto s =
        cells::lstm_state<Math, float>({v.saved[0], v.saved[1], v.saved[2] * kept, v.saved[3]}, before);
    v.c = s.c, v.h = s.h;
  }
};

struct Gru {
  static constexpr int kGates = 3;
  static constexpr bool kHasC = false, kTakesH = true, kSaves = true;
  // `before`: h.
  static FUSEGEN_DEVICE Made step(const Arguments<ForwardPass>&, const float (&x)[3], const float (&sum)[3],
                                  float before, float b_hn) {
    const float q = sum[2] + b_hn;
    const auto v = cells::gru<Math>(x[0] + sum[0], x[1] + sum[1], x[2], q, before);
    return {0, v.h, {v.r, v.z, v.n, q}};
  }
  static FUSEGEN_DEVICE void drop(Made& v, float before, float kept) {
    const float n = v.saved[2] * kept;
    v.h = n + v.saved[1] * (before - n);
  }
};

// And LSTM's projection, which is a plain product.
struct Rnn {
  static constexpr int kGates = 1;
  static constexpr bool kHasC = false, kTakesH = false, kSaves = false;
  static FUSEGEN_DEVICE Made step(const Arguments<ForwardPass>& a, const float (&x)[1], const float (&sum)[1],
                                  float, float) {
    const float v = x[0] + sum[0];
    return {0, a.half == Half::projection ? v : cells::rnn<Math>(a.pass.cell == Cell::rnn_relu, v), {}};
  }
  static FUSEGEN_DEVICE void drop(Made& v, float, float kept) { v.h *= kept; }
};

// What a lane does with an item, part by part.
template <class C, class T, class Tile>
class ForwardItem {
public:
  using At = Step<ForwardPass, T, Tile>;
  struct Given {
    Row row;
    float x[C::kGates], before;
    float h;  // before the step; of masked calls alone
  };

  FUSEGEN_DEVICE ForwardItem(const Arguments<ForwardPass>& a, const At& at) : a_(a), at_(at), b_hn_(0) {
    if constexpr (C::kTakesH) {
      if (at.unit() < a.pass.H) b_hn_ = read_or_zero<T>(a.pass.b_hn[at.direction()], at.unit());
    }
  }

  FUSEGEN_DEVICE void fetch(Given& given, int item) const {
    const ForwardPass& pass = a_.pass;
    given.row = at_.row(item);
    given.before = given.h = 0;
    const Row& row = given.row;
    const bool wanted = row.live && pass.gx;
    const T* from =
        static_cast<const T*>(pass.gx) + at_.row_of_call(row, at_.t()) * C::kGates * pass.H + at_.unit();
#pragma unroll
    for (int gate = 0; gate < C::kGates; ++gate)
      given.x[gate] = wanted ? device::widen(from[gate * static_cast<int64_t>(pass.H)]) : 0.0f;
    if constexpr (C::kHasC) {
      if (row.live)
        given.before = row.anew    ? read_or_zero<T>(pass.boundaries.c, at_.state(row))
                       : row.first ? read_or_zero<T>(pass.c0, at_.state(row))
                                   : a_.carry[at_.state(row)];
    }
    if (pass.masked && row.live && a_.half != Half::cell) given.h = at_.h_before(row);
    if constexpr (C::kTakesH) {
      if (pass.masked) {
        given.before = given.h;
      } else if (row.live) {
        const T* h = at_.vector(row.b);
        if (h) given.before = device::widen(h[at_.unit()]);
      }
    }
  }

  FUSEGEN_DEVICE void finish(const Given& given, const float (&sum)[C::kGates]) const {
    const ForwardPass& pass = a_.pass;
    const Row& row = given.row;
    if (!row.there) return;
    Made made = C::step(a_, given.x, sum, given.before, b_hn_);
    if (pass.masked && row.live) mask(made, given);
    if (row.live) keep(row, made);
    if (row.length <= 0 && a_.step == 0) sleep(row);
    const float h = row.live ? made.h : row.length < 0 ? device::not_a_number() : 0.0f;
    write<T>(a_.out[at_.direction()], row.b * a_.out_stride + at_.unit(), h);
    if (row.last && a_.half != Half::cell) write<T>(pass.h_n, at_.state(row), made.h);
  }

private:
  // Dropout and zoneout; and h as R reads it at the next step.
  FUSEGEN_DEVICE void mask(Made& made, const Given& given) const {
    const ForwardPass& pass = a_.pass;
    const Row& row = given.row;
    const bool has_h = a_.half != Half::cell;
    const UnitMasks m = at_.masks(row, a_.half != Half::projection, has_h);
    if (m.candidate != 1) C::drop(made, given.before, m.candidate);
    if constexpr (C::kHasC) made.c = zoned(m.old_c, given.before, made.c);
    if (!has_h) return;
    if constexpr (!C::kSaves)
      if (a_.half == Half::both && pass.gates)
        write<T>(pass.gates, at_.saved_row(row, at_.t()) * pass.H + at_.unit(), made.h);
    made.h = zoned(m.old_h, given.h, made.h);
    if (!a_.read_next) return;
    const int64_t state = at_.state(row);
    const float next = at_.anew(row.b, at_.order() + 1) ? read_or_zero<T>(pass.boundaries.h, state)
                                                        : device::widen(device::narrow<T>(made.h));
    write<T>(a_.read_next, state,
             next * state_dropout(pass.masks, at_.direction(), row.b, a_.weight.units, at_.unit()));
  }

  // c, and what backward needs.
  FUSEGEN_DEVICE void keep(const Row& row, const Made& made) const {
    const ForwardPass& pass = a_.pass;
    const int64_t saved = at_.saved_row(row, at_.t());
    if constexpr (C::kSaves) {
      if (pass.gates) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          write<T>(pass.gates, (saved * 4 + i) * pass.H + at_.unit(), made.saved[i]);
      }
    }
    if constexpr (C::kHasC) {
      a_.carry[at_.state(row)] = made.c;
      if (pass.cells) pass.cells[saved * pass.H + at_.unit()] = made.c;
      if (row.last) write<T>(pass.c_n, at_.state(row), made.c);
    }
  }

  // A sequence without a step hands its start on; one whose length is no length is NaN.
  FUSEGEN_DEVICE void sleep(const Row& row) const {
    const ForwardPass& pass = a_.pass;
    const int64_t i = at_.state(row);
    const bool bad = row.length < 0;
    if (bad) device::store_first(pass.error, error_of_length(row.b));
    if (a_.half != Half::cell)
      write<T>(pass.h_n, i, bad ? device::not_a_number() : read_or_zero<T>(pass.h0, i));
    if constexpr (C::kHasC) write<T>(pass.c_n, i, bad ? device::not_a_number() : read_or_zero<T>(pass.c0, i));
  }

  const Arguments<ForwardPass>& a_;
  const At& at_;
  float b_hn_;
};

// What R reads at the first step, where state dropout is: a lane for each number of [D][B][P], of both
// copies, of which a sequence that begins later reads either.
template <class T>
FUSEGEN_KERNEL void start_masked_kernel(FUSEGEN_ARGUMENT StartMasked a) {
  const ForwardPass& pass = a.pass;
  const int64_t i = static_cast<int64_t>(device::block()) * device::kThreads + device::thread(),
                all = static_cast<int64_t>(pass.D) * pass.B * pass.P;
  if (i >= all) return;
  const int unit = static_cast<int>(i % pass.P), b = static_cast<int>(i / pass.P % pass.B),
            d = static_cast<int>(i / pass.P / pass.B);
  const bool anew = pass.boundaries.at && starts_anew(pass, d, 0, b);
  const float h =
      read_or_zero<T>(anew ? pass.boundaries.h : pass.h0, i) * state_dropout(pass.masks, d, b, pass.P, unit);
  write<T>(a.copies, i, h);
  write<T>(a.copies, all + i, h);
}

template <class C, class T, class Format, int N>
FUSEGEN_KERNEL void step_forward_kernel(FUSEGEN_ARGUMENT Arguments<ForwardPass> a) {
  using Of = Tile<C::kGates, N>;
  const Place place(a);
  const Step<ForwardPass, T, Of> at(a, place);
  run_step<Of, Format>(a, place, at, ForwardItem<C, T, Of>(a, at));
}

}  // namespace fusegen::cuda::stepwise
