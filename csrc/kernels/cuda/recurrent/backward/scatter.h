// The reduce-scatter of a group: every block has multiplied sums for all units of the layer, and the owner of
// a unit adds up those of all ranks, in their order, so that the result does not depend on who comes first.
//
// Reckoning, for a step of one block with U of H units and 8 rows, G gates, e bytes a number: it sends and
// gets 32 H bytes of float32 and adds 8 H floats. Gathering the gradients instead costs it 8 G e H bytes each
// way: of LSTM twice as much in 16 bits and four times in 32, of GRU 1.5 and 3 times, of RNN half and as
// much. Sends of a lane: H / 128, straight from its sums, where a gather sends what a lane has to each of H /
// U peers, through shared memory. RNN's gather would save 16 H bytes: 8 KB at H 512, where four blocks are
// enough, about 0.1 us of a cluster's traffic at 64 bytes a cycle; but each block would have to read all of
// the gathered rows from shared memory for its product, 8 warps x 8 H e bytes (64 KB), where it now reads U
// of them. One way for all. Through L2 a step of H 1024 moves as many bytes either way (LSTM, 64 blocks: 32
// KB out and in, against 1 and 64); the release then waits for 32 KB of stores, and the reads are half.
//
// A turn is one hand-over: what is multiplied after step `turn` and added up in the next step. Two copies are
// enough: who sends for turn i+1 has the sums of all of turn i; and an owner sends its part of turn i to
// everyone, itself included, only after all its lanes have read turn i-1 and met at the block barrier behind
// the stage. So nobody overwrites turn i-1 while it is read.
#pragma once
#include <device/copy.h>
#include <device/exchange.h>

#include "../../sums.h"
#include "../../watchdog.h"
#include "arguments.h"

namespace fusegen::cuda {

// Which block this is: `rank` of a group.
struct BlockPlace {
  int rank, group, direction;
};

FUSEGEN_DEVICE BlockPlace block_place(int blocks, int groups) {
  const int block = device::block();
  return {block % blocks, block / blocks % groups, block / (blocks * groups)};
}

template <class S, int NT>
class Scatter {
public:
  static constexpr int kPart = 4 * S::part_floats(NT);  // bytes

  FUSEGEN_DEVICE Scatter(const BackwardArguments& a, const BlockPlace& me)
      : a_(a),
        me_(me),
        watchdog_(a.pass, reinterpret_cast<volatile int*>(device::shared_memory() + a.shared.barriers),
                  {me.direction, me.group, me.rank, kAnyBlock, 0}),
        first_owner_(device::warp() * S::kTiles * 16 / S::kUnits +
                     (S::kUnits < 16 ? device::lane() / 16 : 0)) {}

  // Before the first turn, by all lanes; ends with a barrier of all.
  FUSEGEN_DEVICE void begin() {
    const bool clustered = by(Transport::cluster);
    unsigned char* shared = device::shared_memory();
    if (device::thread() == 0) {
      *reinterpret_cast<volatile int*>(shared + a_.shared.barriers) = 0;
      if (clustered && !device::has_clusters()) watchdog_.stop(kNoClusters);
    }
    // places of ranks that are not there, and of gradients that no unit has
    for (int i = a_.shared.partials + 16 * device::thread(); i < a_.shared.state; i += 16 * device::kThreads)
      device::store16(shared + i, {0, 0, 0, 0});
    if (clustered && device::thread() == 0)
      for (int i = 0; i < 2 * a_.slices; ++i) {
        device::start(barrier(i));
        device::arm(barrier(i), bytes_of_turn());
      }
    const int word = me_.rank * kPart + S::word_at(0, device::warp() * S::kTiles, device::lane());
    if (clustered) {
      device::cluster_sync();
#pragma unroll
      for (int i = 0; i < kOwners; ++i) {
        const int owner = first_owner_ + i * kStep < a_.blocks ? first_owner_ + i * kStep : me_.rank;
        to_[i] = device::remote(shared + a_.shared.partials + word, owner);
        on_[i] = device::remote(barrier(0), owner);
      }
    } else {
      device::sync_block();
      from_ = static_cast<int64_t>(first_owner_) * a_.blocks * kPart + word;
    }
  }

  // What the ranks have sent to this block in a turn: their parts, one after another, in shared memory. By
  // all lanes; ends with everybody able to read them. After a wait in vain, stopped() is true behind the next
  // block barrier.
  FUSEGEN_DEVICE const float* wait(int slice, int turn) {
    const int buffer = by(Transport::cluster) ? 2 * slice + (turn & 1) : 0;
    const bool here = by(Transport::block) || watch(slice, turn);
    if (by(Transport::cluster)) {
      if (device::thread() == 0 && here) device::arm(barrier(buffer), bytes_of_turn());  // for turn + 2
      return partials(buffer * a_.shared.buffer);
    }
    if (by(Transport::l2)) {
      device::sync_block();
      const unsigned char* from =
          a_.partials + (turn & 1) * a_.parity +
          (static_cast<int64_t>(slot(slice)) * a_.blocks + me_.rank) * a_.blocks * kPart;
      unsigned char* to = device::shared_memory() + a_.shared.partials;
      for (int i = 16 * device::thread(); i < a_.blocks * kPart; i += 16 * device::kThreads)
        device::copy16_async(to + i, from + i);
      device::copies_done();
    }
    device::sync_block();
    return partials(by(Transport::block) ? slice * a_.shared.buffer : 0);
  }

  // Gives the owners what this warp has multiplied for them: tiles `first`.. of its own.
  template <int kCount>
  FUSEGEN_DEVICE void send(const float (&sums)[kCount][NT][4], int first, int slice, int turn) const {
    const int buffer = 2 * slice + (turn & 1);
    if (by(Transport::cluster)) {
      const int offset = buffer * a_.shared.buffer;
      each_word(sums, first, [&](int i, int within, device::Word4 v) {
        device::send16(to_[i] + (offset + within), on_[i] + 8 * buffer, v);
      });
    } else if (by(Transport::block)) {
      unsigned char* to = device::shared_memory() + a_.shared.partials + slice * a_.shared.buffer + from_;
      each_word(sums, first, [&](int, int within, device::Word4 v) { device::store16(to + within, v); });
    } else {
      unsigned char* to = a_.partials + (turn & 1) * a_.parity +
                          static_cast<int64_t>(slot(slice)) * a_.blocks * a_.blocks * kPart + from_;
      const int64_t owner = static_cast<int64_t>(a_.blocks) * kPart * kStep;
      each_word(sums, first,
                [&](int i, int within, device::Word4 v) { device::store16(to + i * owner + within, v); });
    }
  }
  // After all that a block sends in a turn, by all lanes.
  FUSEGEN_DEVICE void all_sent(int slice, int turn) const {
    if (!by(Transport::l2)) return;
    device::sync_block();
    if (device::thread() == 0)
      device::store_release(flags(slice) + me_.rank, static_cast<uint32_t>(turn + 1));
  }

  // Whether the wait for a slice's turn, or one before it, was in vain. Behind a block barrier that follows
  // it; turn -1 is before all.
  FUSEGEN_DEVICE bool stopped(int slice, int turn) const { return watchdog_.stopped_by(mark(slice, turn)); }

  // After the last turn, by all lanes: a block must not go while others may still send to it.
  FUSEGEN_DEVICE void end() {
    if (by(Transport::cluster)) device::cluster_sync();
  }

private:
  // Of a lane's words, every kStep-th from first_owner_ on: two share a tile where they have 8 units each.
  static constexpr int kStep = S::kUnits < 16 ? 2 : 1;
  static constexpr int kOwners = ceil_div(S::kTiles, S::kOwnTiles);

  // each(i of kOwners, bytes from the lane's first place in that owner's part, word)
  template <int kCount, class Each>
  FUSEGEN_DEVICE void each_word(const float (&sums)[kCount][NT][4], int first, const Each& each) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int tile = first + i;
      const int owner = tile / S::kOwnTiles;
      if (first_owner_ + owner * kStep >= a_.blocks) continue;
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        const float (&d)[4] = sums[i][n];
        each(owner, S::word_at(n, tile % S::kOwnTiles, 0),
             {device::as_bits(d[0]), device::as_bits(d[1]), device::as_bits(d[2]), device::as_bits(d[3])});
      }
    }
  }

  // Until all ranks have sent their parts of a turn; false where one has not for too long. In a cluster every
  // lane looks at the bytes that have come; through L2 those of the first warp at four flags each: there are
  // 128 at most.
  FUSEGEN_DEVICE bool watch(int slice, int turn) const {
    static_assert(S::kMostBlocks <= 128);
    const int first = 4 * device::thread();  // flag
    if (by(Transport::l2) && first >= a_.blocks) return true;
    uint64_t started = 0;
    for (uint32_t looks = 1;; ++looks) {
      int awaited = kAnyBlock;
      if (by(Transport::cluster)) {
        if (device::phase_over(barrier(2 * slice + (turn & 1)), (turn >> 1) & 1)) return true;
      } else {
        const device::Word4 v = device::load_acquire16(flags(slice) + first);
        // all looked at: branches would take more than they save
        const auto here = [&](uint32_t flag, int i) {
          return (flag > static_cast<uint32_t>(turn)) | (first + i >= a_.blocks);
        };
        const bool one = here(v.x, 0), two = one & here(v.y, 1), three = two & here(v.z, 2);
        if (three & here(v.w, 3)) return true;
        awaited = first + one + two + three;
      }
      if (watchdog_.give_up(looks, started, turn, awaited, mark(slice, turn))) return false;
    }
  }

  // The earlier the wait, the greater.
  FUSEGEN_DEVICE int mark(int slice, int turn) const { return INT32_MAX - ((turn + 1) * a_.slices + slice); }
  // Known when compiled where a shape is of one block alone.
  FUSEGEN_DEVICE bool by(Transport transport) const {
    return S::kMostBlocks == 1 ? transport == Transport::block : a_.transport == transport;
  }
  FUSEGEN_DEVICE int slot(int slice) const {
    return (me_.direction * a_.groups + me_.group) * a_.slices + slice;
  }
  FUSEGEN_DEVICE uint32_t* flags(int slice) const {
    return a_.flags + static_cast<int64_t>(slot(slice)) * flag_stride(a_.blocks);
  }
  FUSEGEN_DEVICE const float* partials(int offset) const {
    return reinterpret_cast<const float*>(device::shared_memory() + a_.shared.partials + offset);
  }
  FUSEGEN_DEVICE device::ByteBarrier* barrier(int i) const {
    return reinterpret_cast<device::ByteBarrier*>(device::shared_memory() + a_.shared.barriers) + 1 + i;
  }
  FUSEGEN_DEVICE uint32_t bytes_of_turn() const { return static_cast<uint32_t>(a_.blocks * kPart); }

  const BackwardArguments& a_;
  const BlockPlace& me_;
  const Watchdog watchdog_;
  const int first_owner_;
  device::Remote to_[kOwners], on_[kOwners];
  int64_t from_ = 0;
};

}  // namespace fusegen::cuda
