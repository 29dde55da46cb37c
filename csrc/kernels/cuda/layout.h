// Which row of R, which unit and which row of the batch a lane works on. All constexpr, tested as bijections.
//
// A warp multiplies `kTiles` tiles of 16 rows. The rows are dealt so that one lane gets all gates of a unit:
// LSTM takes 8 units, tile 0 being i and f, tile 1 g and o; the others take 16 units, a tile a gate. Lane
// 4g+t gets, of every 8 rows of the batch, rows 2t and 2t+1 for unit g (and g+8).
#pragma once
#include "../backend.h"

namespace fusegen::cuda {

template <int Gates>
struct Rows {
  static constexpr bool kFour = Gates == 4;
  static constexpr int kGates = Gates;
  static constexpr int kTiles = kFour ? 2 : Gates;
  static constexpr int kUnits = kFour ? 8 : 16;  // of a warp
  static constexpr int kPairs = kFour ? 2 : 4;   // (unit, row of the batch) of a lane in 8 rows

  static constexpr int gate(int tile, int row) { return kFour ? 2 * tile + row / 8 : tile; }
  static constexpr int unit(int, int row) { return kFour ? row % 8 : row; }

  static constexpr int pair_unit(int lane, int pair) { return lane / 4 + 8 * (pair / 2); }
  static constexpr int pair_row(int lane, int pair) { return 2 * (lane % 4) + pair % 2; }
  // Where a pair's gate lies in the lane's sums [tile][4].
  static constexpr int sum_tile(int gate) { return kFour ? gate / 2 : gate; }
  static constexpr int sum_place(int gate, int pair) { return kFour ? 2 * (gate % 2) + pair : pair; }
};

// 64 bytes of a row of R are a chunk, what one product takes. A warp keeps this many of its rows in
// registers: with 8 * tiles registers a chunk, 72 to 128 of the 255 that a lane may have. GRU's three sums
// and the split halves of true float32 leave room for one chunk fewer.
constexpr int resident_chunks(int gates, bool split) {
  return gates == 4 ? 8 : gates == 3 ? (split ? 3 : 4) : 16;
}

constexpr int kChunk = 64;

constexpr int gates_of(Kind kind) { return kind == Kind::lstm ? 4 : kind == Kind::gru ? 3 : 1; }
// Backward multiplies the transpose: plain rows of units, whatever the cell.
constexpr int row_gates(Kind kind, bool backward) { return backward ? 1 : gates_of(kind); }
constexpr int units_of_warp(int gates) { return gates == 4 ? 8 : 16; }
constexpr int tiles_of_warp(int gates) { return gates == 4 ? 2 : gates; }
// Tiles of sums of a single step: GRU's n has x's part and h's apart.
constexpr int sums_of_cell(int gates) { return tiles_of_warp(gates) + (gates == 3); }
constexpr int number_bytes(Format f) { return f == Format::bf16 || f == Format::f16 ? 2 : 4; }

// Tiles of 8 rows of the batch in a slice: as many as fit in a lane's registers beside R, on every GPU
// generation. LSTM and GRU with two spill up to 28 bytes on some; RNN of 16-bit numbers has room.
constexpr int most_tiles(Kind kind, Format format) {
  const bool plain = kind == Kind::rnn_tanh || kind == Kind::rnn_relu;
  return number_bytes(format) == 2 && plain ? 2 : 1;
}

// A row of gathered numbers in shared memory: its length is 64 more than a multiple of 128, so that 8 rows of
// 16-byte reads fall on different banks.
constexpr int gathered_stride(int row_bytes) { return row_bytes % 128 ? row_bytes : row_bytes + kChunk; }

// Parts of a block's shared memory, in bytes from its start.
struct SharedParts {
  int gathered, gathered_size;  // of one buffer
  int partial, stage, state, lengths, barriers, total;
};

// Values of float that a lane keeps from step to step, for each pair: c and h forward, dc and dh backward.
constexpr int kCarried = 2;

constexpr SharedParts shared_parts(Transport transport, int gates, int segments, int row_bytes, int k_splits,
                                   int tiles, int slices, int number) {
  const int rows = 8 * tiles, unit_groups = 8 / k_splits, kept = tiles_of_warp(gates);
  const int pairs = (gates == 4 ? 2 : 4) * tiles;
  const int buffers = transport == Transport::launch ? 0 : transport == Transport::l2 ? 1 : 2 * slices;
  SharedParts p{};
  p.gathered_size = rows * gathered_stride(row_bytes);
  p.partial = p.gathered + buffers * p.gathered_size;
  p.stage = p.partial + (8 - unit_groups) * kept * tiles * 4 * 32 * 4;
  p.state = p.stage + rows * segments * unit_groups * units_of_warp(gates) * number;
  p.lengths = p.state + slices * pairs * kCarried * unit_groups * 32 * 4;
  p.barriers = p.lengths + slices * rows * 4;
  p.total = p.barriers + 8 * (buffers + 1);
  return p;
}

}  // namespace fusegen::cuda
