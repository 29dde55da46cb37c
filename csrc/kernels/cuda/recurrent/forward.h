// One or all steps of a layer, forward. A block owns some units for all rows of its group: it has their rows
// of R (and c, and h) and needs all of h_{t-1}, which the group's blocks hand each other. In a step: gate
// inputs are fetched while h_{t-1} arrives, the product runs on tensor cores, the lanes of k_split 0 do the
// cell's maths on their sums, h_t is published, and only then do y and what backward needs go out to memory.
#pragma once
#include "gru.h"
#include "lstm.h"
#include "rnn.h"
#include "wire.h"

namespace fusegen::cuda {

// What a lane that owns units does in a step of a slice, part by part.
template <class C, class T, int NT>
class ForwardLane {
public:
  using Rows = WarpRows<C::kGates>;
  using At = Sequence<T, Rows, NT>;
  static constexpr int kPairs = Rows::kPairs;
  using Inputs = float[NT][kPairs][C::kGates];
  using Sums = float[Rows::kTiles][NT][4];
  using Outputs = Made[NT][kPairs];

  FUSEGEN_DEVICE ForwardLane(const Arguments<ForwardPass>& a, const At& at, const Self& me)
      : a_(a), at_(at), me_(me) {}

  // h0, for the first hand-over.
  FUSEGEN_DEVICE void stage_start(int slice) const {
    for (int n = 0; n < NT; ++n)
      for (int pair = 0; pair < kPairs; ++pair)
        at_.template put_on_stage<1>(n, pair, 0, at_.carried(slice, n, pair, kH));
  }

  FUSEGEN_DEVICE void fetch(Inputs& x, int slice, int t) const {
    const ForwardPass& pass = a_.pass;
    for_each_pair<NT, kPairs>([&](int n, int pair) {
      const int unit = at_.unit(pair), b = at_.batch(slice, n, pair);
      const bool wanted = pass.gx && at_.real(slice, n, pair) && t < at_.length(slice, n, pair);
      const T* from = static_cast<const T*>(pass.gx) + at_.index(t, b, unit, C::kGates);
#pragma unroll
      for (int gate = 0; gate < C::kGates; ++gate)
        x[n][pair][gate] = wanted ? device::widen(from[gate * pass.H]) : 0.0f;
    });
  }

  // The cell's maths; h_t goes to the stage.
  FUSEGEN_DEVICE void compute(Outputs& out, const Inputs& x, const Sums& sums, int slice, int t) const {
    for_each_pair<NT, kPairs>([&](int n, int pair) {
      float sum[C::kGates];
#pragma unroll
      for (int gate = 0; gate < C::kGates; ++gate)
        sum[gate] = sums[Rows::sum_tile(gate)][n][Rows::sum_place(gate, pair)];
      const int length = at_.length(slice, n, pair);
      float c = at_.carried(slice, n, pair, kC), h = at_.carried(slice, n, pair, kH), y = 0;
      Made& made = out[n][pair];
      float b_hn = 0;
      if constexpr (C::kTakesHiddenBias) {
        const void* const bias = a_.pass.b_hn[me_.direction];
        if (bias && at_.unit(pair) < a_.pass.H) b_hn = read<T>(bias, at_.unit(pair));
      }
      made = C::template step<T>(a_, x[n][pair], sum, {c, h, b_hn});
      if (t < length) {
        c = made.c;
        h = y = device::widen(device::narrow<T>(made.h));  // as every reader sees it
      }
      if (length < 0) y = c = h = device::not_a_number();
      at_.carried(slice, n, pair, kC) = made.c = c;
      at_.carried(slice, n, pair, kH) = h;
      made.h = y;
      at_.template put_on_stage<1>(n, pair, 0, at_.real(slice, n, pair) ? h : 0.0f);
    });
  }

  FUSEGEN_DEVICE void store(const Outputs& out, int slice, int t) const {
    const ForwardPass& pass = a_.pass;
    for_each_pair<NT, kPairs>([&](int n, int pair) {
      if (!at_.real(slice, n, pair)) return;
      const int unit = at_.unit(pair), b = at_.batch(slice, n, pair);
      const int64_t row = at_.saved_row(t, b);
      if (pass.y) write<T>(pass.y, at_.index(t, b, unit), out[n][pair].h);
      if constexpr (C::kSavesGates) {
        if (pass.gates) {
#pragma unroll
          for (int i = 0; i < 4; ++i)
            write<T>(pass.gates, (row * 4 + i) * pass.H + unit, out[n][pair].saved[i]);
        }
      }
      if constexpr (C::kHasC) {
        if (pass.cells) pass.cells[row * pass.H + unit] = out[n][pair].c;
      }
    });
  }

private:
  const Arguments<ForwardPass>& a_;
  const At& at_;
  const Self& me_;
};

template <class C, class T, class Format, int NT>
FUSEGEN_KERNEL void forward_kernel(FUSEGEN_ARGUMENT Arguments<ForwardPass> a) {
  using Lane = ForwardLane<C, T, NT>;
  const ForwardPass& pass = a.pass;
  const Self me = self<typename Lane::Rows>(a.geometry, a.operand.chunks);
  Wire<NT> wire(a.exchange, a.geometry, me, pass);
  Weights<C::kGates, T, Format> weights(a.operand, a.geometry, me);
  const typename Lane::At at(pass, a.geometry, me);
  const Lane lane(a, at, me);
  const bool halved = a.half == Half::cell;  // h is the other half's
  const bool owner = at.owner();
  at.read_lengths();
  if (owner) at.begin(a.carry, a.first <= 0, C::kHasC ? pass.c0 : nullptr, halved ? nullptr : pass.h0);
  wire.begin();

  bool stopped = false;
  for (int step = a.first; step <= a.last && !stopped; ++step) {
    const int t = at.reverse() ? at.steps() - 1 - step : step;
    for (int slice = 0; slice < a.geometry.slices; ++slice) {
      if (step < 0) {
        if (owner) lane.stage_start(slice);
        device::sync_block();
        wire.publish(slice, 0, 1, at.segment_bytes(), at.own_bytes());
        device::sync_block();
        continue;
      }
      typename Lane::Inputs x;
      if (owner) lane.fetch(x, slice, t);
      const unsigned char* gathered = wire.wait(slice, step);
      typename Lane::Sums sums;
      weights.product(sums, gathered, wire.stride());
      stopped = wire.stopped();
      if (stopped) break;

      typename Lane::Outputs out;
      if (owner) lane.compute(out, x, sums, slice, t);
      device::sync_block();
      // Not the last h: nobody waits for it, and a store must not be under way to a block that ends.
      if (halved || step < at.steps() - 1)
        wire.publish(slice, step + 1, 1, at.segment_bytes(), at.own_bytes());
      if (owner) lane.store(out, slice, t);
    }
  }
  wire.end();

  if (!owner) return;
  at.end(a.carry, a.last == at.steps() - 1, stopped, C::kHasC ? pass.c_n : nullptr,
         halved ? nullptr : pass.h_n, [&](int b, int unit) {
           for (int t = 0; pass.y && t < at.steps(); ++t)
             write<T>(pass.y, at.index(t, b, unit), device::not_a_number());
         });
}

}  // namespace fusegen::cuda
