// Products with packed weights: rows of A, given by pointers, times panels; and columns of A for weight
// gradients. What happens to a finished row of a tile is the caller's epilogue.
#pragma once
#include <memory>
#include <vector>

#include "kernels/cpu/arena.h"
#include "kernels/cpu/plan.h"
#include "pack.h"
#include "team.h"

namespace fusegen::FUSEGEN_ISA_NS {

// The left-hand side of a product: rows, wherever they lie, of K steps.
template <class C>
struct ProductRows {
  const C* const* data;
  int count;
  int64_t K;

  ProductRows(const C* const* data, int count, int64_t K) : data(data), count(count), K(K) {}
  ProductRows(const std::vector<const C*>& rows, int64_t K)
      : data(rows.data()), count(static_cast<int>(rows.size())), K(K) {}
  ProductRows part(int64_t begin, int64_t end) const {
    return {data + begin, static_cast<int>(end - begin), K};
  }
};

// The panels of a product. Odd turns go through them backwards, so that what the last turn left in the cache
// is met first.
struct Sweep {
  Range panels;
  int64_t turn = 0;

  int64_t count() const { return panels.end - panels.begin; }
  int64_t panel(int64_t i) const { return turn % 2 ? panels.end - 1 - i : panels.begin + i; }
};

// Those of a block that fits this machine's caches.
template <class C, int V>
int64_t panel_block_steps() {
  return std::min(kPanelBlockSteps, cpu::blocks().panel_bytes / (V * kVectorBytes));
}

// Where a product's panels come from: packed before, or packed block by block as they are used, which is
// right for weights that a call uses once.
template <class C, int NW>
struct PackedPanels {
  static constexpr bool kFresh = false;
  const C* data;
  int64_t K;
  const C* block(int64_t panel, int pass, int64_t k0, int64_t) const {
    return data + ((panel * kPasses<NW> + pass) * K + k0) * kPassVectors<NW> * kLanes<C>;
  }
};
template <class C>
constexpr int64_t kFreshElements =
    kPanelBlockSteps * 4 * kLanes<C> + cpu::kReadPast / static_cast<int64_t>(sizeof(C));
template <class C, class Pack>
struct FreshPanels {
  static constexpr bool kFresh = true;
  Pack pack;  // pack(PanelBlock, buffer)
  C* buffer;  // kFreshElements, of this thread
  const C* block(int64_t panel, int pass, int64_t k0, int64_t k1) const {
    pack(PanelBlock{panel, pass, k0, k1}, buffer);
    return buffer;
  }
};
template <class C, class Pack>
FreshPanels(Pack, C*) -> FreshPanels<C, Pack>;

// The same for few enough rows, see multiply_rows.
template <class C, int NW, Step step, class Source, class Addend, class Epilogue>
FUSEGEN_INLINE void multiply_block(const ProductRows<C>& a, const Source& source, const Sweep& sweep,
                                   const Addend& addend, const Epilogue& epilogue) {
  constexpr int V = kPassVectors<NW>, L = kLanes<C>;
  constexpr int64_t kLine = 64 / sizeof(C), kRow = NW * L;
  constexpr int kTilesOnStack = 16;
  const int rows = a.count;
  const int64_t K = a.K, count = sweep.count();
  const int64_t block_steps = panel_block_steps<C, V>();
  const int blocks = static_cast<int>(std::max<int64_t>(1, (K + block_steps - 1) / block_steps));
  const int rounds = blocks * kPasses<NW>;  // over the rows, for each panel
  const int tiles = (rows + kTileRows<NW> - 1) / kTileRows<NW>;
  if (tiles == 0) return;
  TileSums<C, NW> few[kTilesOnStack];
  const std::unique_ptr<TileSums<C, NW>[]> many(
      rounds > 1 && tiles > kTilesOnStack ? new TileSums<C, NW>[static_cast<size_t>(tiles)] : nullptr);
  TileSums<C, NW>* const sums = many ? many.get() : few;
  const auto first_step = [&](int block) { return K * block / blocks; };
  for (int64_t i = 0; i < count; ++i) {
    const int64_t p = sweep.panel(i);
    for (int round = 0; round < rounds; ++round) {
      const int pass = round / blocks, block = round % blocks;
      const int64_t k0 = first_step(block), k1 = first_step(block + 1);
      const C* w = source.block(p, pass, k0, k1);
      const C* next = nullptr;
      if constexpr (!Source::kFresh) {
        if (round + 1 < rounds)
          next = source.block(p, (round + 1) / blocks, first_step((round + 1) % blocks), 0);
        else if (i + 1 < count) next = source.block(sweep.panel(i + 1), 0, 0, 0);
      }
      for_each_tile<NW>(rows, [&](int tile, int row, int m) {
        TileSums<C, NW>& s = sums[rounds > 1 ? tile : 0];
        C* out = s.value[0][pass * V];
        // All but the first block add what the blocks before left, the first the caller's addend.
        TileAddend<C> plus{out, kRow, nullptr};
        if (block == 0) {
          plus = addend(row, p);
          if (plus.rows) plus.rows += pass * V * L;
        }
        // the tiles of all rows share the next block, so that it comes in as evenly as it is used
        TileFetch<C> fetch;
        if (next) {
          const int64_t lines = (k1 - k0) * V * L / kLine, first = lines * tile / tiles;
          fetch = {next + first * kLine, lines * (tile + 1) / tiles - first, nullptr};
        }
        // Nothing of a fresh panel's next block is there to fetch; the next tile's rows are (7-10 % measured
        // on 32 registers; on 16, where a step has half the multiply-adds, as much lost).
        if (Source::kFresh && kRegisters == 32 && row + 2 * m <= rows) fetch.ahead = a.data + row + m;
        tile_rows<C, V, step>({m, a.data + row, k0, w, k1 - k0}, plus, fetch, out, kRow);
        if (round + 1 == rounds) epilogue(row, m, p, s);
      });
    }
  }
}

// Every panel of the sweep times every row. addend(row, panel) is added to a tile's sums; epilogue(row, rows,
// panel, sums) ends a tile.
template <class C, int NW, Step step = Step::one, class Source, class Addend, class Epilogue>
FUSEGEN_INLINE void multiply_rows(const ProductRows<C>& a, const Source& source, const Sweep& sweep,
                                  const Addend& addend, const Epilogue& epilogue) {
  // Rows that stay in L2 while the panels pass, in blocks of nearly equal height; eight tiles at least, or
  // panels that come from memory would not last while the next are fetched. A fresh panel would be packed
  // again for each: all rows.
  constexpr int64_t kLeast = 8 * kTileRows<NW>;
  const int64_t row_bytes = std::max<int64_t>(a.K, 1) * static_cast<int64_t>(sizeof(C));
  const int64_t fitting = std::clamp<int64_t>(cpu::blocks().row_bytes / row_bytes, kLeast, INT32_MAX);
  const int64_t most = Source::kFresh ? INT32_MAX : fitting;
  const int blocks = static_cast<int>((a.count + most - 1) / most);
  for (int block = 0; block < blocks; ++block) {
    const int first = static_cast<int>(int64_t{a.count} * block / blocks);
    const int end = static_cast<int>(int64_t{a.count} * (block + 1) / blocks);
    multiply_block<C, NW, step>(
        a.part(first, end), source, Sweep{sweep.panels, sweep.turn + block},
        [&](int row, int64_t p) { return addend(first + row, p); },
        [&](int row, int m, int64_t p, auto& sums) { epilogue(first + row, m, p, sums); });
  }
}

// The epilogue that calls f(row, panel, sums) for each row of a tile.
template <class F>
FUSEGEN_INLINE auto each_row(F f) {
  return [f](int row, int rows, int64_t panel, const auto& sums) {
    for (int r = 0; r < rows; ++r) f(row + r, panel, sums.value[r]);
  };
}

template <class C>
struct Nothing {
  TileAddend<C> operator()(int, int64_t) const { return {}; }
};

// Writes the blocks of a plain panel's row to where the whole row begins.
template <class S>
FUSEGEN_INLINE void store_row(int64_t N, int64_t panel, const RowSums<Compute<S>, kTileVectors>& sums,
                              bool add, S* out) {
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

// Of weight gradients: rows of a and b summed at a time, and those that all tiles go over before the next,
// since so many of a panel stay in L1.
constexpr int64_t kColumnBlock = 128;
constexpr int64_t kColumnRound = 256;
// what threads share of the columns: whole tiles of six, and whole cache lines
constexpr int64_t kGradientColumns = 48;

// A weight gradient being summed over chunks.
template <class C>
struct ColumnProduct {
  const C* a;  // [K] rows, of which `columns` are meant
  int64_t stride;
  Range columns;
  const C* b;  // [K][N] in plain panels
  int64_t N, K;
  bool add;  // to what is there
};

// out_row(m)[n] (+)= sum_k a[k][m] b[k][n]. A block of columns stays in L2 while the panels pass.
template <class C, class OutRow>
FUSEGEN_INLINE void multiply_columns(const ColumnProduct<C>& product, const OutRow& out_row) {
  const auto [a, stride, columns, b, N, K, add] = product;
  // Whole lines of a, and whole tiles.
  const int64_t column_bytes = std::max<int64_t>(K, 1) * static_cast<int64_t>(sizeof(C)) * kGradientColumns;
  const int64_t block =
      std::clamp<int64_t>(cpu::blocks().column_bytes / column_bytes, 1, 4) * kGradientColumns;
  // Whole aligned vectors of a result written once and larger than a core's L2 need not be read first.
  const int64_t result_bytes = (columns.end - columns.begin) * N * static_cast<int64_t>(sizeof(C));
  const bool past_cache = !add && N % kLanes<C> == 0 && result_bytes > cpu::blocks().past_cache_bytes &&
                          reinterpret_cast<uintptr_t>(out_row(columns.begin)) % kVectorBytes == 0;
  const int64_t rounds = std::max<int64_t>(1, (K + kColumnRound - 1) / kColumnRound);
  TileSums<C, kTileVectors>
      sums[(4 * kGradientColumns + kTileRows<kTileVectors> - 1) / kTileRows<kTileVectors>];
  for (int64_t begin = columns.begin; begin < columns.end; begin += block) {
    const int width = static_cast<int>(std::min(block, columns.end - begin));
    for (int64_t p = 0, count = PanelShape{N, 1}.template count<C>(); p < count; ++p) {
      for (int64_t round = 0; round < rounds; ++round) {
        const int64_t k0 = K * round / rounds, k1 = K * (round + 1) / rounds;
        for_each_tile<kTileVectors>(width, [&](int tile, int m0, int m) {
          TileSums<C, kTileVectors>& s = sums[rounds > 1 ? tile : 0];
          // What the sums are added to lies in memory by now, a line a row.
          for (int i = 0; add && round + 1 == rounds && i < m; ++i)
            for (int64_t n = 0; n < kTileColumns<C>; n += 64 / static_cast<int64_t>(sizeof(C)))
              __builtin_prefetch(out_row(begin + m0 + i) + p * kTileColumns<C> + n, 1, 3);
          for (int64_t k = k0; k < k1; k += kColumnBlock)
            tile_columns<C>(m,
                            {a + k * stride + begin + m0, stride, b + (p * K + k) * kTileColumns<C>,
                             std::min(kColumnBlock, k1 - k), k > 0},
                            s);
          if (round + 1 < rounds) return;
          for (int i = 0; i < m; ++i) {
            C* out = out_row(begin + m0 + i);
            if (past_cache)
              for (int j = 0; j < kTileVectors && p * kTileColumns<C> + j * kLanes<C> < N; ++j)
                stream(out + p * kTileColumns<C> + j * kLanes<C>, load(s.value[i][j]));
            else store_row<C>(N, p, s.value[i], add, out);
          }
        });
      }
    }
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
