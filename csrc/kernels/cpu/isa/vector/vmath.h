// Functions of activations on vectors. float: range reduction and a polynomial, about 2 ulp over the whole
// range (of the normal distribution see there), exact limits at +-inf, NaN through. double: libm lane by
// lane, since float64 is there to check gradients.
#pragma once
#include <cmath>

#include "kernels/activations.h"
#include "simd.h"

namespace fusegen::FUSEGEN_ISA_NS {

struct Math {
  using F = Vector<float>;
  using D = Vector<double>;

  static FUSEGEN_INLINE F sigmoid(F x) {
    const Exp e = exp_parts(clamp(-x, -87.0f, 87.0f));
    const F s = reciprocal(1.0f + (e.scale + e.scale * e.em1));
    return x < splat(-87.0f) ? F{} : s;
  }
  // From expm1(2x), so that small x keeps its relative precision.
  static FUSEGEN_INLINE F tanh(F x) {
    const Exp e = exp_parts(clamp(x + x, -18.5f, 18.5f));
    const F em1 = e.scale * e.em1 + (e.scale - 1.0f);
    const F d = em1 + 2.0f, r = reciprocal(d), q = em1 * r;
    // the residual brings the quotient back to the last bit, so |tanh| stays <= 1
    return q + r * (em1 - q * d);
  }

  // Of x and of -x, each in proportion.
  static FUSEGEN_INLINE activations::Sigmoids<F> sigmoid_both(F x) {
    const Exp e = exp_parts(clamp(-x, -87.0f, 87.0f));
    const F exp = e.scale + e.scale * e.em1, s = reciprocal(1.0f + exp);
    return {x < splat(-87.0f) ? F{} : s, x > splat(87.0f) ? F{} : exp * s};
  }
  static FUSEGEN_INLINE F expm1(F x) {
    const Exp e = exp_parts(clamp(x, -87.0f, 88.0f));
    return e.scale * e.em1 + (e.scale - 1.0f);
  }
  // Distribution and density of the standard normal: Phi(-t) = exp(-t^2 / 2) g(t) for t > 0, with g, which
  // falls from 1/2 as 1/t, a polynomial in 1 / (1 + 0.35 t) by a minimax fit of our own, relative error
  // 3.2e-8. From t = 13 on, where it is below 1e-38, Phi(-t) is 0. In proportion it is off by at most 4e-7 (1
  // + t^2 / 4): t^2 is rounded before its exponential.
  static FUSEGEN_INLINE activations::Normal<F> normal(F x) {
    const F t = clamp(x < F{} ? -x : x, 0.0f, 14.0f);
    const Exp e = exp_parts(clamp(t * t * -0.5f, -87.0f, 0.0f));
    const F exp = e.scale + e.scale * e.em1, s = reciprocal(1.0f + 0.35f * t);
    F g = splat(-2.91453490e-2f);
    g = g * s + 1.43969175e-1f;
    g = g * s - 2.55709659e-1f;
    g = g * s + 1.59169598e-1f;
    g = g * s - 2.31071514e-2f;
    g = g * s + 1.05507053e-1f;
    g = g * s + 1.19833064e-1f;
    g = g * s + 1.39861848e-1f;
    g = g * s + 1.39621405e-1f;
    const auto far = t >= splat(13.0f);
    const F tail = far ? F{} : exp * (g * s), density = far ? F{} : exp * 0.398942280401432678f;
    return {x < F{} ? tail : 1.0f - tail, density};
  }

  static FUSEGEN_INLINE activations::Sigmoids<D> sigmoid_both(D x) {
    activations::Sigmoids<D> s;
    for (int i = 0; i < kLanes<double>; ++i) {
      s.of_x[i] = 1.0 / (1.0 + std::exp(-x[i]));
      s.of_minus_x[i] = 1.0 / (1.0 + std::exp(x[i]));
    }
    return s;
  }
  static FUSEGEN_INLINE D expm1(D x) {
    for (int i = 0; i < kLanes<double>; ++i) x[i] = std::expm1(x[i]);
    return x;
  }
  static FUSEGEN_INLINE activations::Normal<D> normal(D x) {
    activations::Normal<D> n;
    for (int i = 0; i < kLanes<double>; ++i) {
      n.cdf[i] = 0.5 * std::erfc(x[i] * -0.70710678118654752440);
      n.pdf[i] = 0.39894228040143267794 * std::exp(x[i] * x[i] * -0.5);
    }
    return n;
  }

  static FUSEGEN_INLINE D sigmoid(D x) {
    for (int i = 0; i < kLanes<double>; ++i) x[i] = 1.0 / (1.0 + std::exp(-x[i]));
    return x;
  }
  static FUSEGEN_INLINE D tanh(D x) {
    for (int i = 0; i < kLanes<double>; ++i) x[i] = std::tanh(x[i]);
    return x;
  }

private:
  struct Exp {
    F scale, em1;  // exp(x) = scale (1 + em1)
  };

  // NaN passes: of a comparison with it, x86 takes the second operand, NEON keeps it, and x > h is false.
  static FUSEGEN_INLINE F clamp(F x, float lo, float hi) {
    const F l = splat(lo), h = splat(hi);
#if defined(__AVX512F__)
    return (F)_mm512_min_ps((__m512)h, _mm512_max_ps((__m512)l, (__m512)x));
#elif defined(__AVX2__)
    return (F)_mm256_min_ps((__m256)h, _mm256_max_ps((__m256)l, (__m256)x));
#elif defined(__SSE2__)
    return (F)_mm_min_ps((__m128)h, _mm_max_ps((__m128)l, (__m128)x));
#elif defined(__aarch64__)
    return (F)vminq_f32((float32x4_t)h, vmaxq_f32((float32x4_t)l, (float32x4_t)x));
#else
    x = x < l ? l : x;
    return x > h ? h : x;
#endif
  }

  // 1 / d for normal, finite d >= 1. AVX-512 has no quick division but an estimate good to 14 bits; a Newton
  // step makes it 28, and five of these a unit are a sixth of a small LSTM's time.
  static FUSEGEN_INLINE F reciprocal(F d) {
#if defined(__AVX512F__)
    const F r = (F)_mm512_rcp14_ps((__m512)d);
    return r + r * (1.0f - d * r);
#else
    return 1.0f / d;
#endif
  }

  // x = n ln2 + r, |r| <= ln2/2; em1 = r + r^2 P(r) with P a minimax fit, relative error of exp 3.1e-9.
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  static FUSEGEN_INLINE Exp exp_parts(F x) {
    const F magic = splat(12582912.0f);
    const F shifted = x * 1.44269504088896341f + magic;
    const F n = shifted - magic;
    F r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    F p = splat(1.3814540579915047e-3f);
    p = p * r + 8.36874544620514e-3f;
    p = p * r + 4.166838899254799e-2f;
    p = p * r + 1.666652113199234e-1f;
    p = p * r + 4.999999403953552e-1f;
    Exp e;
    e.em1 = p * (r * r) + r;
    typedef uint32_t U __attribute__((vector_size(kVectorBytes)));
    e.scale = (F)(((U)shifted << 23) + (127u << 23));
    return e;
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
