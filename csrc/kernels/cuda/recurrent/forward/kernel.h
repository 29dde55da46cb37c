// All steps of a layer, forward, in one launch. A block owns some units for all rows of its group: it keeps
// their rows of R in registers and needs all of h_{t-1}, which the group's blocks hand each other
// (handover.h).
//
// A beat is a step of a slice. Warps work by themselves as far as they can: gate inputs are asked for three
// beats ahead (ring.h); when h_{t-1} is there each warp multiplies its share; where warps share units they
// deal out their sums behind a block barrier, so that each finishes as much as the others; then each does the
// cell's maths, gives its words of h_t to the group and only then stores y and what backward needs. In a
// cluster, where no warps share units, no barrier of the block is left in a beat.
//
// Bytes of a beat in a block, LSTM, bf16, H 512, 8 rows: 8 KB of h in from 16 blocks, 512 bytes out to each
// of them; 2 KB of gate inputs; 0.5 KB of y, and for backward 2 KB of gates and 1 KB of c. c, h and lengths
// stay in registers where there is one slice.
#pragma once
#include <type_traits>

#include "../gru.h"
#include "../lstm.h"
#include "../rnn.h"
#include "handover.h"
#include "ring.h"

namespace fusegen::cuda {

template <class C, class T, class Format, int NT, bool l2, bool kAnew>
class ForwardSteps {
public:
  using Rows = WarpRows<C::kGates>;
  static constexpr int kTiles = Rows::kTiles, kGates = C::kGates, kAll = Rows::kPairs * NT, kRows = 8 * NT,
                       kNumber = static_cast<int>(sizeof(T));
  using Sums = float[kTiles][NT][4];
  using Inputs = float[kAll][kGates];

  FUSEGEN_DEVICE ForwardSteps(const Arguments<ForwardPass>& a, const Self& me, const Share& share)
      : a_(a),
        me_(me),
        share_(share),
        first_b_(me.group * a.geometry.slices * kRows),
        stage_(held<C, Format>(share.memory + (a.geometry.shared.stage + device::warp() * share.words * 16 +
                                               share.place * kNumber))),
        stage_word_(held<C, Format>(
            share.memory + (a.geometry.shared.stage + (device::warp() * share.words + share.word) * 16))),
        partial_(held<C, Format>(share.memory + (a.geometry.shared.partial + device::warp() * kPartialBytes +
                                                 device::lane() * (kGates == 4 ? 16 : 4)))),
        taken_(held<C, Format>(share.memory + (a.geometry.shared.partial + share.first * kPairBytes +
                                               device::lane() * (kGates == 4 ? 16 : 4)))),
        handover_(a, me, share),
        ring_(a, me, share) {
    const ForwardPass& pass = a.pass;
    y_ = static_cast<uint32_t>(
        (first_row(pass, me.direction, first_b_ + share.word_row, false) * pass.H + share.word_unit) *
        kNumber);
    cells_ = reinterpret_cast<unsigned char*>(pass.cells) +
             (first_row(pass, me.direction, first_b_ + share.row, true) * pass.H + share.unit) * 4;
    outputs_ = held<C, Format>((pass.gates ? kGatesOut : 0) | (pass.cells ? kCellsOut : 0));
#pragma unroll
    for (int half = 0; half < 2; ++half) b_hn_[half] = 0;
    if constexpr (C::kTakesHiddenBias) {
      const void* b_hn = pass.b_hn[me.direction];
#pragma unroll
      for (int half = 0; half < 2; ++half)
        if (b_hn && share.unit + 8 * half < pass.H) b_hn_[half] = read<T>(b_hn, share.unit + 8 * half);
    }
  }

  FUSEGEN_DEVICE void run() {
    read_lengths();
    bool lost = !handover_.begin();
    if (!lost) lost = !all_steps();
    handover_.end();
    if (!share_.finishes) return;
    for (int slice = 0; slice < a_.geometry.slices; ++slice)
      with_count([&](auto count) { end<count>(slice, lost); });
  }

private:
  struct Beat {
    int slice, step, t;
  };

  // False: blocks have waited in vain.
  FUSEGEN_DEVICE bool all_steps() {
    Weights<kGates, T, Format> weights(a_.operand, me_);
    const device::Shared rows = held<C, Format>(
        weights.first_column(share_.memory + a_.geometry.shared.gathered, handover_.stride()));
    ring_.begin();
    for (int slice = 0; slice < a_.geometry.slices; ++slice) {
      device::Word4 word{0, 0, 0, 0};
      if (share_.finishes) {
        with_count([&](auto count) { start<count>(slice); });
        word = staged_word();
      }
      handover_.give(word, slice, 0, true);  // zeros too, since blocks wait for it
      device::sync_warp();                   // the stage is free again
    }

    const bool reverse = me_.direction == 1;
    Beat beat{0, 0, reverse ? static_cast<int>(a_.pass.T) - 1 : 0};
    while (beat.step < static_cast<int>(a_.pass.T)) {
      // Of this beat the inputs are there, of the last one all lanes have left the stage.
      device::copy_groups_done<kRingSlots - 2>();
      device::sync_warp();
      bool lost;
      if constexpr (l2) {
        lost = handover_.wait(beat.slice, beat.step, [&] { ring_.fetch(); });
      } else {
        ring_.fetch();
        lost = handover_.wait(beat.slice, beat.step);
      }
      // Where warps share units all go on to the barrier at which they add up, and decide there.
      if ((l2 || share_.count == kAll) && lost) break;
      Sums sums;
      weights.template partial_sums<NT>(sums, rows + handover_.rows(beat.slice, beat.step),
                                        handover_.stride());
      Made made[kAll];
      bool goes_on = true;
      with_count([&](auto count) { goes_on = finish<count>(made, sums, beat); });
      if (!goes_on) break;
      device::Word4 word{0, 0, 0, 0};
      if (share_.finishes) word = staged_word();
      if (ring_.starts_anew() && share_.finishes) hand_on_anew(word, beat.slice);
      // Not the last h: nobody waits for it, and a store must not be under way to a block that ends.
      handover_.give(word, beat.slice, beat.step + 1, beat.step + 1 < static_cast<int>(a_.pass.T));
      if (ring_.starts_anew() && share_.finishes) word = device::load16(stage_word_);  // y's again
      if (share_.finishes) with_count([&](auto count) { store<count>(made, word, beat); });

      ring_.go_on();
      if (++beat.slice == a_.geometry.slices) {
        beat.slice = 0;
        ++beat.step;
        beat.t += reverse ? -1 : 1;
      }
    }
    device::copies_done();
    return beat.step == a_.pass.T;
  }

  template <int kCount>
  static constexpr Patch patch() {
    return {Rows::kPairs, kCount};
  }

  // call(count): the share's, as a constant; each has its code.
  template <int kCount = kAll, class Call>
  FUSEGEN_DEVICE void with_count(const Call& call) const {
    if constexpr (kCount == 1) {
      call(std::integral_constant<int, 1>{});
    } else {
      if (share_.count == kCount) {
        call(std::integral_constant<int, kCount>{});
      } else {
        with_count<kCount / 2>(call);
      }
    }
  }

  // -- Where the lane's pairs lie --

  template <int kCount>
  FUSEGEN_DEVICE int unit(int i) const {
    return share_.unit + patch<kCount>().unit(0, i);
  }
  template <int kCount>
  FUSEGEN_DEVICE int row(int i) const {
    return share_.row + patch<kCount>().row_step() * patch<kCount>().row(0, i);
  }
  // Of the whole batch.
  template <int kCount>
  FUSEGEN_DEVICE int batch(int slice, int i) const {
    return first_b_ + slice * kRows + row<kCount>(i);
  }
  template <int kCount>
  FUSEGEN_DEVICE bool real(int slice, int i) const {
    return unit<kCount>(i) < a_.pass.H && batch<kCount>(slice, i) < a_.pass.B;
  }
  FUSEGEN_DEVICE bool word_real(int slice) const {
    return share_.finishes && share_.word_unit < a_.pass.H &&
           first_b_ + slice * kRows + share_.word_row < a_.pass.B;
  }

  // -- What is carried from step to step: in registers, or in shared memory where there are several slices,
  //    or two tiles' sums that take the registers --

  enum Carried { kC, kH };
  // Numbers taken as two, and RNN's 32 bits of sums for four pairs, leave no registers either on some GPUs.
  static constexpr bool kInMemory = NT > 1 || kSplit<Format> || (kGates == 1 && kNumber == 4);
  FUSEGEN_DEVICE bool recalls() const { return kInMemory || a_.geometry.slices > 1; }

  FUSEGEN_DEVICE device::Shared length_at(int row) const {
    return share_.memory + (a_.geometry.shared.lengths + 4 * row);
  }
  template <int kCount>
  FUSEGEN_DEVICE device::Shared kept_at(int slice, int i, Carried which) const {
    const int lanes = kAll / kCount * share_.unit_groups * 32;
    return share_.memory + (a_.geometry.shared.state +
                            4 * (((slice * kCount + i) * kCarried + which) * lanes + device::thread()));
  }
  // By all lanes; a block barrier must follow. -1: out of range, and what the sequence gives is NaN.
  FUSEGEN_DEVICE void read_lengths() const {
    const ForwardPass& pass = a_.pass;
    for (int i = device::thread(); i < a_.geometry.slices * kRows; i += device::kThreads) {
      int64_t length = first_b_ + i >= pass.B ? 0 : pass.lengths ? pass.lengths[first_b_ + i] : pass.T;
      if (length < 0 || length > pass.T) {
        length = -1;
        device::store_first(pass.error, error_of_length(first_b_ + i));
      }
      device::store(length_at(i), static_cast<int>(length));
    }
  }
  // A pair that is not there has no step, so its h stays zero: units past H are multiplied, if by zeros.
  template <int kCount>
  FUSEGEN_DEVICE void recall_lengths(int slice) {
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      length_[i] =
          unit<kCount>(i) < a_.pass.H ? device::load<int>(length_at(slice * kRows + row<kCount>(i))) : 0;
    word_length_ = word_real(slice) ? device::load<int>(length_at(slice * kRows + share_.word_row)) : kNoWord;
  }
  template <int kCount>
  FUSEGEN_DEVICE void recall(int slice) {
    recall_lengths<kCount>(slice);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (C::kHasC) c_[i] = device::load<float>(kept_at<kCount>(slice, i, kC));
      h_[i] = device::load<float>(kept_at<kCount>(slice, i, kH));
    }
  }
  template <int kCount>
  FUSEGEN_DEVICE void keep(int slice) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (C::kHasC) device::store(kept_at<kCount>(slice, i, kC), c_[i]);
      device::store(kept_at<kCount>(slice, i, kH), h_[i]);
    }
  }

  // Before the first step: c0, and h0 to the stage.
  template <int kCount>
  FUSEGEN_DEVICE void start(int slice) {
    recall_lengths<kCount>(slice);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool bad = length_[i] < 0;
      c_[i] = h_[i] = bad ? device::not_a_number() : 0.0f;
      if (!bad && real<kCount>(slice, i)) {
        const int64_t at = state_index(batch<kCount>(slice, i), unit<kCount>(i));
        if (C::kHasC && a_.pass.c0) c_[i] = read<T>(a_.pass.c0, at);
        if (a_.pass.h0) h_[i] = read<T>(a_.pass.h0, at);
      }
    }
    if (ring_.starts_anew()) keep_resets<kCount>(slice);
    if (recalls()) keep<kCount>(slice);
#pragma unroll
    for (int i = 0; i < kCount; ++i) stage<kCount>(i, device::narrow<T>(h_[i]));
  }

  // -- Where sequences start anew: what states become, [slice][h, c] of stages in shared memory --

  FUSEGEN_DEVICE int reset_at(int slice, Carried which) const {  // from the stage on
    const SharedParts& shared = a_.geometry.shared;
    return shared.resets - shared.stage + ((C::kHasC ? 2 : 1) * slice + (which == kC)) * shared.reset_size;
  }
  // Before the first step: the lane's, and of sequences that start anew before it.
  template <int kCount>
  FUSEGEN_DEVICE void keep_resets(int slice) {
    const Boundaries& boundaries = a_.pass.boundaries;
    constexpr Patch p = patch<kCount>();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int b = batch<kCount>(slice, i), at = (p.row(0, i) * p.units() + p.unit(0, i)) * kNumber;
      const bool there = real<kCount>(slice, i), anew = there && starts_anew(a_.pass, me_.direction, 0, b);
      const int64_t from = there ? state_index(b, unit<kCount>(i)) : 0;
      const auto become = [&](float& state, const void* all, Carried which) {
        const T v = there && all ? static_cast<const T*>(all)[from] : T{};
        device::store(stage_ + (reset_at(slice, which) + at), v);
        if (anew) state = device::widen(v);
      };
      become(h_[i], boundaries.h, kH);
      if constexpr (C::kHasC) become(c_[i], boundaries.c, kC);
    }
  }
  // What the next step reads of the lane's word.
  FUSEGEN_DEVICE void hand_on_anew(device::Word4& word, int slice) const {
    if (ring_.rows_anew(slice) >> share_.word_row & 1)
      word = device::load16(stage_word_ + reset_at(slice, kH));
  }
  template <int kCount>
  FUSEGEN_DEVICE void start_anew(int slice) {
    constexpr Patch p = patch<kCount>();
    const uint32_t rows = ring_.rows_anew(slice);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (!(rows >> row<kCount>(i) & 1)) continue;
      const device::Shared from = stage_ + (p.row(0, i) * p.units() + p.unit(0, i)) * kNumber;
      h_[i] = device::widen(device::load<T>(from + reset_at(slice, kH)));
      if constexpr (C::kHasC) c_[i] = device::widen(device::load<T>(from + reset_at(slice, kC)));
    }
  }

  // -- A beat, from the warp's own sums on --

  // From the warp's own sums to h_t on the stage. False: blocks have waited in vain, and the kernel ends.
  template <int kCount>
  FUSEGEN_DEVICE bool finish(Made (&made)[kAll], const Sums& sums, const Beat& beat) {
    Inputs x;
    if (share_.finishes) {
      ring_.template read<kCount>(x, beat.slice, beat.t);
    } else {
      for_each_of<kCount>([&](int i, int gate) { x[i][gate] = 0; });
    }
    float sum[kCount][kGates];
    if constexpr (kCount == kAll) {
      for_each_of<kCount>([&](int i, int gate) { sum[i][gate] = own_sum(sums, i, gate); });
    } else {
      // In a cluster a warp may be a beat ahead of one that still takes in the last beat's sums, unless it
      // had to wait for what that one gave: of another slice, it had not.
      if (!l2 && a_.geometry.slices > 1) device::sync_block();
      deal_out<kCount>(sums);
      device::sync_block();
      if (!l2 && handover_.stopped(beat.slice, beat.step)) return false;
      if (!share_.finishes) return true;
      take_in<kCount>(sum, sums);
    }
    if (recalls()) recall<kCount>(beat.slice);
    compute<kCount>(made, x, sum, beat);
    return true;
  }

  template <int kCount, class Each>
  static FUSEGEN_DEVICE void for_each_of(const Each& each) {
#pragma unroll
    for (int i = 0; i < kCount; ++i)
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate) each(i, gate);
  }
  static FUSEGEN_DEVICE float own_sum(const Sums& sums, int pair, int gate) {
    return sums[Rows::sum_tile(gate)][pair / Rows::kPairs][Rows::sum_place(gate, pair % Rows::kPairs)];
  }
  // A warp's sums of a pair: LSTM's four as a word of each lane, else a row of lanes for each gate.
  static constexpr int kPairBytes = 128 * kGates, kPartialBytes = kAll * kPairBytes;
  template <int kCount>
  FUSEGEN_DEVICE void deal_out(const Sums& sums) const {
#pragma unroll
    for (int pair = 0; pair < kAll; ++pair) {
      if (pair / kCount == me_.k_split) continue;
      const device::Shared to = partial_ + pair * kPairBytes;
      if constexpr (kGates == 4) {
        device::store16(to,
                        {device::as_bits(own_sum(sums, pair, 0)), device::as_bits(own_sum(sums, pair, 1)),
                         device::as_bits(own_sum(sums, pair, 2)), device::as_bits(own_sum(sums, pair, 3))});
      } else {
#pragma unroll
        for (int gate = 0; gate < kGates; ++gate) device::store(to + 128 * gate, own_sum(sums, pair, gate));
      }
    }
  }
  template <int kCount>
  FUSEGEN_DEVICE void take_in(float (&sum)[kCount][kGates], const Sums& sums) const {
    for_each_of<kCount>([&](int i, int gate) {
      float mine = own_sum(sums, i, gate);
#pragma unroll
      for (int first = kCount; first < kAll; first += kCount) {
        const float other = own_sum(sums, first + i, gate);
        mine = share_.first == first ? other : mine;
      }
      sum[i][gate] = mine;
    });
    const auto add = [&](int other) {
      const int warp = share_.thread / 32 ^ (other * share_.unit_groups);
      const device::Shared warps = taken_ + warp * kPartialBytes;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const device::Shared from = warps + i * kPairBytes;
        if constexpr (kGates == 4) {
          const device::Word4 v = device::load16(from);
          sum[i][0] += device::as_float(v.x);
          sum[i][1] += device::as_float(v.y);
          sum[i][2] += device::as_float(v.z);
          sum[i][3] += device::as_float(v.w);
        } else {
#pragma unroll
          for (int gate = 0; gate < kGates; ++gate) sum[i][gate] += device::load<float>(from + 128 * gate);
        }
      }
    };
#pragma unroll
    for (int other = 1; other < kAll / kCount; ++other) add(other);
    if constexpr (kCount == 1) {  // more warps than pairs
#pragma unroll 1
      for (int others = kAll; others < a_.geometry.k_splits; others += kAll)
#pragma unroll
        for (int other = 0; other < kAll; ++other) add(others + other);
    }
  }

  template <int kCount>
  FUSEGEN_DEVICE void stage(int i, T h) const {
    constexpr Patch p = patch<kCount>();
    device::store(stage_ + (p.row(0, i) * p.units() + p.unit(0, i)) * kNumber, h);
  }
  FUSEGEN_DEVICE device::Word4 staged_word() const {
    device::sync_warp();
    return device::load16(stage_word_);
  }

  // What is saved of the gates leaves a lane's registers when h is on its way; where two tiles' sums take
  // them, at once.
  static constexpr bool kSavesAtOnce = C::kSavesGates && NT > 1, kSavesLater = C::kSavesGates && NT == 1;
  template <int kCount, bool whole>
  FUSEGEN_DEVICE void put_saved(const Made (&made)[kAll]) const {
    if (!(outputs_ & kGatesOut)) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) ring_.template put<kCount, whole>(made[i], i);
  }

  // The cell's maths; h_t goes to the stage.
  template <int kCount>
  FUSEGEN_DEVICE void compute(Made (&made)[kAll], const Inputs& x, const float (&sum)[kCount][kGates],
                              const Beat& beat) {
    if constexpr (kSavesAtOnce) device::sync_warp();  // all have read their inputs
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool live = beat.t < length_[i];
      made[i] =
          C::template step<T>(a_.pass, x[i], sum[i], {c_[i], h_[i], b_hn_[patch<kCount>().unit(0, i) / 8]});
      const T h = device::narrow<T>(device::select(live, made[i].h, h_[i]));  // as every reader sees it
      stage<kCount>(i, h);
      h_[i] = device::widen(h);
      if constexpr (C::kHasC) c_[i] = device::select(live, made[i].c, c_[i]);
      if constexpr (kSavesAtOnce) {
        if (outputs_ & kGatesOut) {
          if (ring_.whole()) {
            ring_.template put<kCount, true>(made[i], i);
          } else {
            ring_.template put<kCount, false>(made[i], i);
          }
        }
      }
    }
  }

  template <int kCount>
  FUSEGEN_DEVICE void store(const Made (&made)[kAll], const device::Word4& word, const Beat& beat) {
    if (ring_.whole()) {
      if constexpr (kSavesLater) put_saved<kCount, true>(made);
      if (share_.part == 0 && word_length_ != kNoWord)
        device::store16(a_.y.at(static_cast<unsigned char*>(a_.pass.y) + y_, beat.t, beat.slice),
                        static_cast<uint32_t>(beat.t) < static_cast<uint32_t>(word_length_)
                            ? word
                            : device::Word4{0, 0, 0, 0});
      if constexpr (C::kSavesGates) {
        if (outputs_ & kGatesOut) ring_.save(beat.t < word_length_, beat.slice, beat.t);
      }
    } else {
      if constexpr (kSavesLater) put_saved<kCount, false>(made);
      store_each<kCount>(beat);
    }
    if constexpr (C::kHasC) {
      if (outputs_ & kCellsOut) {
        unsigned char* const to = a_.cells.at(cells_, beat.t, beat.slice);
#pragma unroll
        for (int i = 0; i < kCount; ++i)
          if (beat.t < length_[i])
            *reinterpret_cast<float*>(
                to + 4 * (patch<kCount>().unit(0, i) +
                          static_cast<int64_t>(row<kCount>(i) - share_.row) * a_.pass.H)) = c_[i];
      }
    }
    if (ring_.starts_anew()) start_anew<kCount>(beat.slice);
    if (recalls()) keep<kCount>(beat.slice);
  }
  // y and gates number by number, where rows do not begin on whole words: out of shared memory, so that loops
  // need not be unrolled, whose code would stand in the way of all others.
  template <int kCount>
  FUSEGEN_DEVICE void store_each(const Beat& beat) const {
    const ForwardPass& pass = a_.pass;
    constexpr Patch p = patch<kCount>();
#pragma unroll 1
    for (int i = 0; i < kCount; ++i) {
      if (!real<kCount>(beat.slice, i)) continue;
      const int b = batch<kCount>(beat.slice, i), unit = this->template unit<kCount>(i),
                length = device::load<int>(length_at(beat.slice * kRows + row<kCount>(i)));
      const T h = device::load<T>(stage_ + (p.row(0, i) * p.units() + p.unit(0, i)) * kNumber);
      const bool live = beat.t < length;
      static_cast<T*>(pass.y)[y_index(beat.t, b, unit)] = live || length < 0 ? h : T{};
      if constexpr (C::kSavesGates) {
        const int64_t row = (static_cast<int64_t>(me_.direction) * pass.T + beat.t) * pass.B + b;
        T* const to = static_cast<T*>(pass.gates) + row * 4 * pass.H + unit;
#pragma unroll 1
        for (int gate = 0; live && pass.gates && gate < 4; ++gate)
          to[gate * pass.H] =
              device::load<T>(ring_.template left<kCount>() + ring_.template left_at<kCount>(i, gate));
      }
    }
  }

  FUSEGEN_DEVICE int64_t y_index(int t, int b, int unit) const {
    return ((static_cast<int64_t>(t) * a_.pass.B + b) * a_.pass.D + me_.direction) * a_.pass.H + unit;
  }
  FUSEGEN_DEVICE int64_t state_index(int b, int unit) const {
    return (static_cast<int64_t>(me_.direction) * a_.pass.B + b) * a_.pass.H + unit;
  }

  // After the last step. Where blocks have waited in vain all that the steps would have given is NaN.
  template <int kCount>
  FUSEGEN_DEVICE void end(int slice, bool lost) {
    const ForwardPass& pass = a_.pass;
    if (recalls() && !lost) recall<kCount>(slice);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (!real<kCount>(slice, i)) continue;
      const int b = batch<kCount>(slice, i), unit = this->template unit<kCount>(i);
      const int64_t at = state_index(b, unit);
      write<T>(pass.h_n, at, lost ? device::not_a_number() : h_[i]);
      if constexpr (C::kHasC) write<T>(pass.c_n, at, lost ? device::not_a_number() : c_[i]);
      for (int t = 0; lost && t < pass.T; ++t) write<T>(pass.y, y_index(t, b, unit), device::not_a_number());
    }
  }

  static constexpr int kNoWord = -2;

  const Arguments<ForwardPass>& a_;
  const Self& me_;
  const Share& share_;
  const int first_b_;
  device::Shared stage_, stage_word_;  // of pair 0 and of the lane's word
  device::Shared partial_, taken_;  // of the lane in what its warp deals out, and in what it takes of warp 0
  Handover<C, T, Format, NT, l2> handover_;
  GateRing<C, T, Format, NT, kAnew> ring_;
  uint32_t y_;            // where the lane's word of the first step lies in y, in bytes
  unsigned char* cells_;  // of the first step
  static constexpr int kGatesOut = 1, kCellsOut = 2;
  int outputs_;    // that are wanted
  float b_hn_[2];  // of unit 0 of the lane's, and of that 8 further on
  float c_[kAll], h_[kAll];
  int length_[kAll];
  int word_length_ = kNoWord;  // of the row that the lane's word is of, kNoWord: it is of none
};

template <class C, class T, class Format, int NT, bool l2, bool kAnew>
FUSEGEN_KERNEL void forward_sequence(FUSEGEN_ARGUMENT Arguments<ForwardPass> a) {
  using Rows = WarpRows<C::kGates>;
  const Self me = self<Rows>(a.geometry, a.operand.chunks);
  const Share share = share_of<T, Rows, NT>(a.geometry, me);
  ForwardSteps<C, T, Format, NT, l2, kAnew>(a, me, share).run();
}

}  // namespace fusegen::cuda
