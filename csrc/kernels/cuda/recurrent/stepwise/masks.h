// The random masks of a step (params.h, Masks), made where they are used: only calls that are `masked` ask.
#pragma once
#include "../../../philox.h"
#include "../../access.h"

namespace fusegen::cuda::stepwise {

// An element of a mask: of direction d, of row `row` of n elements.
FUSEGEN_DEVICE bool is_dropped(const Masks& m, philox::Mask mask, float rate, int d, int64_t row, int n,
                               int element) {
  return philox::word(m.key, mask, m.place + static_cast<uint32_t>(d), row, n, element) <
         philox::threshold(rate);
}

// What a number is multiplied by in dropout.
FUSEGEN_DEVICE float dropout(const Masks& m, philox::Mask mask, float rate, int d, int64_t row, int n,
                             int element) {
  if (rate == 0) return 1;
  return is_dropped(m, mask, rate, d, row, n, element) ? 0.0f : 1 / (1 - rate);
}
FUSEGEN_DEVICE float state_dropout(const Masks& m, int d, int64_t b, int P, int unit) {
  return dropout(m, philox::Mask::state_dropout, m.state_dropout, d, b, P, unit);
}

// How much of an old state stays in zoneout: all or nothing, out of training the rate.
FUSEGEN_DEVICE float zoneout(const Masks& m, philox::Mask mask, float rate, int d, int64_t row, int n,
                             int element) {
  if (rate == 0 || !m.training) return rate;
  return is_dropped(m, mask, rate, d, row, n, element) ? 1.0f : 0.0f;
}
// What does not take part must not matter, infinity included.
FUSEGEN_DEVICE float zoned(float old_part, float old_state, float fresh) {
  return old_part == 0 ? fresh : old_part == 1 ? old_state : old_part * old_state + (1 - old_part) * fresh;
}

// Of one unit in one row at one step.
struct UnitMasks {
  float candidate;     // what the candidate is multiplied by
  float old_h, old_c;  // how much of the old state stays

  // `n`: units of the call's part, H or, of a projection, P. A cell whose h is projected has no zoneout of h
  // in that part, and the projection has but that.
  FUSEGEN_DEVICE UnitMasks(const Masks& m, int d, int64_t row, int n, int unit, bool has_candidate,
                           bool has_h) {
    using philox::Mask;
    candidate =
        has_candidate ? dropout(m, Mask::candidate_dropout, m.candidate_dropout, d, row, n, unit) : 1.0f;
    old_h = has_h ? zoneout(m, Mask::zoneout_h, m.zoneout_h, d, row, n, unit) : 0.0f;
    old_c = has_candidate ? zoneout(m, Mask::zoneout_c, m.zoneout_c, d, row, n, unit) : 0.0f;
  }
};

}  // namespace fusegen::cuda::stepwise
