// How the blocks of a group exchange what each has worked out. A turn is one hand-over: every block publishes
// its numbers, and each gets those of all. Two copies are enough: a block publishes turn i+1 only after it
// has all of turn i, which a peer sends after it has read turn i-1; so nobody overwrites turn i-1 while it is
// read.
#pragma once
#include <device/copy.h>
#include <device/exchange.h>

#include "../watchdog.h"
#include "resident.h"

namespace fusegen::cuda {

template <int NT>
class Wire {
public:
  static constexpr int kRows = 8 * NT;

  FUSEGEN_DEVICE Wire(const Exchange& exchange, const Geometry& geometry, const Self& me,
                      const Recurrence& pass)
      : x_(exchange),
        geometry_(geometry),
        me_(me),
        shared_(device::shared_memory()),
        watchdog_(pass, stop(), {me.direction, me.group, me.rank, kAnyBlock, 0}) {}

  // Before the first turn, by all lanes.
  FUSEGEN_DEVICE void begin() {
    if (device::thread() == 0) {
      *stop() = 0;
      if (geometry_.transport == Transport::cluster && !device::has_clusters()) watchdog_.stop(kNoClusters);
    }
    if (inside()) {  // columns that nobody publishes must be zero
      const int words = 2 * geometry_.slices * geometry_.shared.gathered_size / 16;
      for (int i = device::thread(); i < words; i += device::kThreads)
        device::store16(shared_ + geometry_.shared.gathered + 16 * i, {0, 0, 0, 0});
    }
    if (geometry_.transport == Transport::cluster && device::thread() == 0) {
      for (int slice = 0; slice < geometry_.slices; ++slice)
        for (int turn = 0; turn < 2; ++turn) {
          device::start(barrier(slice, turn));
          device::arm(barrier(slice, turn), bytes_of_turn());
        }
    }
    if (geometry_.transport == Transport::cluster) {
      device::cluster_sync();
    } else {
      device::sync_block();
    }
  }

  // Bytes between the rows that wait() gives.
  FUSEGEN_DEVICE int stride() const {
    return geometry_.transport == Transport::launch ? x_.gather_bytes : gathered_stride(x_.gather_bytes);
  }

  // The rows [8*NT][stride] of a turn: in shared memory, or with a launch a step where the launch before left
  // them. By all lanes; ends with everybody able to read them. After a wait in vain, stopped() is true behind
  // the next block barrier.
  FUSEGEN_DEVICE const unsigned char* wait(int slice, int turn) {
    unsigned char* rows = buffer(slice, turn);
    if (geometry_.transport == Transport::cluster) {
      uint64_t started = 0;
      for (uint32_t looks = 1; !device::phase_over(barrier(slice, turn), (turn >> 1) & 1); ++looks)
        if (watchdog_.give_up(looks, started, turn, kAnyBlock)) return rows;
      if (device::thread() == 0) device::arm(barrier(slice, turn), bytes_of_turn());  // for turn + 2
      return rows;
    }
    if (geometry_.transport == Transport::block) return rows;  // publish() ended with a barrier
    const unsigned char* from = x_.gather + (turn & 1) * x_.gather_parity +
                                static_cast<int64_t>(slot(slice)) * kRows * x_.gather_bytes;
    if (geometry_.transport == Transport::launch) return from;
    if (device::warp() == 0) {
      const uint32_t* flags = x_.flags + static_cast<int64_t>(slot(slice)) * flag_stride(geometry_.blocks);
      for (int rank = device::lane(); rank < geometry_.blocks; rank += 32) {
        uint64_t started = 0;
        for (uint32_t looks = 1; device::load_acquire(flags + rank) < static_cast<uint32_t>(turn + 1);
             ++looks)
          if (watchdog_.give_up(looks, started, turn, rank)) break;
      }
    }
    device::sync_block();
    const int words = x_.gather_bytes / 16;
    for (int i = device::thread(); i < kRows * words; i += device::kThreads)
      device::copy16_async(rows + i / words * stride() + i % words * 16, from + 16 * static_cast<int64_t>(i));
    device::copies_done();
    device::sync_block();
    return rows;
  }

  // Gives the group this block's numbers: `stage` in shared memory, [8*NT][segments][units of the block]. By
  // all lanes, after a block barrier behind the writes of `stage`.
  FUSEGEN_DEVICE void publish(int slice, int turn, int segments, int segment_bytes, int own_bytes) {
    const unsigned char* stage = shared_ + geometry_.shared.stage;
    const int words = own_bytes / 16, per_row = segments * words, all = kRows * per_row;
    const int peers = geometry_.transport == Transport::cluster ? geometry_.blocks : 1;
    for (int i = device::thread(); i < all * peers; i += device::kThreads) {
      const int peer = i / all, word = i % all, row = word / per_row, segment = word % per_row / words,
                at = word % words;
      const device::Word4 v = device::load16(stage + 16 * word);
      const int column = segment * segment_bytes + me_.rank * own_bytes + 16 * at;
      if (inside()) {
        unsigned char* to = buffer(slice, turn) + row * stride() + column;
        if (geometry_.transport == Transport::cluster) {
          device::send16(to, barrier(slice, turn), peer, v);
        } else {
          device::store16(to, v);
        }
      } else {
        device::store16(x_.publish + (turn & 1) * x_.publish_parity +
                            (static_cast<int64_t>(slot(slice)) * kRows + row) * x_.publish_bytes + column,
                        v);
      }
    }
    if (geometry_.transport == Transport::cluster || geometry_.transport == Transport::launch) return;
    device::sync_block();
    if (geometry_.transport == Transport::l2 && device::thread() == 0)
      device::store_release(
          x_.flags + static_cast<int64_t>(slot(slice)) * flag_stride(geometry_.blocks) + me_.rank,
          static_cast<uint32_t>(turn + 1));
  }

  FUSEGEN_DEVICE bool stopped() const { return watchdog_.stopped(); }

  // After the last turn, by all lanes: a block must not go while others may still send to it.
  FUSEGEN_DEVICE void end() {
    if (geometry_.transport == Transport::cluster) device::cluster_sync();
  }

private:
  FUSEGEN_DEVICE bool inside() const {
    return geometry_.transport == Transport::cluster || geometry_.transport == Transport::block;
  }
  FUSEGEN_DEVICE int slot(int slice) const {
    return (me_.direction * geometry_.groups + me_.group) * geometry_.slices + slice;
  }
  FUSEGEN_DEVICE unsigned char* buffer(int slice, int turn) const {
    return shared_ + geometry_.shared.gathered +
           (inside() ? (2 * slice + (turn & 1)) * geometry_.shared.gathered_size : 0);
  }
  FUSEGEN_DEVICE device::ByteBarrier* barrier(int slice, int turn) const {
    return reinterpret_cast<device::ByteBarrier*>(shared_ + geometry_.shared.barriers) + 1 + 2 * slice +
           (turn & 1);
  }
  FUSEGEN_DEVICE volatile int* stop() const {
    return reinterpret_cast<volatile int*>(shared_ + geometry_.shared.barriers);
  }
  // Every block of the cluster sends its part of every row.
  FUSEGEN_DEVICE uint32_t bytes_of_turn() const {
    return static_cast<uint32_t>(kRows * geometry_.blocks * geometry_.own_bytes_of_row);
  }

  const Exchange& x_;
  const Geometry& geometry_;
  const Self& me_;
  unsigned char* shared_;
  const Watchdog watchdog_;
};

}  // namespace fusegen::cuda
