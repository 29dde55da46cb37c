// The memory model of a GPU, held against what the emulated kernels read and write: of two accesses of which
// one writes, one must happen before the other by what PTX promises, or the launch ends with "race" and both
// places. This finds what a store that stays in its block's buffer, or a read out of a stale L1, would do to
// a kernel, in whichever order the lanes run, without guessing which values would be seen.
//
// Accesses are seen without a change of the kernels' source: their files are compiled with the hooks of
// ThreadSanitizer (hooks.cpp has them, not its library), which tell each load and store of memory.
//
// What orders accesses: a lane's own program; barriers of a warp, block or cluster; a release that another
// lane acquires (flags and counters in global memory, arrivals and bytes on a byte barrier); the end of a
// launch. A release carries all that its lane has seen, as causality is cumulative in PTX. A shuffle or a
// matrix instruction orders nothing. Volatile and relaxed accesses do not race with each other, and order
// nothing. A copy that is under way conflicts with every access to its two ends, its own lane's too, until it
// has been waited for. The asynchronous proxy (wgmma, bulk copies) sees what ordinary stores wrote only
// behind fence.proxy.async as well, of the space that they wrote to.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace simt::memory {

// Lanes are numbered through the blocks of a launch. A lane counts its accesses in stretches that end with
// each release; a bound n says that its stretches below n happened before.
struct Bounds {
  std::vector<uint32_t> blocks;                 // for all lanes of a block
  std::vector<std::pair<int, uint32_t>> lanes;  // for some more, sorted

  bool cover(int lane, uint32_t stretch) const;
  void join(const Bounds& other);
  void raise(int lane, uint32_t bound);
};
enum class Space { shared, global };
struct Clock {
  Bounds seen;
  Bounds fenced[2];  // those of them that the asynchronous proxy sees too, by the space that they are in
  Bounds& fenced_in(Space s) { return fenced[static_cast<int>(s)]; }
  const Bounds& fenced_in(Space s) const { return fenced[static_cast<int>(s)]; }
  void join(const Clock& other);
};
using Seen = std::shared_ptr<const Clock>;

// What a lane has seen and done when it releases.
struct Release {
  Seen seen;
  int lane = -1;
  uint32_t bound = 0;
};

// Gathers releases for those who will acquire all of them.
class Gathered {
public:
  void add(const Release& release);
  Seen take();  // and begins anew

private:
  Clock clock_;
  std::vector<uint32_t> own_;  // bounds of the releasing lanes, by lane
  Seen last_;
};

enum Kind : uint16_t {
  kRead = 0,
  kWrite = 1,
  kStrong = 2,   // volatile, relaxed, acquire, release
  kPending = 4,  // of a copy that has not been waited for
  kProxy = 8     // by the asynchronous proxy
};

// -- For the emulator --

void begin_launch(int threads);
void begin_resident(int first_block, int blocks);  // a set of blocks that run together
void forget(const void* p, size_t bytes);          // memory that is given to another block
void barrier_of_blocks(int first, int count);      // of the set
void barrier_of_lanes(int first, int count);       // of the set

// -- For the wrappers, of the lane that runs --

Release release();
void acquire(const Seen& seen);
void access(const void* p, size_t bytes, unsigned kind, const void* at = __builtin_return_address(0));
// By a lane that asked for it earlier, when this was what it had seen.
void access_as(const Release& then, const void* p, size_t bytes, unsigned kind);
// The pending accesses of the lane to these bytes are over.
void complete(const void* p, size_t bytes, unsigned kind);
// The same of what a lane asked for earlier and others wait for.
void complete_as(const Release& then, const void* p, size_t bytes, unsigned kind);

void released(const void* p, size_t bytes);   // a releasing store
void stored(const void* p, size_t bytes);     // a relaxed one: nobody acquires anything of it
void acquired(const void* p, size_t bytes);   // an acquiring load
void exchanged(const void* p, size_t bytes);  // both at once
void fence_proxy(Space space);                // fence.proxy.async.shared::cta, .global

}  // namespace simt::memory
