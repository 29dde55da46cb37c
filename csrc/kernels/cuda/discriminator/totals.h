// What a discriminator step adds up over its samples: loss, penalty and statistics; and the factors of each
// sample's gradients. One block. A lane takes every 256th row; what lanes add up goes through the same tree
// each time.
#pragma once
#include <device/warp.h>

#include "../../losses.h"
#include "arguments.h"

namespace fusegen::cuda {
namespace totals {

using namespace device;

// Samples of a group that the loss takes: those without noise.
template <bool plain>
FUSEGEN_DEVICE int own(const StepArguments& a, bool real) {
  if constexpr (plain) return real ? a.split.real : a.split.plain - a.split.real;
  return real ? a.own_real : a.own_fake;
}
template <bool plain>
FUSEGEN_DEVICE bool has_noise(const StepArguments& a, bool real, int row) {
  if constexpr (plain) return false;
  return (real ? row : row - a.split.real) >= own<plain>(a, real);
}

// The loss term of a row and its derivative by the row's logit.
template <bool plain>
FUSEGEN_DEVICE losses::Term<float> loss_term(const StepArguments& a, int row) {
  if (row >= a.split.plain) return {0, 0};
  const bool real = row < a.split.real;
  if (has_noise<plain>(a, real, row)) return {0, 0};
  const float z = a.logit[row];
  if (a.totals.loss == GanLoss::relativistic) {
    const float other = a.logit[real ? row + a.split.real : row - a.split.real];
    const bool first = real != a.totals.generator;  // of the pair
    losses::Term<float> term = losses::pair(first ? z : other, first ? other : z);
    if (!first) term.slope = -term.slope;
    if (!real) term.value = 0;  // a pair counts once
    if (real && a.totals.generator) term.slope = 0;
    return term;
  }
  if (a.totals.generator) return real ? losses::Term<float>{0, 0} : losses::generator(a.totals.loss, z);
  return real ? losses::real(a.totals.loss, z, a.totals.target) : losses::fake(a.totals.loss, z);
}

enum Total {
  kTerms,
  kReals,
  kFakes,
  kSignReals,
  kSignFakes,
  kNorm2Reals,
  kNormReals,
  kNorm2Fakes,
  kNormFakes,
  kOffs,
  kNormMixeds,
  kPlainTotals,
  kNearReals = kPlainTotals,  // (D(x + noise) - D(x))^2
  kNearFakes,
  kAllTotals
};
template <bool plain>
constexpr int kTotals = plain ? kPlainTotals : kAllTotals;

// What a lane, later the block, has of its rows.
template <bool plain>
struct Tally {
  double sums[kTotals<plain>] = {};
  float largest = 0;  // of |s| and |c|

  // To i or j, both constants, so that sums stay in registers.
  FUSEGEN_DEVICE void add(bool first, int i, int j, double x) {
    sums[i] += first ? x : 0;
    sums[j] += first ? 0 : x;
  }
};

// The slope of an approximate penalty by the logit of a row with noise or of the one without, and its term,
// counted once.
FUSEGEN_DEVICE float take_near(Tally<false>& tally, const StepArguments& a, bool real, int row) {
  const float weight = real ? a.totals.near_real : a.totals.near_fake;
  if (!(weight > 0)) return 0;
  const int n = own<false>(a, real);
  const bool noisy = has_noise<false>(a, real, row);
  const float off = a.logit[row] - a.logit[noisy ? row - n : row + n];
  if (noisy) tally.add(real, kNearReals, kNearFakes, static_cast<double>(off) * off);
  return weight * off;
}

template <bool plain>
FUSEGEN_DEVICE void take_row(Tally<plain>& tally, const StepArguments& a, int row) {
  const int real = a.split.real, mixed = a.split.rows - a.split.plain;
  const bool is_real = row < real, is_mixed = row >= a.split.plain;
  losses::Term<float> term = loss_term<plain>(a, row);
  if constexpr (!plain) {
    if (!is_mixed) term.slope += take_near(tally, a, is_real, row);
  }
  const float n = static_cast<float>(own<plain>(a, is_real));
  const float s = is_mixed ? 0.0f : term.slope / n;
  float c = 0;
  if (!is_mixed && !has_noise<plain>(a, is_real, row)) {
    const double z = a.logit[row], sign = z > 0 ? 1.0 : z < 0 ? -1.0 : z;
    tally.sums[kTerms] += term.value / n;
    tally.add(is_real, kReals, kFakes, z);
    tally.add(is_real, kSignReals, kSignFakes, sign);
  }
  if (is_mixed ? true : is_real ? a.totals.r1 > 0 : a.totals.r2 > 0) {
    const float norm = sqrtf(a.norm2[row]);
    if (is_mixed) {
      tally.sums[kOffs] += (norm - 1) * (norm - 1);
      tally.sums[kNormMixeds] += norm;
      // 0 at 0, NaN through
      c = norm > 0 ? 2 * a.totals.gp * (norm - 1) / norm / static_cast<float>(mixed) : norm;
    } else {
      tally.add(is_real, kNorm2Reals, kNorm2Fakes, a.norm2[row]);
      tally.add(is_real, kNormReals, kNormFakes, norm);
      c = (is_real ? a.totals.r1 : a.totals.r2) / n;
    }
    if constexpr (!plain) c *= a.totals.tangents_kept;
  }
  a.s[row] = s;
  a.c[row] = c;
  tally.largest = fmaxf(tally.largest, fmaxf(fabsf(s), fabsf(c)));
}

// The lanes' tallies, warp by warp, in shared memory [kWarps][kTotals + 1]; the last number is the largest.
template <bool plain>
FUSEGEN_DEVICE const double* tallies_of_warps(Tally<plain>& tally) {
  constexpr int kTotals = totals::kTotals<plain>;
  auto* shared = reinterpret_cast<double*>(shared_memory());
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
#pragma unroll
    for (int i = 0; i < kTotals; ++i) tally.sums[i] += from_lane_xor(tally.sums[i], mask);
    tally.largest = fmaxf(tally.largest, from_lane_xor(tally.largest, mask));
  }
  if (lane() == 0) {
#pragma unroll
    for (int i = 0; i < kTotals; ++i) shared[warp() * (kTotals + 1) + i] = tally.sums[i];
    shared[warp() * (kTotals + 1) + kTotals] = tally.largest;
  }
  sync_block();
  return shared;
}

// 16-bit operands would lose small s and c: they hold parts of the power of two at the largest.
template <bool plain>
FUSEGEN_DEVICE float unit_of(const double* tallies) {
  constexpr int kTotals = totals::kTotals<plain>;
  float largest = 0;
  for (int w = 0; w < kWarps; ++w)
    largest = fmaxf(largest, static_cast<float>(tallies[w * (kTotals + 1) + kTotals]));
  return largest > 1.0e-30f && largest < 1.0e30f ? as_float(as_bits(largest) & 0x7f800000u) : 1.0f;
}

template <bool plain>
FUSEGEN_DEVICE void write_scalars(const StepArguments& a, const double* tallies) {
  const int real = own<plain>(a, true), fake = own<plain>(a, false), mixed = a.split.rows - a.split.plain;
  const auto total = [&](int i) {
    double sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += tallies[w * (kTotals<plain> + 1) + i];
    return sum;
  };
  const double nan = not_a_number();
  const auto mean = [&](int i, int n) { return n ? total(i) / n : nan; };
  double penalty = 0;
  if (a.totals.r1 > 0) penalty += a.totals.r1 / 2.0 * mean(kNorm2Reals, real);
  if (a.totals.r2 > 0) penalty += a.totals.r2 / 2.0 * mean(kNorm2Fakes, fake);
  if constexpr (!plain) {
    if (a.totals.near_real > 0) penalty += a.totals.near_real / 2.0 * mean(kNearReals, real);
    if (a.totals.near_fake > 0) penalty += a.totals.near_fake / 2.0 * mean(kNearFakes, fake);
  }
  if (mixed) penalty += a.totals.gp * mean(kOffs, mixed);
  const double loss = total(kTerms) + penalty;
  *a.totals.loss_out = static_cast<float>(loss);
  a.totals.scalars[kLoss] = loss;
  a.totals.scalars[kPenalty] = penalty;
  a.totals.scalars[kMeanReal] = mean(kReals, real);
  a.totals.scalars[kMeanFake] = mean(kFakes, fake);
  a.totals.scalars[kSignReal] = mean(kSignReals, real);
  a.totals.scalars[kSignFake] = mean(kSignFakes, fake);
  a.totals.scalars[kNormReal] = a.totals.r1 > 0 ? mean(kNormReals, real) : nan;
  a.totals.scalars[kNormFake] = a.totals.r2 > 0 ? mean(kNormFakes, fake) : nan;
  a.totals.scalars[kNormMixed] = mean(kNormMixeds, mixed);
}

}  // namespace totals

template <bool plain>
FUSEGEN_DEVICE void add_up_totals(const StepArguments& a) {
  totals::Tally<plain> tally;
  for (int row = device::thread(); row < a.split.rows; row += device::kThreads)
    totals::take_row<plain>(tally, a, row);
  const double* tallies = totals::tallies_of_warps(tally);
  const float unit = totals::unit_of<plain>(tallies);
  for (int row = device::thread(); row < a.split.rows; row += device::kThreads) {
    a.s[row] /= unit;
    a.c[row] /= unit;
  }
  if (device::thread() > 0) return;
  *a.unit = unit;
  totals::write_scalars<plain>(a, tallies);
}

}  // namespace fusegen::cuda
