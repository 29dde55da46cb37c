// What the kernels of both passes have in common: which rows of R and of the batch a block multiplies, and
// where a lane's unit lies in the tensors.
#pragma once
#include <device/exchange.h>

#include "../../access.h"
#include "../boundaries.h"
#include "masks.h"
#include "sums.h"

namespace fusegen::cuda::stepwise {

// A row of the batch at this step. A sequence's first step is the one that forward runs first.
struct Row {
  int b, length;  // length -1: out of range, what the sequence gives is NaN
  bool there;     // tiles reach past the batch, and past the units
  bool live, first, last;
  bool anew;  // its state is replaced before this step
};

// What a launch works on, as a block sees it.
template <class Pass, class T, class Tile>
class Step {
public:
  FUSEGEN_DEVICE Step(const Arguments<Pass>& a, const Place& at)
      : a_(a),
        d_(at.direction),
        t_(a.t[at.direction]),
        unit_(at.tile * Tile::kUnits + device::thread() % Tile::kUnits),
        first_row_(at.group * Tile::kN) {}

  FUSEGEN_DEVICE int direction() const { return d_; }
  FUSEGEN_DEVICE int t() const { return t_; }
  FUSEGEN_DEVICE int unit() const { return unit_; }
  FUSEGEN_DEVICE bool reverse() const { return d_ == 1; }

  // The row of an item of this lane.
  FUSEGEN_DEVICE Row row(int item) const {
    Row r;
    r.b = first_row_ + device::thread() / Tile::kUnits + item * Tile::kRowStep;
    r.there = r.b < a_.pass.B && unit_ < a_.weight.units;
    r.length = r.there ? length(r.b) : 0;
    r.live = t_ >= 0 && t_ < r.length;
    r.first = r.live && begins(r.length);
    r.last = r.live && t_ == (reverse() ? 0 : r.length - 1);
    r.anew = r.live && anew(r.b, order());
    return r;
  }

  // This step among those of its direction, as forward runs them; -1 where only dh0 is left.
  FUSEGEN_DEVICE int order() const {
    return std::is_same_v<Pass, BackwardPass> ? static_cast<int>(a_.pass.T) - 1 - a_.step : a_.step;
  }
  // Whether row b starts anew before a step.
  FUSEGEN_DEVICE bool anew(int b, int order) const {
    return a_.pass.boundaries.at && starts_anew(a_.pass, d_, order, b);
  }

  // The number of this lane's unit in [D,B,units], and of [D,T,B,..] and [T,B,D,..] the row.
  FUSEGEN_DEVICE int64_t state(const Row& r) const {
    return (static_cast<int64_t>(d_) * a_.pass.B + r.b) * a_.weight.units + unit_;
  }
  FUSEGEN_DEVICE int64_t saved_row(const Row& r, int t) const {
    return (d_ * a_.pass.T + t) * a_.pass.B + r.b;
  }
  FUSEGEN_DEVICE int64_t row_of_call(const Row& r, int t) const {
    return (static_cast<int64_t>(t) * a_.pass.B + r.b) * a_.pass.D + d_;
  }

  // The block's share of the product, in `sums`.
  template <class Format>
  FUSEGEN_DEVICE void product(Sums<Format, Tile>& sums, const Place& at) const {
    const Weight& w = a_.weight;
    const Vectors& v = a_.vectors;
    const StageRows<T, Tile::kN> vectors(w.K, v.aligned, w.data[d_], [&](int row) -> const T* {
      const int b = first_row_ + row;
      return b < a_.pass.B ? vector(b) : nullptr;
    });
    const int stages = (w.K + kOfStage<T> - 1) / kOfStage<T>;
    multiply<T, Format, Tile>(sums, weights(at), vectors, stages * at.split / a_.splits,
                              stages * (at.split + 1) / a_.splits);
  }

  // The lane's unit of h before this step; of masked calls, whose vectors may be others. Of forward.
  FUSEGEN_DEVICE float h_before(const Row& r) const {
    if (r.anew) return read_or_zero<T>(a_.pass.boundaries.h, state(r));
    if (r.first) return read_or_zero<T>(a_.pass.h0, state(r));
    return read<T>(a_.pass.y, row_of_call(r, reverse() ? t_ + 1 : t_ - 1) * a_.weight.units + unit_);
  }
  // Of the lane's unit at this step. `has_candidate`: this launch has the cell; `has_h`: and makes h.
  FUSEGEN_DEVICE UnitMasks masks(const Row& r, bool has_candidate, bool has_h) const {
    return {a_.pass.masks, d_,   static_cast<int64_t>(t_) * a_.pass.B + r.b, a_.weight.units, unit_,
            has_candidate, has_h};
  }

  // What row b multiplies; null: zeros.
  FUSEGEN_DEVICE const T* vector(int b) const {
    const Vectors& v = a_.vectors;
    if (v.starts && anew(b, order())) {
      const T* h = static_cast<const T*>(a_.pass.boundaries.h);
      return h ? h + (static_cast<int64_t>(d_) * a_.pass.B + b) * a_.weight.K : nullptr;
    }
    const bool first = v.starts && begins(length(b));
    const void* from = first ? v.first[d_] : v.data[d_];
    return from ? static_cast<const T*>(from) + b * (first ? v.first_stride : v.stride) : nullptr;
  }

  // -1 where it is out of range.
  FUSEGEN_DEVICE int length(int b) const {
    const int64_t T_ = a_.pass.T, n = a_.pass.lengths ? a_.pass.lengths[b] : T_;
    return n < 0 || n > T_ ? -1 : static_cast<int>(n);
  }

private:
  FUSEGEN_DEVICE auto weights(const Place& at) const {
    using Rows = typename Tile::Rows;
    const Weight& w = a_.weight;
    const T* R = static_cast<const T*>(w.data[d_]);
    const int first_unit = at.tile * Tile::kUnits;
    if constexpr (std::is_same_v<Pass, BackwardPass>) {
      return StageColumns<T>(R, w.K, w.units, first_unit, w.aligned);
    } else {
      return StageRows<T, Tile::kM>(w.K, w.aligned, R, [&](int row) -> const T* {
        // Of a warp's 16-row tile, as layout.h deals them.
        const int group = row / (16 * Rows::kTiles), tile = row / 16 % Rows::kTiles, r = row % 16;
        const int unit = first_unit + group * Rows::kUnits + Rows::unit(tile, r);
        if (unit >= w.units) return nullptr;
        return R + (static_cast<int64_t>(Rows::gate(tile, r)) * w.units + unit) * w.K;
      });
    }
  }

  FUSEGEN_DEVICE bool begins(int length) const { return t_ == (reverse() ? length - 1 : 0); }

  const Arguments<Pass>& a_;
  const int d_, t_, unit_, first_row_;
};

// The whole of a launch: items(fetch, finish) are the maths. What the first few items of a lane need is asked
// for before the product, of each further batch of them before the one in hand is worked on.
template <class Tile, class Format, class Pass, class At, class Items>
FUSEGEN_DEVICE void run_step(const Arguments<Pass>& a, const Place& place, const At& at, const Items& items) {
  constexpr int kBatch = Tile::kN == kSmallRows ? Tile::kItems : 2;  // large tiles leave fewer registers
  typename Items::Given given[kBatch];
#pragma unroll
  for (int i = 0; i < kBatch; ++i) items.fetch(given[i], i);

  Sums<Format, Tile> sums;
  at.template product<Format>(sums, place);
  device::sync_block();  // the ring's memory holds sums from here on
  lay_down<Format, Tile>(sums);
  device::sync_block();
  const SharedSums<Tile> shared(a.partials, place, a.tiles, a.splits, a.groups);
  if (!shared.last()) return;

#pragma unroll 1
  for (int first = 0; first < Tile::kItems; first += kBatch) {
    typename Items::Given now[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      now[i] = given[i];
      if (first + kBatch < Tile::kItems) items.fetch(given[i], first + kBatch + i);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float sum[Tile::kGates];
      shared.get(sum, first + i);
      items.finish(now[i], sum);
    }
  }
}

}  // namespace fusegen::cuda::stepwise
