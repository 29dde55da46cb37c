// GAN losses of one logit: the value and its derivative, host and device. r and f are the logits of a real
// and a fake sample. Each loss is a mean of these over the batch.
#pragma once
#include <cmath>

#include "cells.h"
#include "params.h"

namespace fusegen::losses {

template <class R>
struct Term {
  R value, slope;
};

// log(1 + exp(x)) without overflow; its derivative is sigmoid(x).
template <class R>
FUSEGEN_HOST_DEVICE Term<R> softplus(R x) {
  const R e = std::exp(x > 0 ? -x : x);
  const R sigmoid = x > 0 ? 1 / (1 + e) : e / (1 + e);
  return {(x > 0 ? x : (x < 0 ? R(0) : x)) + std::log1p(e), sigmoid};
}

// The discriminator's term of a real sample; `target` is 1 less the label smoothing.
template <class R>
FUSEGEN_HOST_DEVICE Term<R> real(GanLoss loss, R r, R target) {
  switch (loss) {
    case GanLoss::non_saturating:  // Goodfellow et al. 2014, cross entropy with the target
    case GanLoss::minimax: {
      const Term<R> p = softplus(-r);
      return {p.value + (1 - target) * r, 1 - target - p.slope};
    }
    // Lim and Ye 2017; a NaN has the slope that torch's ReLU passes on
    case GanLoss::hinge: return r >= 1 ? Term<R>{0, 0} : Term<R>{1 - r, -1};
    // Mao et al. 2017
    case GanLoss::least_squares: return {(r - 1) * (r - 1) / 2, r - 1};
    // Arjovsky et al. 2017
    case GanLoss::wasserstein: return {-r, -1};
    case GanLoss::relativistic: break;  // pairs only
  }
  return {0, 0};
}

// The discriminator's term of a fake sample.
template <class R>
FUSEGEN_HOST_DEVICE Term<R> fake(GanLoss loss, R f) {
  switch (loss) {
    case GanLoss::non_saturating:
    case GanLoss::minimax: return softplus(f);
    case GanLoss::hinge: return f <= -1 ? Term<R>{0, 0} : Term<R>{1 + f, 1};
    case GanLoss::least_squares: return {f * f / 2, f};
    case GanLoss::wasserstein: return {f, 1};
    case GanLoss::relativistic: break;
  }
  return {0, 0};
}

// The generator's term of a fake sample.
template <class R>
FUSEGEN_HOST_DEVICE Term<R> generator(GanLoss loss, R f) {
  switch (loss) {
    case GanLoss::non_saturating: {
      const Term<R> p = softplus(-f);
      return {p.value, -p.slope};
    }
    case GanLoss::minimax: {
      const Term<R> p = softplus(f);
      return {-p.value, -p.slope};
    }
    case GanLoss::hinge:
    case GanLoss::wasserstein: return {-f, -1};
    case GanLoss::least_squares: return {(f - 1) * (f - 1) / 2, f - 1};
    case GanLoss::relativistic: break;
  }
  return {0, 0};
}

// softplus(-(a - b)): the discriminator's pair with a = r, b = f, the generator's the other way round. The
// slope is the derivative by a; by b it is the opposite (Jolicoeur-Martineau 2018, paired).
template <class R>
FUSEGEN_HOST_DEVICE Term<R> pair(R a, R b) {
  const Term<R> p = softplus(b - a);
  return {p.value, -p.slope};
}

}  // namespace fusegen::losses
