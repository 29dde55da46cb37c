// Vectors of the instruction set that this file is compiled for, as GCC vector types: one source for all
// sets.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernels/half.h"
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own AVX-512 headers start from an undefined vector and warn of it wherever they are inlined (GCC
// bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define FUSEGEN_INLINE inline __attribute__((always_inline))

namespace fusegen::FUSEGEN_ISA_NS {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 32;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

template <class C>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(C));

template <class C>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef float unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t bits __attribute__((vector_size(kVectorBytes)));
};
template <class C>
using Vector = typename VectorOf<C>::type;

// x - 0 is x for every x, -0 and NaN included, so this folds to a broadcast; 0 + x does not.
template <class C>
FUSEGEN_INLINE Vector<C> splat(C x) {
  return x - Vector<C>{};
}

// The two 16-bit storage types. They hold bits; arithmetic happens in float.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  Half value;
};

template <class S>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeOf<S>::type;  // what a storage type is computed in

FUSEGEN_INLINE float to_float(bf16 x) {
  const uint32_t u = static_cast<uint32_t>(x.bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
FUSEGEN_INLINE float to_float(f16 x) { return static_cast<float>(x.value); }
FUSEGEN_INLINE float to_float(float x) { return x; }
FUSEGEN_INLINE double to_float(double x) { return x; }

FUSEGEN_INLINE void from_float(float f, bf16& out) {  // round to nearest even; NaN stays NaN
  uint32_t u;
  std::memcpy(&u, &f, 4);
  out.bits = f != f ? 0x7fc0 : static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
FUSEGEN_INLINE void from_float(float f, f16& out) { out.value = static_cast<Half>(f); }
FUSEGEN_INLINE void from_float(float f, float& out) { out = f; }
FUSEGEN_INLINE void from_float(double f, double& out) { out = f; }

// ---- pairs of bf16 in 32-bit words: what the bf16 dot product works on ------------------------------

typedef uint32_t Word __attribute__((may_alias, aligned(2)));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
typedef uint32_t WordsAnywhere __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));

#if defined(__AVX512BF16__)
constexpr bool kNativePairs = true;
FUSEGEN_INLINE Vector<float> dot_pairs(Vector<float> acc, Words a, Words b) {
  return (Vector<float>)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
}
#else
constexpr bool kNativePairs = false;
#endif
// n elements as words, a missing one zero.
FUSEGEN_INLINE Words load_pairs(const bf16* p, int64_t n) {
  if (n >= 2 * kLanes<float>) return *reinterpret_cast<const WordsAnywhere*>(p);
  Words w{};
  std::memcpy(&w, p, static_cast<size_t>(n) * sizeof(bf16));
  return w;
}

// ---- whole vectors ----------------------------------------------------------------------------------

FUSEGEN_INLINE Vector<float> load(const float* p) {
  return *reinterpret_cast<const VectorOf<float>::unaligned*>(p);
}
FUSEGEN_INLINE Vector<double> load(const double* p) {
  return *reinterpret_cast<const VectorOf<double>::unaligned*>(p);
}
FUSEGEN_INLINE void store(float* p, Vector<float> v) {
  *reinterpret_cast<VectorOf<float>::unaligned*>(p) = v;
}
FUSEGEN_INLINE void store(double* p, Vector<double> v) {
  *reinterpret_cast<VectorOf<double>::unaligned*>(p) = v;
}

typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));
typedef Half HalfFloats __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));
typedef uint32_t WordBits __attribute__((vector_size(kVectorBytes)));
typedef int32_t SignedBits __attribute__((vector_size(kVectorBytes)));

FUSEGEN_INLINE Vector<float> load(const bf16* p) {
  const HalfBits h = *reinterpret_cast<const HalfBits*>(p);
#if defined(__aarch64__)
  return (Vector<float>)vshll_n_u16((uint16x4_t)h, 16);  // GCC would widen element by element
#else
  return (Vector<float>)(__builtin_convertvector(h, WordBits) << 16);
#endif
}
// v as bf16, each in the lower half of a word.
FUSEGEN_INLINE WordBits bf16_bits(Vector<float> v) {
  const WordBits u = (WordBits)v, quiet = WordBits{} + 0x7fc0u;
  return (v != v) ? quiet : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}
FUSEGEN_INLINE void store(bf16* p, Vector<float> v) {
  const WordBits rounded = bf16_bits(v);
#if defined(__aarch64__)
  *reinterpret_cast<HalfBits*>(p) = (HalfBits)vmovn_u32((uint32x4_t)rounded);
#else
  *reinterpret_cast<HalfBits*>(p) = __builtin_convertvector(rounded, HalfBits);
#endif
}
// A word of each lane of two vectors, rounded to bf16: the first in its lower half.
FUSEGEN_INLINE Vector<float> zip_pairs(Vector<float> first, Vector<float> second) {
  return (Vector<float>)(bf16_bits(first) | bf16_bits(second) << 16);
}
FUSEGEN_INLINE Vector<float> load(const f16* p) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return (Vector<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__aarch64__)
  return (Vector<float>)vcvt_f32_f16((float16x4_t)(*reinterpret_cast<const HalfBits*>(p)));
#else
  // GCC calls a function for each element, around which a loop keeps its vectors in the stack. The same bits
  // in a float's places are the number times 2^-112, but infinities and NaN need the highest exponent; few
  // constants, for few registers.
  const SignedBits wide =
      __builtin_convertvector(*reinterpret_cast<const HalfBits*>(p), SignedBits) << 16 >> 3;
  const SignedBits bits = wide & static_cast<int32_t>(0x8fffe000), highest = SignedBits{} + 0x0f800000;
  const WordBits special = (WordBits)((bits & highest) == highest) << 24 >> 1;  // 0x7f800000 or 0
  return (Vector<float>)((WordBits)((Vector<float>)bits * 0x1p112f) | special);
#endif
}
FUSEGEN_INLINE void store(f16* p, Vector<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph((__m512)v, 0));
#elif defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, 0));
#elif defined(__aarch64__)
  *reinterpret_cast<HalfBits*>(p) = (HalfBits)vcvt_f16_f32((float32x4_t)v);
#else
  *reinterpret_cast<HalfFloats*>(p) = __builtin_convertvector(v, HalfFloats);
#endif
}

// Past the caches, for results that are larger than they are; p on a vector's boundary.
template <class C>
FUSEGEN_INLINE void stream(C* p, Vector<C> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(C) == 4) return _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(C) == 4) return _mm256_stream_ps(p, (__m256)v);
#endif
  store(p, v);
}

// ---- the first n lanes; the rest read as zero -------------------------------------------------------

template <class S>
__attribute__((noinline)) Vector<Compute<S>> load_some(const S* p, int n) {
  S tmp[kLanes<Compute<S>>];
  std::memset(static_cast<void*>(tmp), 0, sizeof tmp);
  for (int i = 0; i < n; ++i) tmp[i] = p[i];
  return load(tmp);
}
template <class S>
__attribute__((noinline)) void store_some(S* p, Vector<Compute<S>> v, int n) {
  S tmp[kLanes<Compute<S>>];
  store(tmp, v);
  for (int i = 0; i < n; ++i) p[i] = tmp[i];
}

template <class S>
FUSEGEN_INLINE Vector<Compute<S>> load(const S* p, int n) {
  if (n == kLanes<Compute<S>>) return load(p);
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) return (Vector<float>)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#endif
  return load_some(p, n);
}
template <class S>
FUSEGEN_INLINE void store(S* p, Vector<Compute<S>> v, int n) {
  if (n == kLanes<Compute<S>>) return store(p, v);
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) return _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#endif
  store_some(p, v, n);
}

// v with the lanes from n on zero.
template <class C>
FUSEGEN_INLINE Vector<C> first_lanes(Vector<C> v, int n) {
  if (n == kLanes<C>) return v;
  C tmp[kLanes<C>];
  store(tmp, v);
  return load(tmp, n);
}

template <class C>
FUSEGEN_INLINE C sum_lanes(Vector<C> v) {
  C s[kLanes<C>];
  store(s, v);
#pragma GCC unroll 4
  for (int width = kLanes<C> / 2; width; width /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < width; ++i) s[i] += s[i + width];
  return s[0];
}

// What v becomes once stored as S and read again.
template <class S>
FUSEGEN_INLINE Vector<Compute<S>> rounded(Vector<Compute<S>> v) {
  if constexpr (sizeof(S) == sizeof(Compute<S>)) {
    return v;
  } else {
    S tmp[kLanes<Compute<S>>];
    store(tmp, v);
    return load(tmp);
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
