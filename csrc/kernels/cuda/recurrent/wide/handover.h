// How the blocks of a group hand each other h, through L2. A turn is one hand-over: turn s is h_{s-1}, which
// step s multiplies. There are two copies of each slice's rows in global memory, and a flag a block.
//
// Behind the block barrier that follows its words a block stores its flag with release, which is cumulative
// over what the barrier has ordered. Each warp acquires all flags before it asks for what it copies. A block
// overwrites turn s-1's copy when it gives turn s+1, hence behind its own wait for all flags of turn s, which
// the others gave after they had copied and multiplied turn s-1.
//
// Where a group has several slices, the next one's h has been given in an earlier beat: it is asked for as
// soon as all warps have multiplied this one's, and is on its way while these do their maths. Nobody waits
// there for what depends on this beat: a beat's h is given before the next beat is multiplied.
#pragma once
#include <device/copy.h>
#include <device/exchange.h>
#include <device/warp.h>

#include "../../watchdog.h"
#include "arguments.h"

namespace fusegen::cuda::wide {

template <class S, int KSplits, int N>
class Handover {
public:
  FUSEGEN_DEVICE Handover(const Arguments& a, int rank, int group, int direction)
      : a_(a),
        watchdog_(a.pass, reinterpret_cast<volatile int*>(device::shared_memory() + a.shared.stop),
                  {direction, group, rank, kAnyBlock, 0}),
        flag_stride_(flag_stride(a.blocks)),
        slot_(static_cast<int64_t>(direction * a.groups + group) * a.slices),
        rank_(rank),
        row_bytes_(a.exchange.row_bytes) {}

  // Before the first turn. A block barrier must follow.
  FUSEGEN_DEVICE void begin() const {
    for (int i = 16 * device::thread(); i < a_.shared.sums; i += 16 * device::kThreads)
      device::store16(device::shared_memory() + i, {0, 0, 0, 0});  // columns that nobody gives
    if (device::thread() == 0) *reinterpret_cast<volatile int*>(device::shared_memory() + a_.shared.stop) = 0;
    // Flags of no block stand for turns that are over. They are seen at the latest with the block's first.
    if (rank_ == 0 && device::thread() < flag_stride_ - a_.blocks)
      for (int slice = 0; slice < a_.slices; ++slice)
        device::store_relaxed(flags(slice) + a_.blocks + device::thread(), ~0u);
  }

  // Waits for a turn of a slice and asks for it, a group of copies a stage. By all lanes of the block, behind
  // a barrier that all passed after they had multiplied what was there. After a wait in vain, stopped() is
  // true behind the next block barrier.
  FUSEGEN_DEVICE void fetch(int slice, int turn) const {
    const bool lost = watch(slice, turn);
    const unsigned char* from =
        a_.exchange.rows + (turn & 1) * a_.exchange.parity + (slot_ + slice) * N * row_bytes_;
    // A warp copies 128 bytes of four rows, a whole line of each; every eight lanes store to different banks.
    const int first_stage = KSplits == 2 ? device::thread() / 128 * a_.stages : 0,
              me = device::thread() % kCopiers, word = me % 4, panel = me / 8 % 2,
              row = me / 16 * 2 + me / 4 % 2;
    unsigned char* const to = device::shared_memory() + first_stage * kStageBytes + panel * kPanelBytes +
                              row * 64 + (word ^ row / 2 % 4) * 16;
    const int column = first_stage * kStage * 2 + panel * 64 + word * 16;  // bytes of a row
    from += row * row_bytes_ + column;
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      if (stage < a_.stages && !lost) {
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
          const int rows = i * kRowsAtOnce % N, panels = i * kRowsAtOnce / N * 2,
                    columns = stage * kStage * 2 + panels * 64;
          if (column + columns < row_bytes_)
            device::copy16_async(to + stage * kStageBytes + panels * kPanelBytes + rows * 64,
                                 from + rows * row_bytes_ + columns);
        }
      }
      device::end_copy_group();
    }
  }

  // The numbers that the lane has made of neighbouring units, in a row of the slice; to be published.
  template <class Numbers>
  FUSEGEN_DEVICE void give(const Numbers& numbers, int slice, int turn, int row, int unit) const {
    *reinterpret_cast<Numbers*>(a_.exchange.rows + (turn & 1) * a_.exchange.parity +
                                ((slot_ + slice) * N + row) * row_bytes_ + 2 * unit) = numbers;
  }
  // By one lane, behind a block barrier that follows all that the block gives in a turn.
  FUSEGEN_DEVICE void publish(int slice, int turn) const {
    device::store_release(flags(slice) + rank_, static_cast<uint32_t>(turn + 1));
  }

  // Whether the wait for this turn or one before it was in vain; behind a block barrier that follows it.
  FUSEGEN_DEVICE bool stopped(int slice, int turn) const { return watchdog_.stopped_by(mark(slice, turn)); }

private:
  // Panels are 32 numbers of all rows: device/warpgroup.h's rows along K.
  static constexpr int kPanelBytes = 64 * N, kStageBytes = 2 * kStage * N,
                       kCopiers = device::kThreads / KSplits, kRowsAtOnce = kCopiers / 8,
                       kCopies = kStageBytes / 16 / kCopiers;

  // A lane at four flags. True in all lanes of a warp where the wait is in vain.
  FUSEGEN_DEVICE bool watch(int slice, int turn) const {
    const int first = 4 * device::lane();
    uint64_t started = 0;
    for (uint32_t looks = 1;; ++looks) {
      uint32_t least = ~0u;
      int late = 0;
      if (first < a_.blocks) {
        const device::Word4 f = device::load_acquire16(flags(slice) + first);
        const uint32_t over = static_cast<uint32_t>(turn), one = f.x < f.y ? f.x : f.y,
                       two = f.z < f.w ? f.z : f.w;
        least = one < two ? one : two;
        late = f.x <= over ? 0 : f.y <= over ? 1 : f.z <= over ? 2 : 3;
      }
      const bool ready = least > static_cast<uint32_t>(turn);
      if (device::all_of_warp(ready)) break;
      if (device::any_of_warp(!ready &&
                              watchdog_.give_up(looks, started, turn, first + late, mark(slice, turn))))
        return true;
    }
    device::sync_warp();  // what some lanes have acquired, all read
    return false;
  }

  // The earlier the beat, the greater.
  FUSEGEN_DEVICE int mark(int slice, int turn) const { return INT32_MAX - (turn * a_.slices + slice); }
  FUSEGEN_DEVICE uint32_t* flags(int slice) const {
    return a_.exchange.flags + (slot_ + slice) * flag_stride_;
  }

  const Arguments& a_;
  const Watchdog watchdog_;
  const int flag_stride_;
  const int64_t slot_;
  const int rank_, row_bytes_;
};

}  // namespace fusegen::cuda::wide
