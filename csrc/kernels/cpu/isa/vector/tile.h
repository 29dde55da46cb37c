// The register tile: a few rows by one to four vectors, sums held in registers over a block of k.
//
// Weights come as panels [k][V][lanes]. A plain panel is as wide as suits the registers; a panel of gates has
// one vector of each gate of a block of units. Beside the sums a step needs its V weights and one broadcast:
//
//   32 registers   6 x 4 or 8 x 3 sums: 29 or 28 registers, 10 or 11 loads for 24 multiply-adds
//   16 registers   6 x 2 or 4 x 3 sums: 15 or 16 registers, 8 or 7 loads for 12 multiply-adds
//
// LSTM's four gates on 16 registers are two passes over panels of two: 3 x 4 sums need 17 registers and spill
// at every k, which halves the rate. The passes read different cache lines and meet in TileSums. No inner
// loop stores a vector to the stack (tools/check_spills.py).
#pragma once
#include <algorithm>
#include <type_traits>
#include <utility>

#include "simd.h"

namespace fusegen::FUSEGEN_ISA_NS {

constexpr int kTileVectors = kRegisters == 32 ? 4 : 2;  // of a plain panel
#if defined(__FMA__) || !defined(__x86_64__)
constexpr int kProductRegisters = 0;
#else
constexpr int kProductRegisters = 1;  // without a fused multiply-add the product needs one before it is added
#endif

// Vectors of a panel of NW that a tile sums at once, and how many passes that makes.
template <int NW>
constexpr int kPassVectors = kRegisters == 32 || NW < 4 ? NW : 2;
template <int NW>
constexpr int kPasses = NW / kPassVectors<NW>;
constexpr int pass_vectors(int nw) { return kRegisters == 32 || nw < 4 ? nw : 2; }

// Rows of a tile: sums in three quarters of the registers, or as many as leave room for the weights, a
// broadcast and a product.
template <int NW, int V = kPassVectors<NW>>
constexpr int kTileRows = std::min(kRegisters * 3 / 4 / V, (kRegisters - V - 1 - kProductRegisters) / V);

template <class C>
constexpr int kTileColumns = kTileVectors * kLanes<C>;

// Steps of a block of a panel, which stays near while the tiles of all rows pass over it: in L1 where that
// holds so many, else in L2. Each block is summed by itself, so that short ones keep rounding down: narrow
// vectors would fit blocks that sum to twice torch's error.
constexpr int64_t kPanelBlockSteps = 256;

// Cuts n rows into so many tiles of nearly equal height: a short last one would be bound by loads. f(tile,
// row, rows)
template <class F>
FUSEGEN_INLINE void for_tiles(int n, int tiles, F&& f) {
  const int height = n / tiles, taller = n % tiles;
  for (int i = 0, row = 0; i < tiles; ++i) {
    const int m = height + (i < taller);
    f(i, row, m);
    row += m;
  }
}
template <int NW, int highest = kTileRows<NW>, class F>
FUSEGEN_INLINE void for_each_tile(int n, F&& f) {
  if (n > 0) for_tiles(n, (n + highest - 1) / highest, f);
}
// Rows of the tile that row r of n falls into.
template <int NW>
constexpr int tile_height(int n, int r) {
  const int tiles = (n + kTileRows<NW> - 1) / kTileRows<NW>;
  const int height = n / tiles, taller = n % tiles;
  return r < taller * (height + 1) ? height + 1 : height;
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

// Of one row.
template <class C, int NW>
using RowSums = C[NW][kLanes<C>];

// What is added to a tile's finished sums: nothing, or vector j of row m at rows + m * stride + j * lanes;
// vector 2 instead at `third`, the same for each row, where given (GRU's b_hn, since its x part stays out of
// the sum). Added last: sums that started from it would round every small product at its size.
template <class C>
struct TileAddend {
  const C* rows = nullptr;
  int64_t stride = 0;
  const C* third = nullptr;
};

// What a tile fetches while it sums.
template <class C>
struct TileFetch {
  // its part of the block that comes after this one, for several rows: a line a step, into L2
  const C* next = nullptr;
  int64_t lines = 0;
  // the same steps of these rows: pages apart, where the hardware does not look ahead
  const C* const* ahead = nullptr;
};

// On AVX-512 a panel's step is four lines, and a block of it lies in L2: without the next few k fetched
// ahead that stream halves the rate (measured). On narrower vectors it is one line and a half at most, the
// block stays in L1, and a prefetch would be a load too many; as it is for a single row, which is bound by
// loads: the hardware's own fetching brings 86 GB/s from L2 and L3, with ours beside it 70 (measured).
template <class C, int V, int M>
FUSEGEN_INLINE void prefetch_panel(const C* w) {
  if constexpr (kVectorBytes == 64 && M > 1) {
    constexpr int ahead = 6 * V * kLanes<C>;
#pragma GCC unroll 8
    for (int i = 0; i < V * kLanes<C>; i += 64 / static_cast<int>(sizeof(C)))
      __builtin_prefetch(w + ahead + i, 0, 3);
  }
}

// Whether an operand is stored as pairs of bf16, a step being two k: half the bytes and one instruction where
// the CPU has a bf16 dot product. Elsewhere bf16 is widened as it is packed: widening at every use took
// longer than float32 does.
enum class Step { one, pair };
template <class S>
constexpr Step kStep = kNativePairs && std::is_same_v<S, bf16> ? Step::pair : Step::one;
template <class S>
constexpr int64_t steps(int64_t K) {
  return kStep<S> == Step::pair ? (K + 1) / 2 : K;
}

// acc[m][j] += a[m] b[j] over one step.
template <class C, int V, Step step, int M>
FUSEGEN_INLINE void multiply_step(const C* const (&row)[M], int64_t k, const C* w, Vector<C> (&acc)[M][V]) {
  constexpr int L = kLanes<C>;
  if constexpr (step == Step::one) {
    Vector<C> b[V];
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) b[j] = *reinterpret_cast<const Vector<C>*>(w + j * L);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<C> am = splat(row[m][k]);
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) acc[m][j] += am * b[j];
    }
  } else {
    Words b[V];
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) b[j] = *reinterpret_cast<const WordsAnywhere*>(w + j * L);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Words am = reinterpret_cast<const Word*>(row[m])[k] - Words{};
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) acc[m][j] = dot_pairs(acc[m][j], am, b[j]);
    }
  }
}

// Two multiply-adds start in a cycle and take four: fewer than eight sums wait for each other, so few rows
// sum every second or fourth k apart; a single row with sixteen, since its loads come late.
template <int V, int M>
constexpr int kApart = M * V >= 8 || 2 * M > kTileRows<V, V>             ? 1
                       : (M* V >= 4 && M > 1) || 4 * M > kTileRows<V, V> ? 2
                                                                         : 4;
// The same for a number of rows known at run time, of panels of NW vectors.
template <int NW>
int sums_apart(int rows) {
  int apart = 1;
  with_rows<NW>(rows, [&](auto m) { apart = kApart<kPassVectors<NW>, decltype(m)::value>; });
  return apart;
}

// What a tile multiplies: rows from step k0 on with K steps of a panel.
template <class C>
struct TileProduct {
  int rows;
  const C* const* a;
  int64_t k0;
  const C* w;
  int64_t K;
};

// sums[m * ld + j * lanes] = addend[m][j] + sum_k a[m][k0 + k] w[k][j], for M rows and V vectors.
template <class C, int V, Step step, int M>
void tile_rows(const TileProduct<C>& product, const TileAddend<C>& addend, const TileFetch<C>& fetch, C* sums,
               int64_t ld) {
  const C* const* const a = product.a;
  const C* __restrict w = product.w;
  const int64_t k0 = product.k0, K = product.K;
  constexpr int L = kLanes<C>, apart = kApart<V, M>;
  constexpr int kLine = 64 / static_cast<int>(sizeof(C));
  Vector<C> acc[apart][M][V] = {};
  const C* row[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) row[m] = a[m] + k0;
  int64_t k = 0;
  if (fetch.ahead)
    while (k + kLine <= K) {
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) __builtin_prefetch(fetch.ahead[m] + k0 + k, 0, 3);
      for (int i = 0; i < kLine; i += apart, k += apart, w += apart * V * L)
#pragma GCC unroll 4
        for (int s = 0; s < apart; ++s) {
          prefetch_panel<C, V, M>(w + s * V * L);
          multiply_step<C, V, step>(row, k + s, w + s * V * L, acc[s]);
        }
    }
  for (const int64_t end = M > 1 ? std::min(K, fetch.lines) : 0; k + apart <= end;
       k += apart, w += apart * V * L)
#pragma GCC unroll 4
    for (int s = 0; s < apart; ++s) {
      __builtin_prefetch(fetch.next + (k + s) * kLine, 0, 2);
      prefetch_panel<C, V, M>(w + s * V * L);
      multiply_step<C, V, step>(row, k + s, w + s * V * L, acc[s]);
    }
#pragma GCC unroll 2
  for (; k + apart <= K; k += apart, w += apart * V * L)
#pragma GCC unroll 4
    for (int s = 0; s < apart; ++s) {
      prefetch_panel<C, V, M>(w + s * V * L);
      multiply_step<C, V, step>(row, k + s, w + s * V * L, acc[s]);
    }
  if constexpr (apart > 1) {
    for (; k < K; ++k, w += V * L) multiply_step<C, V, step>(row, k, w, acc[0]);
#pragma GCC unroll 4
    for (int s = 1; s < apart; ++s)
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int j = 0; j < V; ++j) acc[0][m][j] += acc[s][m][j];
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) {
      const C* own = addend.rows ? addend.rows + m * addend.stride + j * L : nullptr;
      const C* from = j == 2 && addend.third ? addend.third : own;
      if (from) acc[0][m][j] += *reinterpret_cast<const Vector<C>*>(from);
      *reinterpret_cast<Vector<C>*>(sums + m * ld + j * L) = acc[0][m][j];
    }
}

// What a tile of a weight gradient multiplies: neighbouring columns of a with K steps of a panel.
template <class C>
struct TileColumns {
  const C* a;
  int64_t stride;
  const C* w;
  int64_t K;
  bool add;  // to the sums
};

// sums[m] (+)= sum_k a[k][m] w[k].
template <class C, Step step, int M>
void tile_columns(const TileColumns<C>& product, TileSums<C, kTileVectors>& sums) {
  const C* __restrict a = product.a, * __restrict w = product.w;
  const int64_t stride = product.stride, K = product.K;
  const bool add = product.add;
  constexpr int L = kLanes<C>, V = kTileVectors;
  Vector<C> acc[M][V] = {};
  const C* column[M];
  for (int64_t k = 0; k < K; ++k, a += stride, w += V * L) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) column[m] = a + m;
    prefetch_panel<C, V, M>(w);
    __builtin_prefetch(a + 8 * stride, 0, 3);
    multiply_step<C, V, step>(column, 0, w, acc);
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) {
      Vector<C>& sum = *reinterpret_cast<Vector<C>*>(sums.value[m][j]);
      sum = add ? sum + acc[m][j] : acc[m][j];
    }
}

// The two for a number of rows known at run time; compiled once each (tile.cpp).
template <class C, int V, Step step>
void tile_rows(const TileProduct<C>& product, const TileAddend<C>& addend, const TileFetch<C>& fetch, C* sums,
               int64_t ld);
template <class C, Step step>
void tile_columns(int rows, const TileColumns<C>& product, TileSums<C, kTileVectors>& sums);

}  // namespace fusegen::FUSEGEN_ISA_NS
