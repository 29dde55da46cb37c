// Products with packed weights: rows of A, given by pointers, times panels; and columns of A for weight
// gradients. What happens to a finished row of a tile is the caller's epilogue. The loops over tiles are
// compiled once for all callers (product.cpp), which they call back once a tile.
#pragma once
#include <type_traits>
#include <vector>

#include "kernels/cpu/arena.h"
#include "pack.h"
#include "team.h"

namespace fusegen::FUSEGEN_ISA_NS {

// The left-hand side of a product: rows, wherever they lie, of K steps.
template <class C>
struct ProductRows {
  const C* const* data;
  int count;
  int64_t K;
  int tile = 0;  // rows of every tile, which go into `count`; 0: what suits the count

  ProductRows(const C* const* data, int count, int64_t K, int tile = 0)
      : data(data), count(count), K(K), tile(tile) {}
  ProductRows(const std::vector<const C*>& rows, int64_t K)
      : data(rows.data()), count(static_cast<int>(rows.size())), K(K) {}
  ProductRows part(int64_t begin, int64_t end) const {
    return {data + begin, static_cast<int>(end - begin), K, tile};
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

// Where a product's panels come from: packed before, or packed block by block as they are used, which is
// right for weights that a call uses once.
template <class C, int NW>
struct PackedPanels {
  const C* data;
  int64_t K;
  const C* block(int64_t panel, int pass, int64_t k0) const {
    return data + ((panel * kPasses<NW> + pass) * K + k0) * kPassVectors<NW> * kLanes<C>;
  }
};
template <class C>
constexpr int64_t kFreshElements =
    kPanelBlockSteps * 4 * kLanes<C> + cpu::kReadPast / static_cast<int64_t>(sizeof(C));
template <class C, class Pack>
struct FreshPanels {
  Pack pack;  // pack(PanelBlock, buffer)
  C* buffer;  // kFreshElements, of this thread
  const C* block(const PanelBlock& block) const {
    pack(block, buffer);
    return buffer;
  }
};
template <class C, class Pack>
FreshPanels(Pack, C*) -> FreshPanels<C, Pack>;

template <class C>
struct Nothing {
  TileAddend<C> operator()(int, int64_t) const { return {}; }
};

// What a product asks of its caller, a tile at a time. Each function is given the pointer beside it.
template <class C, int NW>
struct TileCalls {
  PackedPanels<C, NW> packed;  // where `fresh` is null
  const void* source;
  const C* (*fresh)(const void* source, const PanelBlock& block);
  const void* addend;
  TileAddend<C> (*add)(const void* addend, int row, int64_t panel);  // null: nothing is added
  const void* epilogue;
  void (*end)(const void* epilogue, int row, int rows, int64_t panel, TileSums<C, NW>& sums);
};

template <class C, int NW, Step step>
void multiply_tiles(const ProductRows<C>& a, const Sweep& sweep, const TileCalls<C, NW>& calls);

// Every panel of the sweep times every row. addend(row, panel) is added to a tile's sums; epilogue(row, rows,
// panel, sums) ends a tile.
template <class C, int NW, Step step = Step::one, class Source, class Addend, class Epilogue>
void multiply_rows(const ProductRows<C>& a, const Source& source, const Sweep& sweep, const Addend& addend,
                   const Epilogue& epilogue) {
  TileCalls<C, NW> calls{};
  if constexpr (std::is_same_v<Source, PackedPanels<C, NW>>) {
    calls.packed = source;
  } else {
    calls.source = &source;
    calls.fresh = [](const void* source, const PanelBlock& block) {
      return static_cast<const Source*>(source)->block(block);
    };
  }
  if constexpr (!std::is_same_v<Addend, Nothing<C>>) {
    calls.addend = &addend;
    calls.add = [](const void* addend, int row, int64_t panel) {
      return (*static_cast<const Addend*>(addend))(row, panel);
    };
  }
  calls.epilogue = &epilogue;
  calls.end = [](const void* epilogue, int row, int rows, int64_t panel, TileSums<C, NW>& sums) {
    (*static_cast<const Epilogue*>(epilogue))(row, rows, panel, sums);
  };
  multiply_tiles<C, NW, step>(a, sweep, calls);
}

// The epilogue that calls f(row, panel, sums) for each row of a tile.
template <class F>
FUSEGEN_INLINE auto each_row(F f) {
  return [f](int row, int rows, int64_t panel, const auto& sums) {
    for (int r = 0; r < rows; ++r) f(row + r, panel, sums.value[r]);
  };
}

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

// what threads share of the columns: whole tiles of six, and whole cache lines
constexpr int64_t kGradientColumns = 48;

// A weight gradient being summed over chunks: row m of the result, for the m of `columns`, is the sum over k
// of a[k][m] b[k]. It lies at out + ((first + m) % rows) * N. A step k is a row of both operands, or a pair
// of rows in words.
template <class C>
struct ColumnProduct {
  const C* a;  // [K] steps, of which `columns` are meant
  int64_t stride;
  Range columns;
  const C* b;    // [K][N] in plain panels
  int64_t N, K;  // K in steps
  bool add;      // to what is there
  C* out;
  int64_t first, rows;

  C* out_row(int64_t m) const { return out + (first + m < rows ? first + m : first + m - rows) * N; }
};

template <class C, Step step = Step::one>
void multiply_columns(const ColumnProduct<C>& product);

}  // namespace fusegen::FUSEGEN_ISA_NS
