// Products with packed weights: rows of A, given by pointers, times panels; and columns of A for weight gradients.
// What happens to a finished row of a tile is the caller's epilogue.
#pragma once
#include "batch.h"
#include "pack.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class C, int NW>
using RowSums = C[NW][kLanes<C>];

// A block of a panel that stays in L2 while the tiles of all rows pass over it. Each block is summed by itself, so that
// short ones keep rounding down: narrow vectors would fit blocks that sum to twice torch's error.
constexpr int64_t kPanelBlockBytes = 64 * 1024;
constexpr int64_t kPanelBlockSteps = 256;
constexpr int64_t kColumnBlock = 128;  // the same for weight gradients: rows of a and b summed at a time

// Where a product's panels come from: packed before, or packed block by block as they are used, which is right for
// weights that a call uses once.
template <class C, int NW>
struct PackedPanels {
  static constexpr bool kRowsAhead = false;
  const C* data;
  int64_t K;
  const C* block(int64_t panel, int64_t k0, int64_t) const { return data + (panel * K + k0) * NW * kLanes<C>; }
  const C* ahead(int64_t panel, int64_t k0, const C*) const { return block(panel, k0, 0); }
};
template <class C>
constexpr int64_t kFreshElements = (kPanelBlockBytes + 4096) / sizeof(C);  // a block, and room for prefetches past it
template <class C, class Pack>
struct FreshPanels {
  static constexpr bool kRowsAhead = true;  // nothing of the next panel is there to fetch: the next tile's rows are (7-10 % measured)
  Pack pack;  // pack(panel, k0, k1, buffer)
  C* buffer;  // kFreshElements, of this thread
  const C* block(int64_t panel, int64_t k0, int64_t k1) const {
    pack(panel, k0, k1, buffer);
    return buffer;
  }
  const C* ahead(int64_t, int64_t, const C* current) const { return current; }
};
template <class C, class Pack>
FreshPanels(Pack, C*) -> FreshPanels<C, Pack>;

// Every panel of `panels` times every row, over K steps; odd `turn`s go through the panels backwards, so that what the last turn left
// in the cache is met first. addend(row, panel) is added to a tile's sums; epilogue(row, panel, sums) ends a row.
template <class C, int NW, Step step = Step::one, class Source, class Addend, class Epilogue>
FUSEGEN_INLINE void multiply_rows(const C* const* a, int rows, const Source& source, int64_t K, Range panels, int64_t turn,
                                  const Addend& addend, const Epilogue& epilogue) {
  constexpr int64_t kRowElements = NW * kLanes<C>;
  constexpr int64_t kBlock =
      std::min<int64_t>(kPanelBlockSteps, kPanelBlockBytes / (kRowElements * static_cast<int64_t>(sizeof(C))));
  const int64_t blocks = std::max<int64_t>(1, (K + kBlock - 1) / kBlock);
  const int64_t count = panels.end - panels.begin;
  const int tiles = (rows + kTileRows<NW> - 1) / kTileRows<NW>;
  if (tiles == 0) return;
  std::vector<TileSums<C, NW>> sums(blocks > 1 ? tiles : 1);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t p = turn % 2 ? panels.end - 1 - i : panels.begin + i;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t k0 = K * block / blocks, k1 = K * (block + 1) / blocks;
      const C* w = source.block(p, k0, k1);
      // The block after this one, a line of it a k.
      const C* next = block + 1 < blocks ? source.ahead(p, k1, w)
                      : i + 1 < count    ? source.ahead(turn % 2 ? p - 1 : p + 1, 0, w)
                                         : w;
      for_each_tile<NW>(rows, [&](int tile, int row, int m) {
        TileSums<C, NW>& s = sums[blocks > 1 ? tile : 0];
        // All but the first block add what the blocks before left, the first the caller's addend.
        const TileAddend<C> plus = block ? TileAddend<C>{s.value[0][0], kRowElements, nullptr} : addend(row, p);
        const C* const* ahead = Source::kRowsAhead && row + 2 * m <= rows ? a + row + m : nullptr;
        tile_rows<C, NW, step>(m, a + row, k0, w, k1 - k0, plus, next + tile * (k1 - k0) * (64 / sizeof(C)), ahead, s);
        if (block + 1 == blocks)
          for (int r = 0; r < m; ++r) epilogue(row + r, p, s.value[r]);
      });
    }
  }
}

template <class C>
struct Nothing {
  TileAddend<C> operator()(int, int64_t) const { return {}; }
};

// Writes the four blocks of a plain panel's row to where the whole row begins.
template <class S>
FUSEGEN_INLINE void store_row(int64_t N, int64_t panel, const RowSums<Compute<S>, kTileVectors>& sums, bool add, S* out) {
  using C = Compute<S>;
  const PanelShape shape{N, 1};
  for (int j = 0; j < kTileVectors; ++j) {
    const int lanes = shape.lanes<C>(panel, j);
    if (!lanes) break;
    S* dst = out + shape.row<C>(panel, j);
    Vector<C> v = load(sums[j]);
    if (add) v += load(dst, lanes);
    store(dst, v, lanes);
  }
}

// A weight gradient being summed over chunks: out_row(m)[n] (+)= sum_k a[k][m] b[k][n], m in `columns`, b packed in plain
// panels. A block of columns stays in L2 while the panels pass.
template <class C, class OutRow>
FUSEGEN_INLINE void multiply_columns(const C* a, int64_t stride, Range columns, const C* b, int64_t N, int64_t K, bool add,
                                     const OutRow& out_row) {
  constexpr int64_t kBlock = 96;
  // Whole aligned vectors of a result written once and larger than a core's L2 need not be read first.
  constexpr int64_t kLarge = int64_t{1} << 20;
  const bool past_cache = !add && N % kLanes<C> == 0 && (columns.end - columns.begin) * N * sizeof(C) > kLarge &&
                          reinterpret_cast<uintptr_t>(out_row(columns.begin)) % kVectorBytes == 0;
  TileSums<C, kTileVectors> sums;
  for (int64_t begin = columns.begin; begin < columns.end; begin += kBlock) {
    const int width = static_cast<int>(std::min(kBlock, columns.end - begin));
    for (int64_t p = 0, count = PanelShape{N, 1}.template count<C>(); p < count; ++p) {
      for_each_tile<kTileVectors>(width, [&](int, int m0, int m) {
        for (int64_t k = 0; k < K; k += kColumnBlock)
          tile_columns<C>(m, a + k * stride + begin + m0, stride, b + (p * K + k) * kTileColumns<C>,
                          std::min(kColumnBlock, K - k), k > 0, sums);
        for (int i = 0; i < m; ++i) {
          C* out = out_row(begin + m0 + i);
          if (past_cache)
            for (int j = 0; j < kTileVectors && p * kTileColumns<C> + j * kLanes<C> < N; ++j)
              stream(out + p * kTileColumns<C> + j * kLanes<C>, load(sums.value[i][j]));
          else
            store_row<C>(N, p, sums.value[i], add, out);
        }
      });
    }
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
