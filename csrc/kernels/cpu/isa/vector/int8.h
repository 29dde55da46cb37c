// Products with weights of 8 bits: rows of activations times panels.
//
// Either activations are integers too, and the sums are exact in 32 bits, the same on every instruction set;
// or they are float32, and weights are widened as they are loaded. Panels lie as those of tile.h, a step of k
// being as many numbers as one instruction sums: 4 where there is a dot product of bytes (VNNI, of AVX-512 or
// of AVX: u8 x s8, activations offset by 128, which the sums start from), else 2 (s16 x s16, weights widened;
// on NEON s8 x s8 to s16, whose pairs the next instruction adds).
#pragma once
#include "tile.h"

namespace fusegen::FUSEGEN_ISA_NS {

using Ints = VectorOf<float>::bits;
typedef int32_t IntsAnywhere __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
FUSEGEN_INLINE Ints load(const int32_t* p) { return *reinterpret_cast<const IntsAnywhere*>(p); }
FUSEGEN_INLINE void store(int32_t* p, Ints v) { *reinterpret_cast<IntsAnywhere*>(p) = v; }

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr int kInt8Step = 4;
using Activation = uint8_t;
using StepBits = int32_t;  // the activations of a step
constexpr int32_t kActivationZero = 128;
#elif defined(__aarch64__)
constexpr int kInt8Step = 2;
using Activation = int8_t;
using StepBits = int16_t;
constexpr int32_t kActivationZero = 0;
#else
constexpr int kInt8Step = 2;
using Activation = int16_t;
using StepBits = int32_t;
constexpr int32_t kActivationZero = 0;
#endif
static_assert(sizeof(StepBits) == kInt8Step * sizeof(Activation));

// kInt8Step weights of each lane, as they are multiplied.
struct WideWeights {
#if defined(__AVX512F__)
  __m512i value;
#elif defined(__AVX2__)
  __m256i value;
#elif defined(__SSE2__)
  __m128i value;
#elif defined(__aarch64__)
  int8x8_t value;
#else
  Ints even, odd;
#endif
};

FUSEGEN_INLINE WideWeights widen_weights(const int8_t* w) {
#if defined(__AVX512VNNI__)
  return {_mm512_loadu_si512(w)};
#elif defined(__AVX512F__)
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)))};
#elif defined(__AVXVNNI__)
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w))};
#elif defined(__AVX2__)
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)))};
#elif defined(__SSE2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(w));
  return {_mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8)};
#elif defined(__aarch64__)
  return {vld1_s8(w)};
#else
  WideWeights wide;
  for (int l = 0; l < kLanes<float>; ++l) wide.even[l] = w[2 * l], wide.odd[l] = w[2 * l + 1];
  return wide;
#endif
}

// sum + the products of a step, whose activations are the bits of `a`.
FUSEGEN_INLINE Ints add_products(Ints sum, const WideWeights& w, StepBits a) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(a), w.value);
#elif defined(__AVX512F__)
  return sum + (Ints)_mm512_madd_epi16(w.value, _mm512_set1_epi32(a));
#elif defined(__AVXVNNI__)
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, _mm256_set1_epi32(a), w.value);
#elif defined(__AVX2__)
  return sum + (Ints)_mm256_madd_epi16(w.value, _mm256_set1_epi32(a));
#elif defined(__SSE2__)
  return sum + (Ints)_mm_madd_epi16(w.value, _mm_set1_epi32(a));
#elif defined(__aarch64__)
  return (Ints)vpadalq_s16((int32x4_t)sum, vmull_s8(w.value, vreinterpret_s8_s16(vdup_n_s16(a))));
#else
  return sum + w.even * static_cast<int16_t>(a) + w.odd * (a >> 16);
#endif
}

// L weights as float32.
FUSEGEN_INLINE Vector<float> load_weights(const int8_t* w) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w))));
#elif defined(__AVX2__)
  return (Vector<float>)_mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w))));
#elif defined(__aarch64__)
  int32_t bytes;
  std::memcpy(&bytes, w, sizeof bytes);
  const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)));
  return (Vector<float>)vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
#else
  typedef int8_t Bytes __attribute__((vector_size(kLanes<float>), aligned(1), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(w), Vector<float>);
#endif
}

// Rows of a tile, and of one whose weights are widened to float32: as many as stay in registers.
template <int V>
constexpr int kInt8Rows = kRegisters == 32 ? 24 / V
                          : V == 1         ? 8
                          : V == 2         ? 5
                                           : 3;
template <int V>
constexpr int kWeightOnlyRows = kRegisters == 32         ? 20 / V
                                : kProductRegisters == 0 ? kInt8Rows<V>
                                : V == 1                 ? 4
                                : V == 2                 ? 2
                                                         : 1;

// How many sums each lane of a tile has, of every so many-th step: a dot product takes four or five cycles
// and one or two start in each, so fewer than a dozen sums wait for themselves. Adding takes one cycle.
template <int V, int M>
constexpr int kSumsApart = kInt8Step != 4     ? 1
                           : kRegisters == 32 ? (M * V >= 9   ? 1
                                                 : M * V >= 6 ? 2
                                                              : 4)
                           : M * V >= 5       ? 1
                           : M * V >= 3       ? 2
                                              : 4;

// out[m][j] = start[j] + sum_k row[m][k] w[k][j], exactly.
template <int V, int M>
void int8_tile(const Activation* const* row, const int8_t* w, int64_t steps, const int32_t* start,
               int32_t* out, int64_t ld) {
  constexpr int L = kLanes<float>, apart = kSumsApart<V, M>;
  Ints acc[apart][M][V] = {};
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) acc[0][m][j] = load(start + j * L);
  int64_t k = 0;
  const auto step = [&](int s) {
    WideWeights wide[V];
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) wide[j] = widen_weights(w + (s * V + j) * L * kInt8Step);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      StepBits a;
      std::memcpy(&a, row[m] + (k + s) * kInt8Step, sizeof a);
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) acc[s][m][j] = add_products(acc[s][m][j], wide[j], a);
    }
  };
  for (; k + apart <= steps; k += apart, w += apart * V * L * kInt8Step)
#pragma GCC unroll 4
    for (int s = 0; s < apart; ++s) step(s);
  if constexpr (apart > 1)
    for (; k < steps; ++k, w += V * L * kInt8Step) step(0);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) {
#pragma GCC unroll 4
      for (int s = 1; s < apart; ++s) acc[0][m][j] += acc[s][m][j];
      store(out + m * ld + j * L, acc[0][m][j]);
    }
}

// out[m][j] = sum_k row[m][k] w[k][j].
template <int V, int M>
void weight_only_tile(const float* const* row, const int8_t* w, int64_t steps, float* out, int64_t ld) {
  constexpr int L = kLanes<float>, apart = M * V >= 8 ? 1 : M * V >= 4 || kRegisters < 32 ? 2 : 4;
  Vector<float> acc[apart][M][V] = {};
  int64_t k = 0;
  const auto step = [&](int s) {
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) {
      const Vector<float> b = load_weights(w + (s * V + j) * L);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) acc[s][m][j] += splat(row[m][k + s]) * b;
    }
  };
  for (; k + apart <= steps; k += apart, w += apart * V * L)
#pragma GCC unroll 4
    for (int s = 0; s < apart; ++s) step(s);
  for (; k < steps; ++k, w += V * L) step(0);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) {
#pragma GCC unroll 4
      for (int s = 1; s < apart; ++s) acc[0][m][j] += acc[s][m][j];
      store(out + m * ld + j * L, acc[0][m][j]);
    }
}

// A row of activations as integers: value = scale * (q - kActivationZero), |q - zero| <= 127. What is not
// finite makes the scale NaN. `q` reaches to whole vectors.
inline void quantize_row(const float* x, int64_t n, Activation* q, float* scale) {
  constexpr int L = kLanes<float>;
  Vector<float> most{}, spoilt{};
  for (int64_t i = 0; i < n; i += L) {
    const Vector<float> v = load(x + i, n - i < L ? static_cast<int>(n - i) : L);
    const Vector<float> size = v < 0.0f ? -v : v;
    most = size > most ? size : most;
    spoilt += v * 0.0f;
  }
  float largest = 0, wrong = 0;
  for (int l = 0; l < L; ++l) {
    largest = most[l] > largest ? most[l] : largest;
    wrong += spoilt[l];
  }
  *scale = largest / 127.0f + wrong;
  const float inverse = largest > 0 && wrong == 0 ? 127.0f / largest : 0.0f;
  // Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the last bits.
  constexpr float kShift = 12582912.0f;
  constexpr int32_t kBits = 0x4b400000;
  typedef Activation Activations __attribute__((vector_size(L * sizeof(Activation)), aligned(1), may_alias));
  for (int64_t i = 0; i < n; i += L) {
    const Vector<float> v = load(x + i, n - i < L ? static_cast<int>(n - i) : L);
    const Ints r = (Ints)(v * inverse + kShift) - kBits + kActivationZero;
    *reinterpret_cast<Activations*>(q + i) = __builtin_convertvector(r, Activations);
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
