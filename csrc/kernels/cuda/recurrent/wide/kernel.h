// All steps of a layer, forward, in one launch, for large batches: 32 or 64 rows at a time, which warpgroups
// multiply. As in forward/kernel.h a block owns some units for all rows of its group and keeps their rows of
// R in registers; h goes through L2 (handover.h).
//
// A beat is a step of a slice: gate inputs are asked for; as the stages of h_{t-1} arrive, products with them
// are asked for; sums go to shared memory, where each lane finds all gates of its units; h_t is given to the
// group, and then y and what backward needs are stored.
//
// Bytes of a beat in a block, LSTM, H 1024, 64 rows: 128 KB of h in, 8 KB of gate inputs, 2 KB of h out, 2 KB
// of y and for backward 8 KB of gates and 4 KB of c; 18 KB of sums out of each warpgroup and in again. All of
// a group's blocks read the same 128 KB: L2 gives an SM about 64 bytes a clock, so that takes as long as the
// products, 2048 clocks, beside which it runs.
#pragma once
#include <device/shared.h>

#include "../boundaries.h"
#include "../gru.h"
#include "../lstm.h"
#include "../rnn.h"
#include "handover.h"
#include "rows.h"

namespace fusegen::cuda::wide {

// Neighbouring numbers, as one load or store moves them.
template <class N, int kCount>
struct alignas(kCount * sizeof(N)) Neighbours {
  N n[kCount];
};
// The same of 16 bits on their way in: words, since the compiler would take numbers apart where they are
// asked for, and wait for them there.
template <class T, int kCount>
struct alignas(kCount * sizeof(T)) NeighboursAhead {
  uint32_t words[kCount / 2];
  FUSEGEN_DEVICE float operator[](int i) const {
    return device::widen(T{static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)))});
  }
};

// kAnew: sequences may start anew in the call.
template <class C, class T, class Format, int KSplits, int N, bool kAnew>
class Steps {
public:
  using S = Shard<C::kGates, KSplits, N>;
  static constexpr int kGates = C::kGates, kItems = S::kItems, kPer = S::kPer, kCarried = carried(kGates);
  using Numbers = Neighbours<T, kPer>;
  using Ahead = NeighboursAhead<T, kPer>;
  using Floats = Neighbours<float, kPer>;

  FUSEGEN_DEVICE explicit Steps(const Arguments& a)
      : a_(a),
        rank_(device::block() % a.blocks),
        direction_(device::block() / (a.blocks * a.groups)),
        first_b_(device::block() / a.blocks % a.groups * a.slices * N),
        row_(S::row(device::thread())),
        unit_(rank_ * S::kUnits + S::unit(device::thread(), 0)),
        memory_(device::shared_start()),
        handover_(a, rank_, device::block() / a.blocks % a.groups, direction_) {
    const ForwardPass& pass = a.pass;
    const int64_t b = first_b_ + row_, of_y = b * pass.D + direction_,
                  of_saved = direction_ * pass.T * pass.B + b;
    gx_ = static_cast<const unsigned char*>(pass.gx) + (of_y * kGates * pass.H + unit_) * kNumber;
    y_ = static_cast<unsigned char*>(pass.y) + (of_y * pass.H + unit_) * kNumber;
    gates_ = static_cast<unsigned char*>(pass.gates) + (of_saved * 4 * pass.H + unit_) * kNumber;
    cells_ = reinterpret_cast<unsigned char*>(pass.cells) + (of_saved * pass.H + unit_) * 4;
#pragma unroll
    for (int i = 0; i < kItems; ++i)
#pragma unroll
      for (int j = 0; j < kPer; ++j)
        b_hn_[i][j] = C::kTakesHiddenBias && pass.b_hn[direction_] && unit(i) < pass.H
                          ? read<T>(pass.b_hn[direction_], unit(i) + j)
                          : 0.0f;
  }

  FUSEGEN_DEVICE void run() {
    handover_.begin();
    read_lengths();
    const int warpgroup = device::thread() / 128;
    const Rows<S, T, Format, N> rows(
        a_.pass, direction_, rank_ * S::kUnits + (KSplits == 1 ? warpgroup * units_of_tile(kGates) : 0),
        KSplits == 2 ? warpgroup * a_.stages * kStage : 0, a_.stages);
    device::sync_block();
    for (int slice = 0; slice < a_.slices; ++slice) start(slice);
    device::sync_block();
    if (device::thread() == 0)
      for (int slice = 0; slice < a_.slices; ++slice) handover_.publish(slice, 0);
    const bool lost = !all_steps(rows);
    device::copies_done();
    for (int slice = 0; slice < a_.slices; ++slice) end(slice, lost);
  }

private:
  struct Beat {
    int slice, step, t;
  };
  using Inputs = Ahead[kItems][kGates];

  // False: blocks have waited in vain.
  FUSEGEN_DEVICE bool all_steps(const Rows<S, T, Format, N>& rows) {
    const int T_ = static_cast<int>(a_.pass.T), forth = direction_ == 1 ? -1 : 1;
    Beat beat{0, 0, direction_ == 1 ? T_ - 1 : 0};
    handover_.fetch(0, 0);
    while (beat.step < T_) {
      Beat next = beat;
      if (++next.slice == a_.slices) next = {0, beat.step + 1, beat.t + forth};
      Inputs x;
      ask_for_inputs(x, beat);
      const uint32_t boundaries = kAnew ? boundaries_behind(beat) : 0;
      typename Rows<S, T, Format, N>::Sums sums;
#pragma unroll
      for (auto& of_eight : sums)
#pragma unroll
        for (float& sum : of_eight) sum = 0;
      if (!multiply<0>(sums, rows, beat)) return false;
      device::product_groups_done<0>();
      put(sums);
      device::sync_block();  // the sums are there, and h_{t-1} is free
      if (next.step < T_ && a_.slices > 1) handover_.fetch(next.slice, next.step);
      Made made[kItems][kPer];
      compute(made, x, beat, boundaries);
      device::sync_block();  // all of h_t is given, and the sums are free
      const bool last = beat.step + 1 == T_;
      if (!last && device::thread() == 0) handover_.publish(beat.slice, beat.step + 1);
      store(made, beat);
      if (!last && a_.slices == 1) handover_.fetch(next.slice, next.step);
      beat = next;
    }
    return true;
  }

  template <int kStageNumber>
  FUSEGEN_DEVICE bool multiply(typename Rows<S, T, Format, N>::Sums& sums, const Rows<S, T, Format, N>& rows,
                               const Beat& beat) const {
    if constexpr (kStageNumber < kStages) {
      if (kStageNumber < a_.stages) {
        device::copy_groups_done<kStages - 1 - kStageNumber>();
        device::fence_for_products();
        device::sync_block();
        if (kStageNumber == 0 && handover_.stopped(beat.slice, beat.step)) return false;
        const int stage = (KSplits == 2 ? device::thread() / 128 * a_.stages : 0) + kStageNumber;
        rows.template ask<kStageNumber>(sums, device::shared_memory() + stage * (2 * kStage * N));
      }
      return multiply<kStageNumber + 1>(sums, rows, beat);
    }
    return true;
  }

  // -- The lane's pairs: kPer units of each item, in one row --

  FUSEGEN_DEVICE int unit(int item) const { return unit_ + S::unit(0, item); }
  FUSEGEN_DEVICE int batch(int slice) const { return first_b_ + slice * N + row_; }
  // H is a multiple of 8, so an item's units are all there, or none.
  FUSEGEN_DEVICE bool real(int slice, int item) const {
    return unit(item) < a_.pass.H && batch(slice) < a_.pass.B;
  }

  FUSEGEN_DEVICE device::Shared state_at(int slice, int item, int j, int which) const {
    return memory_ + (a_.shared.state +
                      (((slice * kItems + item) * kPer + j) * kCarried + which) * (4 * device::kThreads) +
                      4 * device::thread());
  }
  FUSEGEN_DEVICE device::Shared length_at(int row) const { return memory_ + (a_.shared.lengths + 4 * row); }

  // Of the lane's row and 31 others behind a beat. As they come: nobody waits for them before the products.
  FUSEGEN_DEVICE uint32_t boundaries_behind(const Beat& beat) const {
    const int b = batch(beat.slice) < a_.pass.B ? batch(beat.slice) : 0;
    return boundaries_before(a_.pass, direction_, beat.step + 1)[b / 32];
  }
  // What a state becomes.
  FUSEGEN_DEVICE device::Shared reset_at(int slice, int item, int j, int which) const {
    return memory_ +
           (a_.shared.resets +
            (((slice * kItems + item) * kPer + j) * kCarried + which) * (kNumber * device::kThreads) +
            kNumber * device::thread());
  }

  // By all lanes; a block barrier must follow. -1: out of range, and what the sequence gives is NaN.
  FUSEGEN_DEVICE void read_lengths() const {
    const ForwardPass& pass = a_.pass;
    for (int i = device::thread(); i < a_.slices * N; i += device::kThreads) {
      int64_t length = first_b_ + i >= pass.B ? 0 : pass.lengths ? pass.lengths[first_b_ + i] : pass.T;
      if (length < 0 || length > pass.T) {
        length = -1;
        device::store_first(pass.error, error_of_length(first_b_ + i));
      }
      device::store(length_at(i), static_cast<int>(length));
    }
  }

  // Before the first step: c0, and h0 to the group.
  FUSEGEN_DEVICE void start(int slice) const {
    const ForwardPass& pass = a_.pass;
    const bool bad = device::load<int>(length_at(slice * N + row_)) < 0,
               anew = kAnew && batch(slice) < pass.B && starts_anew(pass, direction_, 0, batch(slice));
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      Numbers h;
#pragma unroll
      for (int j = 0; j < kPer; ++j) {
        float first[2] = {0, 0};
        if (real(slice, i)) {
          const int64_t at = state_index(slice, i) + j;
          if (pass.h0) first[0] = read<T>(pass.h0, at);
          if (C::kHasC && pass.c0) first[1] = read<T>(pass.c0, at);
        }
#pragma unroll
        for (int which = 0; kAnew && which < kCarried; ++which) {
          const void* const all = which == 0 ? pass.boundaries.h : pass.boundaries.c;
          const T v = real(slice, i) && all ? static_cast<const T*>(all)[state_index(slice, i) + j] : T{};
          device::store(reset_at(slice, i, j, which), v);
          if (anew) first[which] = device::widen(v);
        }
#pragma unroll
        for (int which = 0; which < kCarried; ++which)
          device::store(state_at(slice, i, j, which), bad ? device::not_a_number() : first[which]);
        h.n[j] = device::narrow<T>(bad ? device::not_a_number() : first[0]);
      }
      if (unit(i) < pass.H) handover_.give(h, slice, 0, row_, unit(i));
    }
  }

  // Without branches: where there is no such unit or row, of the first one of all, and nobody looks at them.
  FUSEGEN_DEVICE void ask_for_inputs(Inputs& x, const Beat& beat) const {
    const unsigned char* const from = a_.gx.at(gx_, beat.t, beat.slice);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const unsigned char* const of_item = real(beat.slice, i)
                                               ? from + S::unit(0, i) * kNumber
                                               : static_cast<const unsigned char*>(a_.pass.gx);
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate)
        x[i][gate] = *reinterpret_cast<const Ahead*>(of_item + gate * a_.pass.H * kNumber);
    }
  }

  // To where each lane finds its units'.
  FUSEGEN_DEVICE void put(const typename Rows<S, T, Format, N>::Sums& sums) const {
    const int row = device::warp() * 16 + device::lane() / 4;  // of both warpgroups' tiles
    const device::Shared to = memory_ + (a_.shared.sums + (row * S::kSumStride + device::lane() % 4 * 2) *
                                                              static_cast<int>(sizeof(float)));
#pragma unroll
    for (int n = 0; n < N / 8; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        device::store8(to + (half * 8 * S::kSumStride + n * 8) * 4, sums[n][2 * half], sums[n][2 * half + 1]);
  }
  FUSEGEN_DEVICE float sum_of(device::Shared sums, int item, int gate, int j) const {
    const device::Shared at = sums + 4 * (S::sum_at(0, item, gate, j));
    float sum = device::load<float>(at);
    if (KSplits == 2) sum += device::load<float>(at + 4 * kRowsOfTile * S::kSumStride);
    return sum;
  }

  // The cell's maths; h_t is given.
  FUSEGEN_DEVICE void compute(Made (&made)[kItems][kPer], const Inputs& x, const Beat& beat,
                              uint32_t boundaries) const {
    const device::Shared sums = memory_ + (a_.shared.sums + 4 * S::sum_at(device::thread(), 0, 0, 0));
    const bool live = beat.t < device::load<int>(length_at(beat.slice * N + row_)),
               anew = kAnew && batch(beat.slice) < a_.pass.B && (boundaries >> batch(beat.slice) % 32 & 1);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      Numbers h;
#pragma unroll
      for (int j = 0; j < kPer; ++j) {
        float of_x[kGates], sum[kGates];
#pragma unroll
        for (int gate = 0; gate < kGates; ++gate) {
          of_x[gate] = x[i][gate][j];
          sum[gate] = sum_of(sums, i, gate, j);
        }
        Before before{0, device::load<float>(state_at(beat.slice, i, j, 0)), b_hn_[i][j]};
        if constexpr (C::kHasC) before.c = device::load<float>(state_at(beat.slice, i, j, 1));
        Made& m = made[i][j];
        m = C::template step<T>(a_.pass, of_x, sum, before);
        h.n[j] = device::narrow<T>(device::select(live, m.h, before.h));  // as every reader sees it
        m.h = device::widen(h.n[j]);
        if (live) {  // what does not change need not be written
          device::store(state_at(beat.slice, i, j, 0), m.h);
          if constexpr (C::kHasC) device::store(state_at(beat.slice, i, j, 1), m.c);
        }
      }
      if (kAnew && anew) {  // y stays as it was made
#pragma unroll
        for (int j = 0; j < kPer; ++j) {
          h.n[j] = device::load<T>(reset_at(beat.slice, i, j, 0));
          device::store(state_at(beat.slice, i, j, 0), device::widen(h.n[j]));
          if constexpr (C::kHasC)
            device::store(state_at(beat.slice, i, j, 1),
                          device::widen(device::load<T>(reset_at(beat.slice, i, j, 1))));
        }
      }
      // units past H have no place; rows past B do, and are zero: their length is
      if (unit(i) < a_.pass.H) handover_.give(h, beat.slice, beat.step + 1, row_, unit(i));
    }
  }

  FUSEGEN_DEVICE void store(const Made (&made)[kItems][kPer], const Beat& beat) const {
    const int length = device::load<int>(length_at(beat.slice * N + row_));
    const bool live = beat.t < length;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (!real(beat.slice, i)) continue;
      Numbers y;
#pragma unroll
      for (int j = 0; j < kPer; ++j) y.n[j] = live || length < 0 ? device::narrow<T>(made[i][j].h) : T{};
      *reinterpret_cast<Numbers*>(a_.y.at(y_, beat.t, beat.slice) + S::unit(0, i) * kNumber) = y;
      if (!live) continue;
      if constexpr (C::kSavesGates) {
        if (a_.pass.gates) {
          unsigned char* const to = a_.gates.at(gates_, beat.t, beat.slice) + S::unit(0, i) * kNumber;
#pragma unroll
          for (int gate = 0; gate < 4; ++gate) {
            Numbers saved;
#pragma unroll
            for (int j = 0; j < kPer; ++j) saved.n[j] = device::narrow<T>(made[i][j].saved[gate]);
            *reinterpret_cast<Numbers*>(to + gate * a_.pass.H * kNumber) = saved;
          }
        }
      }
      if constexpr (C::kHasC) {
        if (a_.pass.cells) {
          Floats c;
#pragma unroll
          for (int j = 0; j < kPer; ++j) c.n[j] = made[i][j].c;
          *reinterpret_cast<Floats*>(a_.cells.at(cells_, beat.t, beat.slice) + S::unit(0, i) * 4) = c;
        }
      }
    }
  }

  FUSEGEN_DEVICE int64_t state_index(int slice, int item) const {
    return (static_cast<int64_t>(direction_) * a_.pass.B + batch(slice)) * a_.pass.H + unit(item);
  }

  // After the last step. Where blocks have waited in vain all that the steps would have given is NaN.
  FUSEGEN_DEVICE void end(int slice, bool lost) const {
    const ForwardPass& pass = a_.pass;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (!real(slice, i)) continue;
      for (int j = 0; j < kPer; ++j) {
        const int64_t at = state_index(slice, i) + j;
        const auto last = [&](int which) {
          return lost ? device::not_a_number() : device::load<float>(state_at(slice, i, j, which));
        };
        write<T>(pass.h_n, at, last(0));
        if constexpr (C::kHasC) write<T>(pass.c_n, at, last(1));
        for (int t = 0; lost && t < pass.T; ++t)
          write<T>(pass.y,
                   ((static_cast<int64_t>(t) * pass.B + batch(slice)) * pass.D + direction_) * pass.H +
                       unit(i) + j,
                   device::not_a_number());
      }
    }
  }

  static constexpr int kNumber = static_cast<int>(sizeof(T));

  const Arguments& a_;
  const int rank_, direction_, first_b_, row_, unit_;  // unit_: of item 0
  const device::Shared memory_;
  const Handover<S, KSplits, N> handover_;
  // Of the first step's row of the first slice, at item 0's units.
  const unsigned char* gx_;
  unsigned char *y_, *gates_, *cells_;
  float b_hn_[kItems][kPer];
};

template <class C, class T, class Format, int KSplits, int N, bool kAnew>
FUSEGEN_KERNEL void wide_forward(FUSEGEN_ARGUMENT Arguments a) {
  if constexpr (device::kHasWarpgroups) {
    Steps<C, T, Format, KSplits, N, kAnew>(a).run();
  } else {  // plans see to it that this is not what runs
    if (device::thread() == 0) device::store_first(a.pass.error, kNoClusters);
  }
}

}  // namespace fusegen::cuda::wide
