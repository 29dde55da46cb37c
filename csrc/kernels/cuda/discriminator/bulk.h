// Products of warpgroups whose operands come by bulk copies (device/bulk.h): one lane asks, and no lane holds
// an address. A stage of the ring is two boxes of 64 x 64 numbers of either operand, and a barrier that
// counts their bytes. A box lies in memory as the multipliers take it, its rows along K or across it; what
// lies past K comes as zeros, so there are no edges to look after.
//
// The barrier of the block that frees the stage multiplied last is kept: products of 64 along K take a block
// some 500 clocks, the barrier 30 of them, during which those of the stage before still run.
//
// What keeps an operand from coming so: rows that do not begin on 16 bytes (maps.h finds out), or 64 rows of
// the left one that do not lie on end, since they are of real and of fake samples (boxes_of()). Then lanes
// copy both operands of the tile, as gemm.h says. s H + c T is worked out by lanes either way.
#pragma once
#include <device/bulk.h>
#include <device/warp.h>

#include "gemm.h"

namespace fusegen::cuda {

// What the kernel of warpgroup tiles is launched with. Of each job the maps of its operands, where bulk
// copies bring them; where the left one is the samples, theirs.
struct BulkArguments : StepArguments {
  device::TensorMap sample_maps[3], left_maps[kJobs], right_maps[kJobs];
};
static_assert(sizeof(BulkArguments) <= 32764, "a kernel's arguments");

// 128 rows of the left operand from row m of its map on, in boxes: where each begins, and the piece of the
// samples that it is of. A box of rows past the last is left out.
struct RowBoxes {
  int boxes;
  int row[2], piece[2];
  bool on_end;  // the rows of each box lie one behind the other
};
constexpr int piece_of(int row, int second, int third) { return (row >= second) + (row >= third); }
// `second`, `third`: the rows where such pieces begin.
constexpr RowBoxes boxes_of(const RowMap& rows, int m, int second, int third) {
  RowBoxes of{0, {0, 0}, {0, 0}, true};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int begin = m + device::kBox * i;
    if (begin >= rows.count) break;
    const int end = begin + device::kBox < rows.count ? begin + device::kBox : rows.count;
    const int first = rows(begin), last = rows(end - 1);
    of.row[i] = first;
    of.piece[i] = piece_of(first, second, third);
    of.on_end = of.on_end && last - first == end - 1 - begin && of.piece[i] == piece_of(last, second, third);
    ++of.boxes;
  }
  return of;
}

// The ring that bulk copies fill goes on from product to product. Of other tiles nothing.
template <class Tile, bool = Tile::kWarpgroups>
struct Bulk {
  using Arguments = StepArguments;
  FUSEGEN_DEVICE void start() const {}
  FUSEGEN_DEVICE void begin_unit() const {}
  FUSEGEN_DEVICE static void begin_phase() {}
};

template <class Tile>
struct Bulk<Tile, true> {
  using Arguments = BulkArguments;

  // Where a stage lies, and how often its barrier has been waited for, modulo 2.
  struct Place {
    int slot = 0;
    uint32_t parity = 0;
    FUSEGEN_DEVICE void advance() {
      const bool last = slot == Tile::kRing - 1;
      slot = last ? 0 : slot + 1;
      parity ^= last;
    }
  };
  device::Shared ring = device::shared_start();
  Place next;  // of the stage that is multiplied next

  FUSEGEN_DEVICE device::Shared slot(const Place& at) const { return ring + at.slot * Tile::kStageBytes; }
  // Counts the bytes of a slot.
  FUSEGEN_DEVICE device::Shared full(const Place& at) const {
    return ring + (Tile::kRing * Tile::kStageBytes + at.slot * static_cast<int>(sizeof(device::ByteBarrier)));
  }

  // Once, by all lanes, before a barrier of the block.
  FUSEGEN_DEVICE void start() const {
    if (device::thread() > 0) return;
    for (Place at; at.slot < Tile::kRing; ++at.slot) device::start(full(at));
  }
  // Before the barrier of the block behind which the ring is filled anew: sums and copies by lanes lay there.
  FUSEGEN_DEVICE void begin_unit() const {
    if constexpr (device::kHasWarpgroups) device::fence_for_products();
  }
  // Before the barrier of the grid: what this lane has written, bulk copies read.
  FUSEGEN_DEVICE static void begin_phase() { device::fence_for_bulk_copies(); }
};

// An operand: boxes that begin at `at` and `at` + 64, of rows or, across K, of numbers; or at two places.
template <bool across>
class Boxes {
public:
  static constexpr int kAcross = across;

  // `width` numbers or rows of one matrix.
  FUSEGEN_DEVICE Boxes(const device::TensorMap* map, int at, int width)
      : Boxes(map, at, map, at + device::kBox, width - at > device::kBox ? 2 : 1) {}
  FUSEGEN_DEVICE Boxes(const device::TensorMap* first, int at_first, const device::TensorMap* second,
                       int at_second, int boxes)
      : first_(first), second_(second), at_first_(at_first), at_second_(at_second), boxes_(boxes) {}

  FUSEGEN_DEVICE uint32_t bytes() const { return static_cast<uint32_t>(boxes_ * device::kBoxBytes); }

  // By one lane, before the first of them.
  FUSEGEN_DEVICE void prefetch() const {
    device::prefetch(first_);
    if (boxes_ > 1) device::prefetch(second_);
  }
  // By one lane: 64 numbers from k on.
  FUSEGEN_DEVICE void begin(device::Shared slot, device::Shared full, int k) const {
    copy(slot, first_, at_first_, k, full);
    if (boxes_ > 1) copy(slot + device::kBoxBytes, second_, at_second_, k, full);
  }

private:
  FUSEGEN_DEVICE static void copy(device::Shared to, const device::TensorMap* map, int at, int k,
                                  device::Shared full) {
    device::copy_box(to, map, across ? at : k, across ? k : at, full);
  }

  const device::TensorMap *const first_, *const second_;
  const int at_first_, at_second_, boxes_;
};

// Whether an operand is such boxes; else lanes bring it.
template <class Operand>
constexpr bool kInBoxes = false;
template <bool across>
constexpr bool kInBoxes<Boxes<across>> = true;
template <class Operand>
FUSEGEN_DEVICE uint32_t bytes_of(const Operand& operand) {
  if constexpr (kInBoxes<Operand>) return operand.bytes();
  return 0;
}

// As multiply_stage_in_warpgroups() of gemm.h, of boxes; what lanes bring lies in the same way.
template <class Format, class Tile, class A, class B>
FUSEGEN_DEVICE void multiply_boxes(Sums<Tile>& sums, device::Shared slot, int group) {
  static_assert(Tile::kM == 2 * device::kBox && Tile::kN == 2 * device::kBox);
  static_assert(Tile::kStageBytes == 4 * device::kBoxBytes);
  device::SharedMatrix a = device::matrix_of_boxes<A::kAcross>(slot + group * device::kBoxBytes),
                       b = device::matrix_of_boxes<B::kAcross>(slot + Tile::kBytesA);
  device::begin_products();
#pragma unroll
  for (int k = 0; k < device::kBox; k += 16) {
    device::warpgroup_product<A::kAcross, B::kAcross>(Format{}, sums[0], a, b);
    a = device::next_of_boxes<A::kAcross>(a);
    b = device::next_of_boxes<B::kAcross>(b);
  }
  device::end_product_group();
  device::product_groups_done<1>();
}

// As multiply_in_stages() of gemm.h, at least one operand by bulk copies.
template <class Format, class Tile, Early early, class A, class B, class Ready>
FUSEGEN_DEVICE void multiply_in_boxes(Sums<Tile>& sums, A& a, B& b, int K, Bulk<Tile>& ring,
                                      const Ready& ready) {
  using Place = typename Bulk<Tile>::Place;
  constexpr bool kLanes = !kInBoxes<A> || !kInBoxes<B>;  // bring an operand
  const int stages = (K + device::kBox - 1) / device::kBox,
            first = stages < Tile::kAhead ? stages : Tile::kAhead, warp = device::warp_of_all();
  const auto expect = [&](const Place& at) { device::arm(ring.full(at), bytes_of(a) + bytes_of(b)); };
  // By one lane.
  const auto copy_left = [&](const Place& at, int stage) {
    if constexpr (kInBoxes<A>) a.begin(ring.slot(at), ring.full(at), stage * device::kBox);
  };
  const auto copy_right = [&](const Place& at, int stage) {
    if constexpr (kInBoxes<B>) b.begin(ring.slot(at) + Tile::kBytesA, ring.full(at), stage * device::kBox);
  };
  // By all.
  const auto pointer = [&](const Place& at) { return device::shared_memory() + at.slot * Tile::kStageBytes; };
  const auto begin_lanes = [&](const Place& at) {
    if constexpr (!kInBoxes<A>) a.begin(pointer(at));
    if constexpr (!kInBoxes<B>) b.begin(pointer(at) + Tile::kBytesA);
  };
  const auto finish_lanes = [&](const Place& at) {
    if constexpr (!kInBoxes<A>) a.finish(pointer(at));
    if constexpr (!kInBoxes<B>) b.finish(pointer(at) + Tile::kBytesA);
  };

  // The late operand's maps travel while the grid waits.
  if (warp == 0 && device::elected()) {
    if constexpr (early == Early::left && kInBoxes<B>) b.prefetch();
    if constexpr (early == Early::right && kInBoxes<A>) a.prefetch();
    Place at = ring.next;
#pragma unroll 1
    for (int stage = 0; stage < first; ++stage, at.advance()) {
      expect(at);
      if constexpr (early == Early::left) {
        copy_left(at, stage);
      } else {
        copy_right(at, stage);
      }
    }
  }
  ready();
  Place ahead = ring.next;
#pragma unroll 1
  for (int stage = 0; stage < first; ++stage, ahead.advance()) {
    if (warp == 0 && device::elected()) {
      if constexpr (early == Early::left) {
        copy_right(ahead, stage);
      } else {
        copy_left(ahead, stage);
      }
    }
    begin_lanes(ahead);
    finish_lanes(ahead);
  }
#pragma unroll 1
  for (int stage = 0; stage < stages; ++stage, ring.next.advance()) {
    if constexpr (kLanes) device::fence_for_products();
    device::sync_block();
    const int later = stage + Tile::kAhead;
    if (warp == 0 && later < stages && device::elected()) {
      expect(ahead);
      copy_left(ahead, later);
      copy_right(ahead, later);
    }
    if (later < stages) begin_lanes(ahead);
    while (!device::boxes_there(ring.full(ring.next), ring.next.parity)) device::relax();
    device::sync_warp();  // products are asked for by whole warps
    multiply_boxes<Format, Tile, A, B>(sums, ring.slot(ring.next), warp / 4);
    if (later < stages) finish_lanes(ahead);
    ahead.advance();
  }
  device::product_groups_done<0>();
}

// The block's tile of A B'.
template <class Format, class Tile, Early early, class A, class B, class Ready>
FUSEGEN_DEVICE void multiply_by_bulk(Sums<Tile>& sums, A& a, B& b, int K, Bulk<Tile>& ring,
                                     const Ready& ready) {
  if constexpr (!device::kHasWarpgroups) {  // no plan takes these tiles on such a GPU
    for_each_sum<Tile::kTilesM, Tile::kTilesN>(
        [&](int m, int n, int i) { sums[m][n][i] = device::not_a_number(); });
    ready();
  } else {
    set_zero(sums);
    multiply_in_boxes<Format, Tile, early>(sums, a, b, K, ring, ready);
  }
}

}  // namespace fusegen::cuda
