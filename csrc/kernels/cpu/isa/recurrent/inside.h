// What may happen inside a recurrence beside its cell's maths: sequences that start anew (Resets), and random
// masks (Masks). Forward and backward ask here, a step at a time; masks are made again in backward.
#pragma once
#include "batch.h"
#include "kernel.h"
#include "kernels/cpu/isa/vector/masks.h"

namespace fusegen::FUSEGEN_ISA_NS {

// A row at a step. Masks lie at their own elements, of which a thread has those of its units; null where
// nothing is masked.
struct RowInside {
  int64_t b;
  bool begins = false;                  // its state was replaced before this step
  bool ends = false;                    // and is before the next one
  const uint64_t* dropped = nullptr;    // [P] of h where R reads it
  const uint64_t* candidate = nullptr;  // [H]
  const uint64_t* kept_h = nullptr;     // [P]
  const uint64_t* kept_c = nullptr;     // [H]
};

// A thread's own: the rows of its team at one step, and the elements that it needs masks of.
struct StepInside {
  Range units, states;  // of H and P
  std::vector<uint64_t> bits{};
  std::vector<RowInside> rows{};
};

template <class S>
class Inside {
  using C = Compute<S>;
  using V = Vector<C>;

  const RecurrentSizes& s_;
  const Resets& resets_;
  const Masks& masks_;
  const MaskRows state_, candidate_, zoneout_h_, zoneout_c_;
  const C state_scale_, candidate_scale_;
  uint64_t* dropped_ = nullptr;  // [B][groups of P]

public:
  template <class Params>
  explicit Inside(const Params& p)
      : s_(p),
        resets_(p.resets),
        masks_(p.masks),
        state_(rows_of(philox::Mask::state_dropout, p.masks.state_dropout, p.P)),
        candidate_(rows_of(philox::Mask::candidate_dropout, p.masks.candidate_dropout, p.H)),
        zoneout_h_(rows_of(philox::Mask::zoneout_h, p.masks.zoneout_h, p.P)),
        zoneout_c_(rows_of(philox::Mask::zoneout_c, p.masks.zoneout_c, p.H)),
        state_scale_(kept_scale<C>(p.masks.state_dropout)),
        candidate_scale_(kept_scale<C>(p.masks.candidate_dropout)) {}

  void lay_out(cpu::Arena& arena) {
    dropped_ = arena.take<uint64_t>(drops_state() ? s_.B * mask_groups(s_.P) : 0);
  }

  explicit operator bool() const { return any(resets_) || any(masks_); }
  bool resets() const { return any(resets_); }
  bool drops_state() const { return masks_.state_dropout > 0; }
  bool zones_h() const { return masks_.zoneout_h > 0; }
  bool zones_c() const { return masks_.zoneout_c > 0; }

  // Whether the state of row i of the batch is replaced before its step s.
  bool begins(const Batch& batch, int i, int64_t s) const {
    if (!resets_.at || s >= batch.length[i] || (batch.reverse && s == 0)) return false;
    const int64_t t = batch.time(i, s) + batch.reverse;
    return resets_.at[t * resets_.stride_t + batch.row[i] * resets_.stride_b];
  }
  // From what row b starts anew.
  const S* start_h(int64_t b) const { return resets_.h.data ? row_of<S>(resets_.h, 0, b) : nullptr; }
  V start_h(int64_t b, int64_t u, int lanes) const { return start(resets_.h, b, u, lanes); }
  V start_c(int64_t b, int64_t u, int lanes) const { return start(resets_.c, b, u, lanes); }

  // The mask of a sequence on h, before any step asks for it.
  void make_dropped(int64_t b) const {
    if (drops_state()) state_.make(b, 0, mask_groups(s_.P), dropped(b));
  }
  uint64_t* dropped(int64_t b) const { return drops_state() ? dropped_ + b * mask_groups(s_.P) : nullptr; }

  void at_step(const Batch& batch, int64_t step, int count, StepInside& now) const {
    const int64_t wide = mask_groups(std::max(s_.H, s_.P)), of_row = 3 * wide;
    const bool masked = masks_.candidate_dropout > 0 || (masks_.training && (zones_h() || zones_c()));
    now.rows.resize(count);
    if (masked) now.bits.resize(count * of_row);
    for (int i = 0; i < count; ++i) {
      const int64_t b = batch.row[i], row = batch.time(i, step) * s_.B + b;
      uint64_t* bits = masked ? now.bits.data() + i * of_row : nullptr;
      const auto made = [&](const MaskRows& mask, bool wanted, const Range& elements, int64_t place) {
        if (!wanted) return static_cast<const uint64_t*>(nullptr);
        uint64_t* const to = bits + place * wide;
        mask.make(row, elements.begin / kMaskGroup, mask_groups(elements.end), to);
        return static_cast<const uint64_t*>(to);
      };
      now.rows[i] = {.b = b,
                     .begins = begins(batch, i, step),
                     .ends = begins(batch, i, step + 1),
                     .dropped = dropped(b),
                     .candidate = made(candidate_, masks_.candidate_dropout > 0, now.units, 0),
                     .kept_h = made(zoneout_h_, masks_.training && zones_h(), now.states, 1),
                     .kept_c = made(zoneout_c_, masks_.training && zones_c(), now.units, 2)};
    }
  }

  // h as R reads it, or the gradient of that as h gets it.
  V drop_state(const uint64_t* dropped, int64_t u, V h) const {
    return dropped ? choose<C>(dropped, u, V{}, h * state_scale_) : h;
  }
  V drop_candidate(const RowInside& row, int64_t u, V g) const {
    return row.candidate ? choose<C>(row.candidate, u, V{}, g * candidate_scale_) : g;
  }
  // What a candidate was before, where it was not dropped.
  V candidate_of(const RowInside& row, V g) const {
    return row.candidate ? g * static_cast<C>(1.0 - masks_.candidate_dropout) : g;
  }

  V zone_h(const RowInside& row, int64_t u, V old, V fresh) const {
    return zone(row.kept_h, masks_.zoneout_h, u, old, fresh);
  }
  V zone_c(const RowInside& row, int64_t u, V old, V fresh) const {
    return zone(row.kept_c, masks_.zoneout_c, u, old, fresh);
  }
  // The parts of a gradient that the fresh state and the old one get.
  struct Parts {
    V fresh, old;
  };
  Parts parts_h(const RowInside& row, int64_t u, V d) const {
    return parts(row.kept_h, masks_.zoneout_h, u, d);
  }
  Parts parts_c(const RowInside& row, int64_t u, V d) const {
    return parts(row.kept_c, masks_.zoneout_c, u, d);
  }

private:
  MaskRows rows_of(philox::Mask mask, float probability, int64_t n) const {
    return {mask, masks_.key, masks_.place, probability, n};
  }
  static V start(const Rows& from, int64_t b, int64_t u, int lanes) {
    return from.data ? load(row_of<S>(from, 0, b) + u, lanes) : V{};
  }
  V zone(const uint64_t* kept, float probability, int64_t u, V old, V fresh) const {
    if (kept) return choose<C>(kept, u, old, fresh);
    return probability > 0 ? fresh + static_cast<C>(probability) * (old - fresh) : fresh;
  }
  Parts parts(const uint64_t* kept, float probability, int64_t u, V d) const {
    if (kept) return {choose<C>(kept, u, V{}, d), choose<C>(kept, u, d, V{})};
    if (probability == 0) return {d, V{}};
    const V old = static_cast<C>(probability) * d;
    return {d - old, old};
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
