// One or all steps of a layer, backward: the same division of work as forward, with R transposed. A block
// owns some units; the part of dh_t that came through R is its rows of R' times all gates' gradients of step
// t+1, which the group's blocks hand each other in the dtype of the call. dc and the direct part of dh stay
// in float32.
//
// Steps count from the one that ran last: 0 has nothing to multiply yet, T only multiplies, which gives dh0.
#pragma once
#include "gru.h"
#include "lstm.h"
#include "rnn.h"
#include "wire.h"

namespace fusegen::cuda {

// What a lane that owns units does in a step of a slice, part by part.
template <class C, class T, int NT>
class BackwardLane {
public:
  using Rows = WarpRows<1>;
  using At = Sequence<T, Rows, NT>;
  static constexpr int kPairs = Rows::kPairs, kSegments = C::kGates;
  struct Seen {
    float dy;
    typename C::Saved saved;
  };
  using Inputs = Seen[NT][kPairs];
  using Sums = float[1][NT][4];
  using Outputs = float[NT][kPairs][C::kColumns];

  FUSEGEN_DEVICE BackwardLane(const Arguments<BackwardPass>& a, const At& at) : a_(a), at_(at) {}

  // dy and what forward saved; of a sequence that has not begun yet zeros.
  FUSEGEN_DEVICE void fetch(Inputs& seen, int slice, int t) const {
    const BackwardPass& pass = a_.pass;
    const int before = at_.reverse() ? t + 1 : t - 1;
    for_each_pair<NT, kPairs>([&](int n, int pair) {
      seen[n][pair] = {};
      const int length = at_.length(slice, n, pair), unit = at_.unit(pair), b = at_.batch(slice, n, pair);
      if (!at_.real(slice, n, pair) || t >= length) return;
      const int64_t saved = at_.saved_row(t, b);
      const Spot spot{.unit = unit,
                      .first = at_.reverse() ? t == length - 1 : t == 0,
                      .at = at_.index(t, b, unit),
                      .before = at_.index(before, b, unit),
                      .saved = saved,
                      .saved_before = saved + static_cast<int64_t>(before - t) * pass.B,
                      .state = at_.state_index(b, unit)};
      if (pass.dy && a_.half != Half::cell) seen[n][pair].dy = read<T>(pass.dy, spot.at);
      seen[n][pair].saved = C::template read_saved<T>(a_, spot);
    });
  }

  // The cell's maths; gates' gradients go to the stage. `only_dh0`: forward had no such step, so there are
  // none.
  FUSEGEN_DEVICE void compute(Outputs& out, const Inputs& seen, const Sums& sums, int slice, int t,
                              bool only_dh0) const {
    for_each_pair<NT, kPairs>([&](int n, int pair) {
      const int length = at_.length(slice, n, pair);
      float dc = at_.carried(slice, n, pair, kC), dh = at_.carried(slice, n, pair, kH) + sums[0][n][pair];
      float (&g)[C::kColumns] = out[n][pair];
#pragma unroll
      for (int i = 0; i < C::kColumns; ++i) g[i] = 0;
      if (!only_dh0 && t < length) {
        dh += seen[n][pair].dy;
        C::gradient(a_, seen[n][pair].saved, g, dc, dh);
      }
      if (length < 0) {
        dc = dh = device::not_a_number();
#pragma unroll
        for (int i = 0; i < C::kColumns; ++i) g[i] = dh;
      }
      if (!at_.real(slice, n, pair)) {
#pragma unroll
        for (int i = 0; i < C::kColumns; ++i) g[i] = 0;
      }
      at_.carried(slice, n, pair, kC) = dc;
      at_.carried(slice, n, pair, kH) = dh;
#pragma unroll
      for (int segment = 0; segment < kSegments; ++segment)
        at_.template put_on_stage<kSegments>(n, pair, segment, g[C::column_of(segment)]);
    });
  }

  FUSEGEN_DEVICE void store(const Outputs& out, int slice, int t) const {
    for_each_pair<NT, kPairs>([&](int n, int pair) {
      if (!at_.real(slice, n, pair)) return;
      const int64_t to = at_.index(t, at_.batch(slice, n, pair), at_.unit(pair), C::kColumns);
#pragma unroll
      for (int i = 0; i < C::kColumns; ++i)
        write<T>(a_.pass.dgates, to + i * static_cast<int64_t>(a_.pass.H), out[n][pair][i]);
    });
  }

  // The gradients that the steps of a unit in a row would have written.
  FUSEGEN_DEVICE void lose(int b, int unit) const {
    for (int t = 0; t < at_.steps(); ++t)
      for (int i = 0; i < C::kColumns; ++i)
        write<T>(a_.pass.dgates, at_.index(t, b, unit, C::kColumns) + i * static_cast<int64_t>(a_.pass.H),
                 device::not_a_number());
  }

private:
  const Arguments<BackwardPass>& a_;
  const At& at_;
};

template <class C, class T, class Format, int NT>
FUSEGEN_KERNEL void backward_kernel(FUSEGEN_ARGUMENT Arguments<BackwardPass> a) {
  using Lane = BackwardLane<C, T, NT>;
  const BackwardPass& pass = a.pass;
  const Self me = self<typename Lane::Rows>(a.geometry, a.operand.chunks);
  Wire<NT> wire(a.exchange, a.geometry, me, pass);
  Weights<1, T, Format> weights(a.operand, a.geometry, me);
  const typename Lane::At at(pass, a.geometry, me);
  const Lane lane(a, at);
  const bool halved = a.half == Half::cell;  // dh is the other half's
  const bool owner = at.owner();
  at.read_lengths();
  if (owner) at.begin(a.carry, a.first <= 0, C::kHasC ? pass.dc_n : nullptr, halved ? nullptr : pass.dh_n);
  wire.begin();

  bool stopped = false;
  for (int step = a.first; step <= a.last && !stopped; ++step) {
    const bool only_dh0 = step == at.steps();
    const int t = at.reverse() ? step : at.steps() - 1 - step;
    for (int slice = 0; slice < a.geometry.slices; ++slice) {
      typename Lane::Inputs seen;
      if (owner && !only_dh0) lane.fetch(seen, slice, t);

      typename Lane::Sums sums;
      if (step > 0 || halved) {
        const unsigned char* gathered = wire.wait(slice, step - 1);
        weights.product(sums, gathered, wire.stride());
        stopped = wire.stopped();
        if (stopped) break;
      } else {
        set_zero(sums);
        device::sync_block();  // as a product does: the stage is free
      }

      typename Lane::Outputs out;
      if (owner) lane.compute(out, seen, sums, slice, t, only_dh0);
      device::sync_block();
      if (only_dh0) continue;
      wire.publish(slice, step, Lane::kSegments, at.segment_bytes(), at.own_bytes());
      if (owner) lane.store(out, slice, t);
    }
  }
  wire.end();

  if (!owner) return;
  at.end(a.carry, a.last == at.steps() - halved, stopped, C::kHasC ? pass.dc0 : nullptr,
         halved ? nullptr : pass.dh0, [&](int b, int unit) { lane.lose(b, unit); });
}

}  // namespace fusegen::cuda
