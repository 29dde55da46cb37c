// The register tile: a few rows by three or four vectors, sums held in registers over a block of k.
//
// Weights come as panels [k][NW][lanes]. Four vectors are the four gates of one block of units (LSTM) or four blocks of
// units (RNN and plain products); three are the gates of GRU. AVX-512: 6 x 4 or 8 x 3 sums, the weights and one
// broadcast fill 28 or 29 of 32 registers, with 10 or 11 loads for 24 multiply-adds.
#pragma once
#include <type_traits>
#include <utility>

#include "simd.h"

namespace fusegen::FUSEGEN_ISA_NS {

constexpr int kTileVectors = 4;  // of a plain panel
template <int NW>
constexpr int kTileRows = (kRegisters == 32 ? 24 : 12) / NW;

template <class C>
constexpr int kTileColumns = kTileVectors * kLanes<C>;

// Cuts n rows into tiles of nearly equal height: a short last tile would be bound by loads. f(tile, row, rows)
template <int NW, int highest = kTileRows<NW>, class F>
FUSEGEN_INLINE void for_each_tile(int n, F&& f) {
  if (n <= 0) return;
  const int tiles = (n + highest - 1) / highest;
  const int height = n / tiles, taller = n % tiles;
  for (int i = 0, row = 0; i < tiles; ++i) {
    const int m = height + (i < taller);
    f(i, row, m);
    row += m;
  }
}

// f(a compile-time number of rows) for a number known at run time, which is at most a tile's.
template <int NW, class F>
FUSEGEN_INLINE void with_rows(int rows, F&& f) {
  [&]<int... m>(std::integer_sequence<int, m...>) {
    (void)((rows == m + 1 && (f(std::integral_constant<int, m + 1>{}), true)) || ...);
  }(std::make_integer_sequence<int, kTileRows<NW>>{});
}

// The sums of a tile, kept in L1 between the product and the maths that follows.
template <class C, int NW>
struct TileSums {
  alignas(64) C value[kTileRows<NW>][NW][kLanes<C>];
};

// What is added to a tile's finished sums: nothing, or vector j of row m at rows + m * stride + j * lanes; vector 2 instead
// at `third`, the same for each row, where given (GRU's b_hn, since its x part stays out of the sum). Added last: sums
// that started from it would round every small product at its size.
template <class C>
struct TileAddend {
  const C* rows = nullptr;
  int64_t stride = 0;
  const C* third = nullptr;
};

// The panel of the next few k is fetched ahead: without it the stream from L2 halves the rate (measured).
template <class C, int NW>
FUSEGEN_INLINE void prefetch_panel(const C* w) {
  constexpr int ahead = 6 * NW * kLanes<C>;
#pragma GCC unroll 8
  for (int i = 0; i < NW * kLanes<C>; i += 64 / static_cast<int>(sizeof(C))) __builtin_prefetch(w + ahead + i, 0, 3);
}

template <class C, int NW, int M>
FUSEGEN_INLINE void write_sums(const Vector<C> (&acc)[M][NW], TileSums<C, NW>& sums) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < NW; ++j) *reinterpret_cast<Vector<C>*>(sums.value[m][j]) = acc[m][j];
}

// Whether an operand is stored as pairs of bf16, a step being two k: half the bytes, and one instruction where the CPU has
// a bf16 dot product. Elsewhere a step is two multiply-adds on the widened halves.
enum class Step { one, pair };
template <class S>
constexpr Step kStep = std::is_same_v<S, bf16> ? Step::pair : Step::one;
template <class S>
constexpr int64_t steps(int64_t K) {
  return kStep<S> == Step::pair ? (K + 1) / 2 : K;
}

// acc[m][j] += a[m] b[j] over one step.
template <class C, int NW, Step step, int M>
FUSEGEN_INLINE void multiply_step(const C* const (&row)[M], int64_t k, const C* w, Vector<C> (&acc)[M][NW]) {
  constexpr int L = kLanes<C>;
  if constexpr (step == Step::one) {
    Vector<C> b[NW];
#pragma GCC unroll 8
    for (int j = 0; j < NW; ++j) b[j] = *reinterpret_cast<const Vector<C>*>(w + j * L);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<C> am = splat(row[m][k]);
#pragma GCC unroll 8
      for (int j = 0; j < NW; ++j) acc[m][j] += am * b[j];
    }
  } else {
    Words b[NW];
#pragma GCC unroll 8
    for (int j = 0; j < NW; ++j) b[j] = *reinterpret_cast<const WordsAnywhere*>(w + j * L);
#if defined(__AVX512BF16__)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Words am = reinterpret_cast<const Word*>(row[m])[k] - Words{};
#pragma GCC unroll 8
      for (int j = 0; j < NW; ++j) acc[m][j] = dot_pairs(acc[m][j], am, b[j]);
    }
#else
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<C> am = even_of(reinterpret_cast<const Word*>(row[m])[k] - Words{});
#pragma GCC unroll 8
      for (int j = 0; j < NW; ++j) acc[m][j] += am * even_of(b[j]);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<C> am = odd_of(reinterpret_cast<const Word*>(row[m])[k] - Words{});
#pragma GCC unroll 8
      for (int j = 0; j < NW; ++j) acc[m][j] += am * odd_of(b[j]);
    }
#endif
  }
}

// sums[m] = addend[m] + sum_k a[m][k0 + k] w[k], for M rows and k in [0, K), k counting steps. One line of `next` a step is
// fetched into L2. The same steps of the M rows at `ahead` are fetched too, unless it is null: rows are pages apart, where
// the hardware does not look ahead.
template <class C, int NW, Step step, int M>
void tile_rows(const C* const* a, int64_t k0, const C* __restrict w, int64_t K, const TileAddend<C>& addend, const C* next,
               const C* const* ahead, TileSums<C, NW>& sums) {
  constexpr int L = kLanes<C>;
  constexpr int kLine = 64 / static_cast<int>(sizeof(C));
  Vector<C> acc[M][NW] = {};
  const C* row[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) row[m] = a[m] + k0;
  int64_t k = 0;
  if (ahead)
    while (k + kLine <= K) {
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) __builtin_prefetch(ahead[m] + k0 + k, 0, 3);
#pragma GCC unroll 2
      for (int i = 0; i < kLine; ++i, ++k, w += NW * L) {
        prefetch_panel<C, NW>(w);
        multiply_step<C, NW, step>(row, k, w, acc);
      }
    }
  if constexpr (M == 1) {  // too few sums to cover the latency of a multiply-add: odd steps go to sums of their own
    Vector<C> odd[M][NW] = {};
    for (; k + 2 <= K; k += 2, w += 2 * NW * L) {
      prefetch_panel<C, NW>(w);
      prefetch_panel<C, NW>(w + NW * L);
      multiply_step<C, NW, step>(row, k, w, acc);
      multiply_step<C, NW, step>(row, k + 1, w + NW * L, odd);
    }
#pragma GCC unroll 8
    for (int j = 0; j < NW; ++j) acc[0][j] += odd[0][j];
  }
#pragma GCC unroll 2
  for (; k < K; ++k, w += NW * L) {
    prefetch_panel<C, NW>(w);
    __builtin_prefetch(next + k * kLine, 0, 2);
    multiply_step<C, NW, step>(row, k, w, acc);
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < NW; ++j) {
      const C* from = j == 2 && addend.third ? addend.third : addend.rows ? addend.rows + m * addend.stride + j * L : nullptr;
      if (from) acc[m][j] += *reinterpret_cast<const Vector<C>*>(from);
    }
  write_sums<C, NW, M>(acc, sums);
}

// sums[m] (+)= sum_k a[k][m] w[k]: the rows of the tile are neighbouring columns of a (weight gradients).
template <class C, int M>
void tile_columns(const C* __restrict a, int64_t stride, const C* __restrict w, int64_t K, bool add,
                  TileSums<C, kTileVectors>& sums) {
  constexpr int L = kLanes<C>, NW = kTileVectors;
  Vector<C> acc[M][NW] = {};
  for (int64_t k = 0; k < K; ++k, a += stride, w += NW * L) {
    Vector<C> b[NW];
#pragma GCC unroll 8
    for (int j = 0; j < NW; ++j) b[j] = *reinterpret_cast<const Vector<C>*>(w + j * L);
    prefetch_panel<C, NW>(w);
    __builtin_prefetch(a + 8 * stride, 0, 3);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<C> am = splat(a[m]);
#pragma GCC unroll 8
      for (int j = 0; j < NW; ++j) acc[m][j] += am * b[j];
    }
  }
  if (add) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int j = 0; j < NW; ++j) acc[m][j] += *reinterpret_cast<const Vector<C>*>(sums.value[m][j]);
  }
  write_sums<C, NW, M>(acc, sums);
}

// The two for a number of rows known at run time; compiled once each (tile.cpp).
template <class C, int NW, Step step>
void tile_rows(int rows, const C* const* a, int64_t k0, const C* w, int64_t K, const TileAddend<C>& addend, const C* next,
               const C* const* ahead, TileSums<C, NW>& sums);
template <class C>
void tile_columns(int rows, const C* a, int64_t stride, const C* w, int64_t K, bool add, TileSums<C, kTileVectors>& sums);

}  // namespace fusegen::FUSEGEN_ISA_NS
