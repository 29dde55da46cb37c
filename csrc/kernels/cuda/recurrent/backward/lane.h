// What a lane does for the units that its block owns: pairs of a unit and a row of the batch, a float of a
// part each (shard.h), so that all warps share the maths. A warp's pairs are 16 units in two rows, which lie
// side by side in memory too.
#pragma once
#include <device/shared.h>
#include <device/warp.h>

#include "../boundaries.h"
#include "arguments.h"
#include "cell.h"
#include "scatter.h"

namespace fusegen::cuda {

// Numbers of a pair between its maths and the stores, as narrow as they are.
template <class T, int kCount>
class PackedNumbers {
public:
  FUSEGEN_DEVICE void put(int i, T number) {
    if constexpr (sizeof(T) == 4) {
      words_[i] = device::as_bits(number);
    } else {
      words_[i / 2] = i % 2 ? words_[i / 2] | static_cast<uint32_t>(number.bits) << 16 : number.bits;
    }
  }
  FUSEGEN_DEVICE T operator[](int i) const {
    if constexpr (sizeof(T) == 4) {
      return device::as_float(words_[i]);
    } else {
      return {static_cast<uint16_t>(words_[i / 2] >> (16 * (i % 2)))};
    }
  }

private:
  uint32_t words_[ceil_div(kCount * sizeof(T), 4)] = {};
};

// Also reads lengths, and keeps what is carried from step to step, in shared memory, for all slices.
// kAnew: sequences may start anew in the call.
template <class C, class T, class S, int NT, bool kAnew>
class GradientLane {
public:
  static constexpr int kRows = 8 * NT, kFloats = S::part_floats(NT),
                       kPairs = ceil_div(kFloats, device::kThreads);
  using Cell = CellBackward<C>;
  using Outputs = PackedNumbers<T, C::kColumns>[kPairs];

  FUSEGEN_DEVICE GradientLane(const BackwardArguments& a, const BlockPlace& me)
      : a_(a),
        pass_(a.pass),
        me_(me),
        first_unit_(me.rank * S::kUnits + S::float_unit(device::thread())),
        first_row_(S::float_row(device::thread())),
        lengths_(device::shared_start() + a.shared.lengths) {}

  // Whether the lane has pairs.
  FUSEGEN_DEVICE bool owner() const { return kFloats >= device::kThreads || device::thread() < kFloats; }
  FUSEGEN_DEVICE int steps() const { return static_cast<int>(pass_.T); }
  // Steps count from the one that ran last.
  FUSEGEN_DEVICE int time(int step) const { return me_.direction == 1 ? step : steps() - 1 - step; }

  // -- Before the first step --

  // By all lanes; a block barrier must follow.
  FUSEGEN_DEVICE void read_lengths() const {
    for (int i = device::thread(); i < a_.slices * kRows; i += device::kThreads) {
      const int b = first_of_group() + i;
      int64_t length = b < pass_.B ? (pass_.lengths ? pass_.lengths[b] : steps()) : 0;
      if (length < 0 || length > steps()) {
        length = -1;
        device::store_first(pass_.error, error_of_length(b));
      }
      device::store(lengths_ + 4 * i, static_cast<int>(length));
    }
  }

  FUSEGEN_DEVICE void begin() const {
    each_of_all([&](int slice, int pair) {
      const bool there = real(slice, pair);
      const int64_t i = there ? state_index(slice, pair) : 0;
      const auto first = [&](const void* p) { return there && p ? read<T>(p, i) : 0.0f; };
      const bool lost = length(slice, pair) < 0;
      carried(slice, pair, kDh) = lost ? device::not_a_number() : first(pass_.dh_n);
      if constexpr (kCarried > kStart) carried(slice, pair, kStart) = first(Cell::start(pass_));
      if constexpr (kCarried > kDc)
        carried(slice, pair, kDc) = lost ? device::not_a_number() : first(pass_.dc_n);
      if constexpr (!kAnew) return;
      stopped_here(slice, pair, kDh) = 0;
      if constexpr (kCarried > kStart) stopped_here(slice, pair, kStart) = first(Cell::anew(pass_));
      if constexpr (kCarried > kDc) stopped_here(slice, pair, kDc) = 0;
    });
  }

  // -- A step of a slice, part by part --

  // Starts to read what forward saved, for the step and slice that are prepared next. There are no branches:
  // of a step, unit or row that is not there, a lane reads some other's.
  FUSEGEN_DEVICE void fetch(int slice, int step) {
    const int H = pass_.H, last = steps() - 1, t = time(step < last ? step : last),
              before = time(step < last ? step + 1 : last);
    // from a time step's first number on
    const auto numbers = [&](const void* all, int t) {
      return static_cast<const T*>(all) + static_cast<int64_t>(t) * y_step();
    };
    const auto states = [&](const auto* all, int t, int columns) {
      return all + static_cast<int64_t>(me_.direction * steps() + t) * (columns * pass_.B * H);
    };
    const SavedStep<T> saved{.y = numbers(pass_.y, t),
                             .y_before = numbers(pass_.y, before),
                             .gates = states(static_cast<const T*>(pass_.gates), t, 4),
                             .cells = states(pass_.cells, t, 1),
                             .cells_before = states(pass_.cells, before, 1)};
    const T* dy = numbers(a_.dy, t);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      const int b = batch(slice, pair) < pass_.B ? batch(slice, pair) : pass_.B - 1;
      const int u = unit(pair) < H ? unit(pair) : H - 1;
      const SavedPlace place{
          .of_y = (b * pass_.D + me_.direction) * H + u, .of_cells = b * H + u, .of_gates = 4 * b * H + u};
      saved_[pair] = Cell::template read<T>(saved, place, H);
      of_dy_[pair] = dy[place.of_y];
    }
    if constexpr (kAnew) fetch_boundaries(slice, step);
  }

  // Before the wait for the other blocks: all that does not depend on them.
  FUSEGEN_DEVICE void prepare(int slice, int step) {
    const int t = time(step);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      const int there = unit(pair) < pass_.H ? length(slice, pair) : 0;
      live_[pair] = t < there;
      dead_[pair] = there < 0 ? device::not_a_number() : 0.0f;
      const bool first = me_.direction == 1 ? t == there - 1 : t == 0;
      slopes_[pair] = Cell::template slopes<T>(saved_[pair], first,
                                               kCarried > kStart ? carried(slice, pair, kStart) : 0.0f);
      dh_[pair] = carried(slice, pair, kDh) + (live_[pair] && pass_.dy ? device::widen(of_dy_[pair]) : 0.0f);
      if constexpr (kCarried > kDc) dc_[pair] = carried(slice, pair, kDc);
    }
    if constexpr (kAnew) prepare_anew(slice);
  }

  // Adds what the ranks have sent, in their order.
  FUSEGEN_DEVICE void add(const float* parts) {
    constexpr int kStep = rank_step(S::kMostBlocks);  // as many loads under way, for each pair
    const float* from = parts + device::thread();
#pragma unroll 1
    for (int rank = 0; rank < a_.blocks; rank += kStep, from += kStep * kFloats)
#pragma unroll
      for (int i = 0; i < kStep; ++i)
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) dh_[pair] += from[i * kFloats + pair * device::kThreads];
  }

  // Behind add(): what reaches a state that one of them was given is not the step's before it.
  FUSEGEN_DEVICE void stop(int slice) {
    const uint32_t rows = rows_anew(slice, true);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      if (!(rows >> row(pair) & 1)) continue;
      stopped_here(slice, pair, kDh) += dh_[pair];
      dh_[pair] = pass_.dy ? device::widen(of_dy_[pair]) : 0.0f;
    }
  }

  // The cell's maths. The gates' gradients go to `stage`, and with those of W x alone to `out`.
  FUSEGEN_DEVICE void compute(Outputs& out, unsigned char* stage, int slice) const {
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      float g[C::kColumns], dh = dh_[pair], dc = kCarried > kDc ? dc_[pair] : 0.0f;
      Cell::gradient(pass_, slopes_[pair], g, dh, dc);
#pragma unroll
      for (int i = 0; i < C::kColumns; ++i)
        out[pair].put(i, device::narrow<T>(live_[pair] ? g[i] : dead_[pair]));
      carried(slice, pair, kDh) = live_[pair] ? dh : dh_[pair];
      if constexpr (kCarried > kDc)
        if (live_[pair]) carried(slice, pair, kDc) = dc;
#pragma unroll
      for (int gate = 0; gate < C::kGates; ++gate)
        *reinterpret_cast<T*>(stage + row(pair) * S::kStageStride +
                              S::stage_at(unit(pair) - me_.rank * S::kUnits, gate)) =
            out[pair][C::column_of(gate)];
    }
  }

  FUSEGEN_DEVICE void store(const Outputs& out, int slice, int step) const {
    T* rows = static_cast<T*>(pass_.dgates) + static_cast<int64_t>(time(step)) * (C::kColumns * y_step());
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      if (!real(slice, pair)) continue;
      const int at = (batch(slice, pair) * pass_.D + me_.direction) * C::kColumns * pass_.H + unit(pair);
#pragma unroll
      for (int i = 0; i < C::kColumns; ++i) rows[at + i * pass_.H] = out[pair][i];
    }
  }

  // -- After the last --

  // Through R alone: the last step's sums are all that is left of dh0.
  FUSEGEN_DEVICE void add_last(const float* parts, int slice) {
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) dh_[pair] = carried(slice, pair, kDh);
    add(parts);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) carried(slice, pair, kDh) = dh_[pair];
  }

  // dh0 and dc0, where they are wanted. After blocks have waited in vain all is NaN, what the steps would
  // have written too.
  FUSEGEN_DEVICE void end(bool stopped) const {
    each_of_all([&](int slice, int pair) {
      if (!real(slice, pair)) return;
      const int64_t i = state_index(slice, pair);
      const float lost = device::not_a_number();
      if constexpr (kAnew) {
        if (starts_anew(pass_, me_.direction, 0, batch(slice, pair))) {
          stopped_here(slice, pair, kDh) += carried(slice, pair, kDh);
          carried(slice, pair, kDh) = 0;
          if constexpr (kCarried > kDc) stopped_here(slice, pair, kDc) += carried(slice, pair, kDc);
          if constexpr (kCarried > kDc) carried(slice, pair, kDc) = 0;
        }
        if (pass_.dreset_h) pass_.dreset_h[i] = stopped ? lost : stopped_here(slice, pair, kDh);
        if constexpr (kCarried > kDc)
          if (pass_.dreset_c) pass_.dreset_c[i] = stopped ? lost : stopped_here(slice, pair, kDc);
      }
      if (pass_.dh0) write<T>(pass_.dh0, i, stopped ? lost : carried(slice, pair, kDh));
      if constexpr (kCarried > kDc)
        if (pass_.dc0) write<T>(pass_.dc0, i, stopped ? lost : carried(slice, pair, kDc));
      for (int t = 0; stopped && t < steps(); ++t)
        for (int column = 0; column < C::kColumns; ++column)
          write<T>(pass_.dgates, (y_row(t, batch(slice, pair)) * C::kColumns + column) * pass_.H + unit(pair),
                   lost);
    });
  }

private:
  static constexpr int kCarried = backward_carried(C::kGates);
  enum { kDh, kStart, kDc };

  FUSEGEN_DEVICE int unit(int pair) const { return first_unit_ + S::float_unit(pair * device::kThreads); }
  FUSEGEN_DEVICE int row(int pair) const { return first_row_ + S::float_row(pair * device::kThreads); }
  FUSEGEN_DEVICE int first_of_group() const { return me_.group * a_.slices * kRows; }
  FUSEGEN_DEVICE int batch(int slice, int pair) const { return first_of_group() + slice * kRows + row(pair); }
  // Whether there are such a unit and such a row; blocks and slices reach past both.
  FUSEGEN_DEVICE bool real(int slice, int pair) const {
    return unit(pair) < pass_.H && batch(slice, pair) < pass_.B;
  }
  // In [D,B,H], and the row in [T,B,D].
  FUSEGEN_DEVICE int64_t state_index(int slice, int pair) const {
    return (static_cast<int64_t>(me_.direction) * pass_.B + batch(slice, pair)) * pass_.H + unit(pair);
  }
  FUSEGEN_DEVICE int64_t y_row(int t, int b) const {
    return (static_cast<int64_t>(t) * pass_.B + b) * pass_.D + me_.direction;
  }
  // Numbers of a time step in y.
  FUSEGEN_DEVICE int y_step() const { return pass_.B * pass_.D * pass_.H; }

  // -1: out of range, and what the sequence gives is NaN. 0 of a row that is not there.
  FUSEGEN_DEVICE int length(int slice, int pair) const {
    return device::load<int>(lengths_ + (slice * kRows + row(pair)) * 4);
  }
  FUSEGEN_DEVICE float& carried(int slice, int pair, int which) const {
    return at(a_.shared.state, slice, pair, which);
  }
  // Of sequences that start anew: what has reached the states that they were given (of kStart: one of these).
  FUSEGEN_DEVICE float& stopped_here(int slice, int pair, int which) const {
    return at(a_.shared.resets, slice, pair, which);
  }
  FUSEGEN_DEVICE float& at(int part, int slice, int pair, int which) const {
    return reinterpret_cast<float*>(
        device::shared_memory() +
        part)[((slice * kPairs + pair) * kCarried + which) * device::kThreads + device::thread()];
  }

  // The warp's copies of the boundaries before the step that is prepared next, and behind it.
  FUSEGEN_DEVICE device::Shared boundaries(bool behind) const {
    return device::shared_start() + (a_.shared.boundaries + (device::warp() * 2 + behind) * kBoundaryWord);
  }
  FUSEGEN_DEVICE void fetch_boundaries(int slice, int step) const {
    if (device::lane() || step >= steps()) return;
    const int words = (first_of_group() + slice * kRows) / 128 * 4, order = steps() - 1 - step;
    for (int behind = 0; behind < 2; ++behind)
      device::copy16_async(boundaries(behind != 0),
                           boundaries_before(pass_, me_.direction, order + behind) + words);
  }
  // Which rows of a slice start anew there: a bit each, the first the lowest.
  FUSEGEN_DEVICE uint32_t rows_anew(int slice, bool behind) const {
    const int first = first_of_group() + slice * kRows;
    return static_cast<uint32_t>(device::load<int>(boundaries(behind) + first / 32 % 4 * 4)) >> first % 32;
  }
  FUSEGEN_DEVICE void prepare_anew(int slice) {
    device::copies_done();
    device::sync_warp();
    const uint32_t before = rows_anew(slice, false), behind = rows_anew(slice, true);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      if constexpr (kCarried > kStart)
        if (before >> row(pair) & 1)
          Cell::template begin_anew<T>(slopes_[pair], saved_[pair], stopped_here(slice, pair, kStart));
      if (!(behind >> row(pair) & 1)) continue;
      dh_[pair] = carried(slice, pair, kDh);  // stop() adds dy
      if constexpr (kCarried > kDc) {
        stopped_here(slice, pair, kDc) += dc_[pair];
        dc_[pair] = 0;
      }
    }
  }

  template <class Each>
  FUSEGEN_DEVICE void each_of_all(const Each& each) const {
    if (!owner()) return;
#pragma unroll 1
    for (int slice = 0; slice < a_.slices; ++slice)
#pragma unroll 1
      for (int pair = 0; pair < kPairs; ++pair) each(slice, pair);
  }

  const BackwardArguments& a_;
  const BackwardPass& pass_;
  const BlockPlace& me_;
  const int first_unit_, first_row_;
  const device::Shared lengths_;
  // Of the step to come, as read; of this one, as prepared.
  typename Cell::template Saved<T> saved_[kPairs];
  T of_dy_[kPairs];
  typename Cell::Slopes slopes_[kPairs];
  float dh_[kPairs], dc_[kPairs], dead_[kPairs];
  bool live_[kPairs];
};

}  // namespace fusegen::cuda
