// What a lane keeps of its sequences: where its units and rows lie, the rows' lengths, and the two floats
// that each (unit, row) carries from step to step: c and h forward, dc and dh backward.
#pragma once
#include <device/exchange.h>

#include "resident.h"

namespace fusegen::cuda {

template <class T>
FUSEGEN_DEVICE float read(const void* p, int64_t i) {
  return device::widen(static_cast<const T*>(p)[i]);
}
template <class T>
FUSEGEN_DEVICE void write(void* p, int64_t i, float x) {
  static_cast<T*>(p)[i] = device::narrow<T>(x);
}

enum Carried { kC, kH };

// each(n, pair) for what a lane has of a slice: unrolled, so that what is indexed stays in registers.
template <int NT, int kPairs, class Each>
FUSEGEN_DEVICE void for_each_pair(const Each& each) {
#pragma unroll
  for (int n = 0; n < NT; ++n)
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) each(n, pair);
}

template <class T, class Rows, int NT>
class Sequence {
public:
  static constexpr int kPairs = Rows::kPairs, kRows = 8 * NT;

  FUSEGEN_DEVICE Sequence(const Recurrence& pass, const Geometry& geometry, const Self& me)
      : pass_(pass),
        geometry_(geometry),
        me_(me),
        lane_(device::lane()),
        unit_groups_(device::kWarps / geometry.k_splits),
        stage_(reinterpret_cast<T*>(device::shared_memory() + geometry.shared.stage)),
        state_(reinterpret_cast<float*>(device::shared_memory() + geometry.shared.state) +
               me.unit_group * 32 + lane_),
        lengths_(reinterpret_cast<int*>(device::shared_memory() + geometry.shared.lengths)) {}

  // Whether the lane has sums, hence units of its own.
  FUSEGEN_DEVICE bool owner() const { return me_.k_split == 0; }
  FUSEGEN_DEVICE int steps() const { return static_cast<int>(pass_.T); }
  // Whether the sequences run from their ends.
  FUSEGEN_DEVICE bool reverse() const { return me_.direction == 1; }

  FUSEGEN_DEVICE int unit(int pair) const { return me_.first_unit + Rows::pair_unit(lane_, pair); }
  FUSEGEN_DEVICE int batch(int slice, int n, int pair) const {
    return (me_.group * geometry_.slices + slice) * kRows + row(n, pair);
  }
  // Whether there are such a unit and such a row; tiles reach past both.
  FUSEGEN_DEVICE bool real(int slice, int n, int pair) const {
    return unit(pair) < pass_.H && batch(slice, n, pair) < pass_.B;
  }
  // -1: out of range, and what the sequence gives is NaN. 0 of a row that is not there.
  FUSEGEN_DEVICE int length(int slice, int n, int pair) const {
    return lengths_[slice * kRows + row(n, pair)];
  }
  FUSEGEN_DEVICE float& carried(int slice, int n, int pair, Carried which) const {
    return state_[((slice * NT * kPairs + n * kPairs + pair) * kCarried + which) * unit_groups_ * 32];
  }

  // In [D,B,H], in [T,B,D,columns*H], and the row of [D,T,B,..].
  FUSEGEN_DEVICE int64_t state_index(int b, int unit) const {
    return (static_cast<int64_t>(me_.direction) * pass_.B + b) * pass_.H + unit;
  }
  FUSEGEN_DEVICE int64_t index(int t, int b, int unit, int columns = 1) const {
    return ((static_cast<int64_t>(t) * pass_.B + b) * pass_.D + me_.direction) * columns * pass_.H + unit;
  }
  FUSEGEN_DEVICE int64_t saved_row(int t, int b) const {
    return (static_cast<int64_t>(me_.direction) * steps() + t) * pass_.B + b;
  }

  // -- What the block publishes: [8*NT][segments][units of the block] --

  FUSEGEN_DEVICE int own_units() const { return unit_groups_ * Rows::kUnits; }
  FUSEGEN_DEVICE int own_bytes() const { return own_units() * static_cast<int>(sizeof(T)); }
  FUSEGEN_DEVICE int segment_bytes() const { return geometry_.blocks * own_bytes(); }
  template <int kSegments>
  FUSEGEN_DEVICE void put_on_stage(int n, int pair, int segment, float value) const {
    stage_[(row(n, pair) * kSegments + segment) * own_units() + me_.unit_group * Rows::kUnits +
           Rows::pair_unit(lane_, pair)] = device::narrow<T>(value);
  }

  // -- Before the first step of a launch, and after its last --

  // By all lanes; a block barrier must follow.
  FUSEGEN_DEVICE void read_lengths() const {
    for (int i = device::thread(); i < geometry_.slices * kRows; i += device::kThreads) {
      const int b = me_.group * geometry_.slices * kRows + i;
      int64_t length = b < pass_.B ? (pass_.lengths ? pass_.lengths[b] : steps()) : 0;
      if (length < 0 || length > steps()) {
        length = -1;
        device::store_first(pass_.error, error_of_length(b));
      }
      lengths_[i] = static_cast<int>(length);
    }
  }

  // What the launch before has left, or `c` and `h` [D,B,H], of which null is zero.
  FUSEGEN_DEVICE void begin(const float* carry, bool fresh, const void* c, const void* h) const {
    for_each_of_all([&](int slice, int n, int pair) {
      float first_c = 0, first_h = 0;
      if (real(slice, n, pair)) {
        const int64_t i = state_index(batch(slice, n, pair), unit(pair));
        if (!fresh) {
          first_c = carry[i];
          first_h = carry[carry_size() + i];
        } else {
          if (c) first_c = read<T>(c, i);
          if (h) first_h = read<T>(h, i);
        }
      }
      carried(slice, n, pair, kC) = first_c;
      carried(slice, n, pair, kH) = first_h;
    });
  }

  // To `c` and `h` (null: not wanted) or, where further launches follow, to `carry`. After blocks have waited
  // in vain all is NaN: lost(b, unit) sees to what the steps would have written.
  template <class Lost>
  FUSEGEN_DEVICE void end(float* carry, bool finished, bool stopped, void* c, void* h,
                          const Lost& lost) const {
    for_each_of_all([&](int slice, int n, int pair) {
      if (!real(slice, n, pair)) return;
      const int b = batch(slice, n, pair);
      const int64_t i = state_index(b, unit(pair));
      float last_c = carried(slice, n, pair, kC), last_h = carried(slice, n, pair, kH);
      if (stopped) {
        last_c = last_h = device::not_a_number();
        lost(b, unit(pair));
      } else if (!finished) {
        carry[i] = last_c;
        carry[carry_size() + i] = last_h;
        return;
      }
      if (h) write<T>(h, i, last_h);
      if (c) write<T>(c, i, last_c);
    });
  }

private:
  FUSEGEN_DEVICE int row(int n, int pair) const { return n * 8 + Rows::pair_row(lane_, pair); }
  FUSEGEN_DEVICE int64_t carry_size() const { return static_cast<int64_t>(pass_.D) * pass_.B * pass_.H; }

  template <class Each>
  FUSEGEN_DEVICE void for_each_of_all(const Each& each) const {
#pragma unroll 1
    for (int slice = 0; slice < geometry_.slices; ++slice)
#pragma unroll 1
      for (int n = 0; n < NT; ++n)
#pragma unroll 1
        for (int pair = 0; pair < kPairs; ++pair) each(slice, n, pair);
  }

  const Recurrence& pass_;
  const Geometry& geometry_;
  const Self& me_;
  const int lane_, unit_groups_;
  T* const stage_;
  float* const state_;
  int* const lengths_;
};

}  // namespace fusegen::cuda
