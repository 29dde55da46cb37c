// How the blocks of a group hand each other h. A turn is one hand-over: turn s is h_{s-1}, which step s
// multiplies. Each warp that finishes units gives its words (share.h), each block gets those of all.
//
// Inside a cluster, words go into each block's shared memory and count bytes on a barrier there, one barrier
// for each of two buffers of a slice. No block waits for another but by these bytes, and two buffers are
// enough:
//   a. A warp gives words of turn s+1 only when all warps of its block have read turn s. With one warp for
//      each unit group, a warp's own read comes before what it gives, and all warps give; with several, the
//      block barrier at which they add up lies between all reads and whatever is given.
//   b. Turn s+2 goes where turn s was, and a warp gives it behind its wait for all bytes of turn s+1, hence
//      behind those that the warps of (a) gave after they had read turn s.
//   c. So a barrier's phase of turn s+2 cannot end while a warp still waits for turn s: that warp has not
//   given
//      what (b) waits for. Parity tells the two apart.
//   d. The barrier is armed for turn s+2 by one thread behind its own wait for turn s. Bytes may come first:
//      a phase does not end before it is armed, and the count may be below zero meanwhile.
//   e. Nothing is given at the last step, so all that was sent has been waited for when the blocks part, each
//      behind a barrier of the cluster.
//
// Through L2, words go to one of two copies in global memory, and a flag of the block tells the turn. Behind
// the block barrier that follows the words one lane stores the flag with release, which is cumulative over
// what the barrier has ordered: the words of all warps, and their reads of turn s. A warp that fetches
// columns acquires the flags of the blocks that gave them, and a block goes on (to overwrite turn s-1's copy,
// or its own buffer) behind a barrier of all its warps; the eighths together are all blocks.
//
// In a block of its own, words go into the other of two buffers, and a block barrier follows.
#pragma once
#include <device/copy.h>
#include <device/exchange.h>
#include <device/warp.h>

#include "../../watchdog.h"
#include "share.h"

namespace fusegen::cuda {

// What the ways have in common: where things lie, and the watchdog.
template <class T, int NT>
class HandoverBase {
public:
  static constexpr int kRows = 8 * NT;

  // Whether a wait has been given up at this beat or before. Beats are counted over slices and steps: one
  // warp may look while another is in the next beat's wait already, and all must decide alike.
  FUSEGEN_DEVICE bool stopped(int slice, int step) const {
    return device::load<int>(stop()) >= mark(slice, step);
  }

protected:
  FUSEGEN_DEVICE HandoverBase(const Arguments<ForwardPass>& a, const Self& me, const Share& share)
      : a_(a), me_(me), share_(share), column_(share.word_unit * static_cast<int>(sizeof(T))) {}

  FUSEGEN_DEVICE device::Shared stop() const { return share_.memory + a_.geometry.shared.barriers; }
  FUSEGEN_DEVICE void zero_buffers(int buffers) const {  // columns that nobody gives must be zero
    const int bytes = buffers * a_.geometry.shared.gathered_size;
    for (int i = 16 * device::thread(); i < bytes; i += 16 * device::kThreads)
      device::store16(share_.memory + a_.geometry.shared.gathered + i, device::Word4{0, 0, 0, 0});
  }
  // The earlier the beat, the greater; the word is 0 at first.
  FUSEGEN_DEVICE int mark(int slice, int turn) const {
    return INT32_MAX - (turn * a_.geometry.slices + slice);
  }
  FUSEGEN_DEVICE Watchdog watchdog() const {
    auto* const word = reinterpret_cast<volatile int*>(device::shared_memory() + a_.geometry.shared.barriers);
    return {a_.pass, word, {me_.direction, me_.group, me_.rank, kAnyBlock, 0}};
  }

  const Arguments<ForwardPass>& a_;
  const Self& me_;
  const Share& share_;
  const int column_;  // of the lane's word in a row that all have given
};

template <class C, class T, class Format, int NT, bool l2>
class Handover;

// In a cluster, or in a block of its own.
template <class C, class T, class Format, int NT>
class Handover<C, T, Format, NT, false> : public HandoverBase<T, NT> {
  using Base = HandoverBase<T, NT>;
  using Base::a_, Base::me_, Base::share_, Base::stop;

public:
  FUSEGEN_DEVICE Handover(const Arguments<ForwardPass>& a, const Self& me, const Share& share)
      : Base(a, me, share),
        cluster_(a.geometry.transport == Transport::cluster),
        stride_(gathered_stride(a.exchange.row_bytes)),
        word_at_(held<C, Format>(a.geometry.shared.gathered + share.word_row * stride_ + Base::column_)) {}

  // Before the first turn, by all lanes; all of the block's shared memory is ready behind it. False: this
  // code knows no clusters.
  FUSEGEN_DEVICE bool begin() const {
    if (cluster_ && !device::has_clusters()) {
      if (device::thread() == 0) Base::watchdog().stop(kNoClusters);
      return false;
    }
    Base::zero_buffers(2 * a_.geometry.slices);
    if (device::thread() == 0) {
      device::store(stop(), 0);
      for (int i = 0; cluster_ && i < 2 * a_.geometry.slices; ++i) {
        device::start(reinterpret_cast<device::ByteBarrier*>(device::shared_memory() + barrier_at(i)));
        device::arm(share_.memory + barrier_at(i), bytes_of_turn());
      }
    }
    if (cluster_) {
      device::cluster_sync();
    } else {
      device::sync_block();
    }
    return true;
  }

  FUSEGEN_DEVICE int stride() const { return stride_; }
  // Where the rows [8*NT][stride] of a turn begin in shared memory, behind those of the first.
  FUSEGEN_DEVICE int rows(int slice, int turn) const {
    return (2 * slice + (turn & 1)) * a_.geometry.shared.gathered_size;
  }

  // By all lanes of a warp; true in all of them where the wait was in vain. What does not depend on it should
  // be under way before.
  FUSEGEN_DEVICE bool wait(int slice, int turn) const {
    if (!cluster_) return false;  // the turn ended with a barrier
    const device::Shared b = share_.memory + barrier_at(2 * slice + (turn & 1));
    uint64_t started = 0;
    bool lost = false;
    for (uint32_t looks = 1; !lost && !device::phase_over(b, (turn >> 1) & 1); ++looks)
      lost = Base::watchdog().give_up(looks, started, turn, kAnyBlock, Base::mark(slice, turn));
    lost = device::any_of_warp(lost);
    if (share_.thread == 0 && !lost) device::arm(b, bytes_of_turn());  // for turn + 2
    return lost;
  }

  // The lane's word of a turn, unless it is not `wanted`; by all lanes of the block.
  FUSEGEN_DEVICE void give(const device::Word4& word, int slice, int turn, bool wanted) const {
    const int buffer = 2 * slice + (turn & 1), to = word_at_ + buffer * a_.geometry.shared.gathered_size;
    if (!cluster_) {
      if (share_.finishes && share_.part == 0) device::store16(share_.memory + to, word);
      device::sync_block();
      return;
    }
    if (!wanted || !share_.finishes) return;
    const int on = barrier_at(buffer);
    // Each block begins with itself, so that they do not all send to the same one at once.
    for (int i = share_.part; i < a_.geometry.blocks; i += share_.parts) {
      const device::Remote there = device::remote(share_.memory, i ^ me_.rank);
      device::send16(there + to, there + on, word);
    }
  }

  // After the last turn, by all lanes: a block must not go while others may still send to it.
  FUSEGEN_DEVICE void end() const {
    if (cluster_) device::cluster_sync();
  }

private:
  FUSEGEN_DEVICE int barrier_at(int i) const { return a_.geometry.shared.barriers + 8 + 8 * i; }
  // Every block of the cluster sends its part of every row.
  FUSEGEN_DEVICE uint32_t bytes_of_turn() const {
    return static_cast<uint32_t>(Base::kRows * a_.geometry.blocks * a_.geometry.own_bytes_of_row);
  }

  const bool cluster_;
  const int stride_, word_at_;
};

// Through L2. A warp fetches an eighth of the columns, of all rows, and looks at the flags of the blocks that
// gave them: a lane at four.
template <class C, class T, class Format, int NT>
class Handover<C, T, Format, NT, true> : public HandoverBase<T, NT> {
  using Base = HandoverBase<T, NT>;
  using Base::a_, Base::me_, Base::share_, Base::stop, Base::kRows;

public:
  FUSEGEN_DEVICE Handover(const Arguments<ForwardPass>& a, const Self& me, const Share& share)
      : Base(a, me, share), stride_(gathered_stride(a.exchange.row_bytes)) {
    const Exchange& x = a.exchange;
    const int columns = x.row_bytes / 16, eighth = ceil_div(columns, device::kWarps),
              first = device::warp() * eighth, end = first + eighth < columns ? first + eighth : columns;
    const int row = device::lane() % 8, column = first + device::lane() / 8;
    fetches_ = column < end ? (end - column + 3) / 4 : 0;
    from_ = x.rows + slot() * kRows * x.row_bytes + row * x.row_bytes + 16 * column;
    to_ = share.memory + a.geometry.shared.gathered + row * stride_ + 16 * column;

    const int own = a.geometry.own_bytes_of_row / 16, blocks = a.geometry.blocks;
    const int last_block = (end - 1) / own < blocks - 1 ? (end - 1) / own : blocks - 1;
    const int four = first / own / 4 + device::lane();
    looks_ = first < end && 4 * four <= last_block;
    first_flag_ = static_cast<int>(slot()) * flag_stride(blocks) + 4 * four;
    give_ = static_cast<uint32_t>((slot() * kRows + share.word_row) * x.row_bytes + Base::column_);
    own_flag_ = static_cast<int>(slot()) * flag_stride(blocks) + me.rank;
  }

  FUSEGEN_DEVICE bool begin() const {
    Base::zero_buffers(1);
    if (device::thread() == 0) device::store(stop(), 0);
    // Flags of no block stand for turns that are over. They are seen at the latest with the block's first.
    const int blocks = a_.geometry.blocks, stride = flag_stride(blocks);
    if (me_.rank == 0 && device::thread() < stride - blocks)
      for (int slice = 0; slice < a_.geometry.slices; ++slice)
        device::store_relaxed(a_.exchange.flags + (own_flag_ + slice * stride + blocks + device::thread()),
                              ~0u);
    device::sync_block();
    return true;
  }

  FUSEGEN_DEVICE int stride() const { return stride_; }
  FUSEGEN_DEVICE int rows(int, int) const { return 0; }

  // By all lanes of the block; true in all of them where a wait was in vain. `meanwhile` asks for copies that
  // may take longer than this turn's: by then, all but its last group are there.
  template <class Meanwhile>
  FUSEGEN_DEVICE bool wait(int slice, int turn, const Meanwhile& meanwhile) const {
    const uint32_t* const flags = a_.exchange.flags + (first_flag_ + slice * flag_stride(a_.geometry.blocks));
    uint64_t started = 0;
    bool lost = false;
    for (uint32_t looks = 1; !lost; ++looks) {
      device::Word4 f{~0u, ~0u, ~0u, ~0u};
      if (looks_) f = device::load_acquire16(flags);
      const uint32_t first = f.x < f.y ? f.x : f.y, second = f.z < f.w ? f.z : f.w;
      const bool ready = (first < second ? first : second) > static_cast<uint32_t>(turn);
      if (device::all_of_warp(ready)) break;
      lost = device::any_of_warp(!ready && give_up(f, looks, started, slice, turn));
    }
    device::sync_warp();  // what some lanes have acquired, all read
    const unsigned char* from =
        from_ + (turn & 1) * a_.exchange.parity + slice * static_cast<int64_t>(kRows * a_.exchange.row_bytes);
#pragma unroll
    for (int n = 0; n < NT; ++n)
#pragma unroll 4
      for (int i = 0; i < fetches_; ++i)
        device::copy16_async(to_ + n * 8 * stride_ + 64 * i, from + n * 8 * a_.exchange.row_bytes + 64 * i);
    device::end_copy_group();
    meanwhile();
    device::copy_groups_done<1>();
    device::sync_block();
    return Base::stopped(slice, turn);
  }

  FUSEGEN_DEVICE void give(const device::Word4& word, int slice, int turn, bool wanted) const {
    if (wanted && share_.finishes && share_.part == 0)
      device::store16(a_.exchange.rows + give_ + (turn & 1) * a_.exchange.parity +
                          slice * static_cast<int64_t>(kRows * a_.exchange.row_bytes),
                      word);
    device::sync_block();
    // By a lane of a warp that has least to do next.
    if (wanted && share_.thread == device::kThreads - 32)
      device::store_release(a_.exchange.flags + (own_flag_ + slice * flag_stride(a_.geometry.blocks)),
                            static_cast<uint32_t>(turn + 1));
  }

  FUSEGEN_DEVICE void end() const {}

private:
  // Of the first of four flags that is late.
  FUSEGEN_DEVICE bool give_up(const device::Word4& f, uint32_t looks, uint64_t& started, int slice,
                              int turn) const {
    const uint32_t over = static_cast<uint32_t>(turn);
    const int four = first_flag_ - static_cast<int>(slot()) * flag_stride(a_.geometry.blocks),
              late = f.x <= over   ? 0
                     : f.y <= over ? 1
                     : f.z <= over ? 2
                                   : 3;
    return Base::watchdog().give_up(looks, started, turn, four + late, Base::mark(slice, turn));
  }
  FUSEGEN_DEVICE int64_t slot() const {
    return static_cast<int64_t>(me_.direction * a_.geometry.groups + me_.group) * a_.geometry.slices;
  }

  const int stride_;
  int fetches_;
  device::Shared to_;
  const unsigned char* from_;
  bool looks_;
  uint32_t give_;              // where its word goes, in bytes
  int first_flag_, own_flag_;  // of the four that the lane looks at, and of this block
};

}  // namespace fusegen::cuda
