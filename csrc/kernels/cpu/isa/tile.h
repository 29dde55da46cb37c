// The register tile: up to kTileRows rows by four vectors, sums held in registers from the first k to the last.
//
// Weights come as panels [k][NW][lanes]. Four vectors are the four gates of one block of units (LSTM), three gates
// and a fourth sum (GRU: x and h parts of n stay apart), or four blocks of units (RNN and plain products).
// AVX-512: 24 sums + 4 weights + 1 broadcast = 29 of 32 registers; 10 loads for 24 multiply-adds.
#pragma once
#include <utility>

#include "simd.h"

namespace fusegen::FUSEGEN_ISA_NS {

constexpr int kTileRows = kRegisters == 32 ? 6 : 3;
constexpr int kTileVectors = 4;

template <class C>
constexpr int kTileColumns = kTileVectors * kLanes<C>;

// Cuts n rows into tiles of nearly equal height: a short last tile would be bound by loads. f(row, rows)
template <class F>
FUSEGEN_INLINE void for_each_tile(int n, F&& f) {
  if (n <= 0) return;
  const int tiles = (n + kTileRows - 1) / kTileRows;
  const int height = n / tiles, taller = n % tiles;
  for (int i = 0, row = 0; i < tiles; ++i) {
    const int m = height + (i < taller);
    f(row, m);
    row += m;
  }
}

// The sums of a tile, kept in L1 between the product and the maths that follows: [row][4][lanes].
template <class C>
struct TileSums {
  alignas(64) C value[kTileRows][kTileVectors][kLanes<C>];
};

// Which sum a weight vector adds to. GRU's third gate (n) goes to sum 2 for x and to sum 3 for h.
enum class Operand { input, hidden };
template <int NW, Operand kind>
constexpr int sum_of(int j) {
  return NW == 3 && kind == Operand::hidden && j == 2 ? 3 : j;
}

// Where the sums start: zero, or rows of NW vectors (the input product); GRU's fourth sum from `fourth`.
template <class C>
struct TileStart {
  const C* rows = nullptr;
  int64_t stride = 0;
  const C* fourth = nullptr;
};

// The panel of the next few k is fetched ahead: without it the stream from L2 halves the rate (measured).
template <class C, int NW>
FUSEGEN_INLINE void prefetch_panel(const C* w) {
  constexpr int ahead = 6 * NW * kLanes<C>;
#pragma GCC unroll 8
  for (int i = 0; i < NW * kLanes<C>; i += 64 / static_cast<int>(sizeof(C))) __builtin_prefetch(w + ahead + i, 0, 3);
}

template <class C, int M>
FUSEGEN_INLINE void write_sums(const Vector<C> (&acc)[M][kTileVectors], TileSums<C>& sums) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < kTileVectors; ++j) *reinterpret_cast<Vector<C>*>(sums.value[m][j]) = acc[m][j];
}

// sums[m] = start[m] + sum_k a[m][k] w[k], for M rows.
template <class C, int NW, Operand kind, int M>
void tile_rows(const C* const* a, const C* __restrict w, int64_t K, const TileStart<C>& start, TileSums<C>& sums) {
  constexpr int L = kLanes<C>;
  Vector<C> acc[M][kTileVectors];
  const C* row[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    row[m] = a[m];
#pragma GCC unroll 4
    for (int j = 0; j < kTileVectors; ++j) {
      const C* from = j < NW ? (start.rows ? start.rows + m * start.stride + j * L : nullptr) : start.fourth;
      acc[m][j] = from ? *reinterpret_cast<const Vector<C>*>(from) : Vector<C>{};
    }
  }
  int64_t k = 0;
  if constexpr (M == 1) {  // too few sums to cover the latency of a multiply-add: odd k go to sums of their own
    Vector<C> odd[NW] = {};
    for (; k + 2 <= K; k += 2, w += 2 * NW * L) {
      prefetch_panel<C, NW>(w);
      prefetch_panel<C, NW>(w + NW * L);
      const Vector<C> a0 = splat(row[0][k]), a1 = splat(row[0][k + 1]);
#pragma GCC unroll 8
      for (int j = 0; j < NW; ++j) {
        acc[0][sum_of<NW, kind>(j)] += a0 * *reinterpret_cast<const Vector<C>*>(w + j * L);
        odd[j] += a1 * *reinterpret_cast<const Vector<C>*>(w + (NW + j) * L);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < NW; ++j) acc[0][sum_of<NW, kind>(j)] += odd[j];
  }
  for (; k < K; ++k, w += NW * L) {
    Vector<C> b[NW];
#pragma GCC unroll 8
    for (int j = 0; j < NW; ++j) b[j] = *reinterpret_cast<const Vector<C>*>(w + j * L);
    prefetch_panel<C, NW>(w);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<C> am = splat(row[m][k]);
#pragma GCC unroll 8
      for (int j = 0; j < NW; ++j) acc[m][sum_of<NW, kind>(j)] += am * b[j];
    }
  }
  write_sums(acc, sums);
}

// sums[m] = sum_k a[k][m] w[k]: the rows of the tile are neighbouring columns of a (weight gradients).
template <class C, int M>
void tile_columns(const C* __restrict a, int64_t stride, const C* __restrict w, int64_t K, TileSums<C>& sums) {
  constexpr int L = kLanes<C>;
  Vector<C> acc[M][kTileVectors] = {};
  for (int64_t k = 0; k < K; ++k, a += stride, w += kTileVectors * L) {
    Vector<C> b[kTileVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kTileVectors; ++j) b[j] = *reinterpret_cast<const Vector<C>*>(w + j * L);
    prefetch_panel<C, kTileVectors>(w);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<C> am = splat(a[m]);
#pragma GCC unroll 8
      for (int j = 0; j < kTileVectors; ++j) acc[m][j] += am * b[j];
    }
  }
  write_sums(acc, sums);
}

// The two for a number of rows known at run time; compiled once each (tile.cpp).
template <class C, int NW, Operand kind>
void tile_rows(int rows, const C* const* a, const C* w, int64_t K, const TileStart<C>& start, TileSums<C>& sums);
template <class C>
void tile_columns(int rows, const C* a, int64_t stride, const C* w, int64_t K, TileSums<C>& sums);

}  // namespace fusegen::FUSEGEN_ISA_NS
