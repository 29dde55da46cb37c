// The loops over tiles, once for all callers.
#include "product.h"

#include <memory>

#include "kernels/cpu/plan.h"

namespace fusegen::FUSEGEN_ISA_NS {
namespace {

// Those of a block that fits this machine's caches.
template <class C, int V>
int64_t panel_block_steps() {
  return std::min(kPanelBlockSteps, cpu::blocks().panel_bytes / (V * kVectorBytes));
}

// For rows few enough to stay near, of which the first is the caller's row `first_row`.
template <class C, int NW, Step step>
void multiply_block(const ProductRows<C>& a, int first_row, const Sweep& sweep,
                    const TileCalls<C, NW>& calls) {
  constexpr int V = kPassVectors<NW>, L = kLanes<C>;
  constexpr int64_t kLine = 64 / sizeof(C), kRow = NW * L;
  constexpr int kTilesOnStack = 16;
  const int rows = a.count;
  const int64_t K = a.K, count = sweep.count();
  const int64_t block_steps = panel_block_steps<C, V>();
  const int blocks = static_cast<int>(std::max<int64_t>(1, (K + block_steps - 1) / block_steps));
  const int rounds = blocks * kPasses<NW>;  // over the rows, for each panel
  const int tiles = a.tile ? rows / a.tile : (rows + kTileRows<NW> - 1) / kTileRows<NW>;
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
      const C* w =
          calls.fresh ? calls.fresh(calls.source, {p, pass, k0, k1}) : calls.packed.block(p, pass, k0);
      const C* next = nullptr;
      if (!calls.fresh) {
        if (round + 1 < rounds)
          next = calls.packed.block(p, (round + 1) / blocks, first_step((round + 1) % blocks));
        else if (i + 1 < count) next = calls.packed.block(sweep.panel(i + 1), 0, 0);
      }
      for_tiles(rows, tiles, [&](int tile, int row, int m) {
        TileSums<C, NW>& s = sums[rounds > 1 ? tile : 0];
        C* out = s.value[0][pass * V];
        // All but the first block add what the blocks before left, the first the caller's addend.
        TileAddend<C> plus{out, kRow, nullptr};
        if (block == 0) {
          plus = calls.add ? calls.add(calls.addend, first_row + row, p) : TileAddend<C>{};
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
        if (calls.fresh && kRegisters == 32 && row + 2 * m <= rows) fetch.ahead = a.data + row + m;
        tile_rows<C, V, step>({m, a.data + row, k0, w, k1 - k0}, plus, fetch, out, kRow);
        if (round + 1 == rounds) calls.end(calls.epilogue, first_row + row, m, p, s);
      });
    }
  }
}

}  // namespace

template <class C, int NW, Step step>
void multiply_tiles(const ProductRows<C>& a, const Sweep& sweep, const TileCalls<C, NW>& calls) {
  // Rows that stay in L2 while the panels pass, in blocks of nearly equal height; eight tiles at least, or
  // panels that come from memory would not last while the next are fetched. A fresh panel would be packed
  // again for each: all rows.
  constexpr int64_t kLeast = 8 * kTileRows<NW>;
  const int64_t row_bytes = std::max<int64_t>(a.K, 1) * static_cast<int64_t>(sizeof(C));
  const int64_t fitting = std::clamp<int64_t>(cpu::blocks().row_bytes / row_bytes, kLeast, INT32_MAX);
  const int64_t most = calls.fresh ? INT32_MAX : fitting;
  const int blocks = static_cast<int>((a.count + most - 1) / most);
  const int unit = std::max(a.tile, 1);
  const int64_t units = a.count / unit;
  for (int block = 0; block < blocks; ++block) {
    const int first = static_cast<int>(units * block / blocks) * unit;
    const int end = static_cast<int>(units * (block + 1) / blocks) * unit;
    multiply_block<C, NW, step>(a.part(first, end), first, {sweep.panels, sweep.turn + block}, calls);
  }
}

// Of weight gradients: steps of a and b summed at a time, and those that all tiles go over before the next,
// since so many of a panel stay in L1.
constexpr int64_t kColumnBlock = 128;
constexpr int64_t kColumnRound = 256;
// A block of columns stays in L2 while the panels pass.
template <class C, Step step>
void multiply_columns(const ColumnProduct<C>& product) {
  const C *const a = product.a, *const b = product.b;
  const int64_t stride = product.stride, N = product.N, K = product.K;
  const Range columns = product.columns;
  const bool add = product.add;
  // Whole lines of a, and whole tiles.
  const int64_t column_bytes = std::max<int64_t>(K, 1) * static_cast<int64_t>(sizeof(C)) * kGradientColumns;
  const int64_t block =
      std::clamp<int64_t>(cpu::blocks().column_bytes / column_bytes, 1, 4) * kGradientColumns;
  // Whole aligned vectors of a result written once and larger than a core's L2 need not be read first.
  const int64_t result_bytes = (columns.end - columns.begin) * N * static_cast<int64_t>(sizeof(C));
  const bool past_cache = !add && N % kLanes<C> == 0 && result_bytes > cpu::blocks().past_cache_bytes &&
                          reinterpret_cast<uintptr_t>(product.out_row(columns.begin)) % kVectorBytes == 0;
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
              __builtin_prefetch(product.out_row(begin + m0 + i) + p * kTileColumns<C> + n, 1, 3);
          for (int64_t k = k0; k < k1; k += kColumnBlock)
            tile_columns<C, step>(m,
                                  {a + k * stride + begin + m0, stride, b + (p * K + k) * kTileColumns<C>,
                                   std::min(kColumnBlock, k1 - k), k > 0},
                                  s);
          if (round + 1 < rounds) return;
          for (int i = 0; i < m; ++i) {
            C* out = product.out_row(begin + m0 + i);
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

#define FUSEGEN_MULTIPLY_TILES(C, NW, step) \
  template void multiply_tiles<C, NW, step>(const ProductRows<C>&, const Sweep&, const TileCalls<C, NW>&);
// Panels of the widths that there are: plain ones, and those of three and four gates.
FUSEGEN_MULTIPLY_TILES(float, kTileVectors, Step::one)
FUSEGEN_MULTIPLY_TILES(float, 3, Step::one)
FUSEGEN_MULTIPLY_TILES(double, kTileVectors, Step::one)
FUSEGEN_MULTIPLY_TILES(double, 3, Step::one)
#if !defined(__AVX512F__) && !defined(__aarch64__)  // on 32 registers four gates are as wide as a plain panel
FUSEGEN_MULTIPLY_TILES(float, 4, Step::one)
FUSEGEN_MULTIPLY_TILES(double, 4, Step::one)
#endif
#if defined(__AVX512BF16__)
FUSEGEN_MULTIPLY_TILES(float, kTileVectors, Step::pair)
FUSEGEN_MULTIPLY_TILES(float, 3, Step::pair)
#endif
#undef FUSEGEN_MULTIPLY_TILES
template void multiply_columns<float, Step::one>(const ColumnProduct<float>&);
#if defined(__AVX512BF16__)
template void multiply_columns<float, Step::pair>(const ColumnProduct<float>&);
#endif
template void multiply_columns<double, Step::one>(const ColumnProduct<double>&);

}  // namespace fusegen::FUSEGEN_ISA_NS
