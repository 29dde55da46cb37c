// How backward's sequence kernels deal a layer over blocks, warps and lanes. All constexpr, tested as
// bijections.
//
// A block owns `units` units, and keeps their gates' rows of R, [gates * units, H], in registers: they are
// the columns k of A, and the units that they lead to its rows m. A tile of A is 16 units of the layer by a
// chunk of gradients; the tiles of 16 units are dealt to the warps, `tiles` neighbours to each, and a warp
// has all of the block's chunks.
#pragma once
#include "../../layout.h"

namespace fusegen::cuda {

constexpr int most_of(int wanted, int most) { return wanted < most ? wanted : most; }

constexpr int kShapes = 4;  // of the shards of a cell and a format: from one block's layers to the largest
// Calls in which sequences start anew have kernels of the last two alone, which hold every layer that one
// has.
constexpr int first_shape(bool resets) { return resets ? 2 : 0; }

constexpr int shard_units(int gates, int number, int shape) {
  return (gates == 1 ? 512 : 256) / number >> shape;
}
constexpr int shard_tiles(int gates, int shape) { return (gates == 1 ? 2 : 1) << shape; }
constexpr int shard_chunks(int gates, int number, int shape) {
  return ceil_div(gates * shard_units(gates, number, shape) * number, kChunk);
}
// The most units of a layer, padded to whole blocks.
constexpr int shard_reach(int gates, int shape) { return 8 * 16 * shard_tiles(gates, shape); }
// Bytes between the rows of what is multiplied: an odd number of chunks, so that 8 rows of 16-byte reads fall
// on different banks.
constexpr int stage_stride(int chunks) { return (chunks / 2 * 2 + 1) * kChunk; }

// In every shape kTiles * kChunks is 16 (GRU: 12 to 16): 128 registers of a lane, 128 KB of a block.
template <int Gates, int Number, int Shape>
struct Shard {
  static constexpr int kGates = Gates, kUnits = shard_units(Gates, Number, Shape),
                       kTiles = shard_tiles(Gates, Shape), kChunks = shard_chunks(Gates, Number, Shape),
                       kMostBlocks = shard_reach(Gates, Shape) / kUnits;

  // -- The stage: a block's own gradients as they are multiplied, a row of the batch after another --

  // Words of 16 bytes: kWord units of one gate, then of the next gate; then the next units. A row's last word
  // may stand for no unit (GRU's 16 units of 16 bits are a chunk and a half).
  static constexpr int kWord = 16 / Number;
  static constexpr int word_gate(int word) { return word % Gates; }
  static constexpr int word_unit(int word) { return word / Gates * kWord; }
  static constexpr int stage_at(int unit, int gate) {
    return (unit / kWord * Gates + gate) * 16 + unit % kWord * Number;
  }
  static constexpr int kStageStride = stage_stride(kChunks);

  // -- A part: what a rank has multiplied for the units of one owner, floats [n][tile][t 4][g][4] --
  //
  // The four are what lane 4g+t has of a tile: units 2g and 2g+1 of it, each for rows 2t and 2t+1 of 8n. A
  // lane sends them as one word, and a warp reads 32 floats in a row: 16 units of two rows. Owners of 8 units
  // share a tile.

  static constexpr int kWords = kUnits < 16 ? kUnits / 2 : 8;  // for each t
  static constexpr int kOwnTiles = kUnits < 16 ? 1 : kUnits / 16;
  static constexpr int part_floats(int NT) { return kUnits * 8 * NT; }
  // The unit of the layer in row 0..15 of a tile.
  static constexpr int tile_unit(int row) { return row % 8 * 2 + row / 8; }
  // Where a lane's word of the tile goes, in bytes from its part's begin.
  static constexpr int word_at(int n, int tile, int lane) {
    return (((n * kOwnTiles + tile % kOwnTiles) * 4 + lane % 4) * kWords + lane / 4 % kWords) * 16;
  }
  // What the floats of a part are.
  static constexpr int float_unit(int i) {
    return i / (16 * kWords) % kOwnTiles * 16 + i / 4 % kWords * 2 + i / 2 % 2;
  }
  static constexpr int float_row(int i) { return i / (8 * kUnits) * 8 + i / (4 * kWords) % 4 * 2 + i % 2; }
};

}  // namespace fusegen::cuda
