// Ends the waits of blocks for each other, which a hung or preempted peer would make endless: once a wait has
// lasted the call's patience, its block says in the error word who waited for whom, and leaves; so do its
// peers in their turn. No trap, which would destroy the process's context.
#pragma once
#include <device/exchange.h>

#include "../backend.h"

namespace fusegen::cuda {

class Watchdog {
public:
  // `stop`: a word of the block's shared memory, 0 at first. `who`: direction, group and rank of the block.
  FUSEGEN_DEVICE Watchdog(const Recurrence& pass, volatile int* stop, const Wait& who)
      : pass_(pass), stop_(stop), who_(who) {}

  FUSEGEN_DEVICE bool stopped() const { return *stop_ != 0; }
  // Whether that was at this mark or an earlier, greater one: a warp may look while another is in its next
  // wait already, and all must decide alike.
  FUSEGEN_DEVICE bool stopped_by(int mark) const { return *stop_ >= mark; }

  // `mark`, above 0, stays in the word.
  FUSEGEN_DEVICE void stop(int64_t error, int mark = INT32_MAX) const {
    *stop_ = mark;
    device::store_first(pass_.error, error);
  }

  // After each of the `looks`, counted from 1, of a wait in vain for what `awaited` publishes at `turn`;
  // `started` is 0 at first. Turn 0 has no limit: until then the group's blocks have not met, and how long
  // the device takes to start them all says nothing of them.
  FUSEGEN_DEVICE bool give_up(uint32_t looks, uint64_t& started, int turn, int awaited, int mark) const {
    device::relax();
    if (looks % 64) return false;
    if (stopped()) return true;
    if (turn == 0 || pass_.patience == 0) return false;
    const uint64_t now = device::nanoseconds();
    if (started == 0) started = now;
    if (now - started < static_cast<uint64_t>(pass_.patience)) return false;
    stop(error_of(Wait{who_.direction, who_.group, who_.rank, awaited, turn}), mark);
    return true;
  }

private:
  const Recurrence& pass_;
  volatile int* const stop_;
  const Wait who_;
};

}  // namespace fusegen::cuda
