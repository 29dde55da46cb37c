// Runs CUDA kernels on the host, lane by lane: one fiber a lane, all in one OS thread. A lane runs until it
// waits (for its block, warp or cluster) or breathes between two looks at a flag; which lane is next is the
// order under test: forward, reverse, or random from a seed. Results must be bit-equal under all of them.
// Copies and stores that the hardware does beside the lane land late, at moments of the seed's choice. Blocks
// may start late: those that wait for each other long after the first, the others when others have ended.
// Shared memory starts as NaN. What lanes read and write is held against the memory model (memory.h). What it
// cannot show: speed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace simt {

enum class Order { forward, reverse, random };

struct Settings {
  Order order = Order::forward;
  uint64_t seed = 0;
  int sms = 132;  // what the emulated device pretends to have
  int shared_bytes = 227 * 1024;
  int major = 9;
  int code = 90;                    // what the kernels were compiled for, as they were loaded
  int free_sms = 0;                 // > 0: what a launch finds of them, fewer than the plan counted on
  uint64_t most_breaths = 100'000;  // of a lane: 10 s of its clock; a shorter patience ends a wait before
  // > 0: the block of this number, counted from 1, hears of two turns of its peers and no more (planted hang)
  int hang_at = 0;
  int late_block = 0;  // > 0: the block of this number starts so many breaths after the others
  int late_breaths = 0;
  bool clusters_fit = true;  // whether the driver finds room for one
  bool old_code = false;     // the kernels lack clusters, whatever is told of them (planted)
};
Settings& settings();

// A kernel that cannot go on, with who waits where: lanes that miss a barrier, a phase that never ends.
struct Stuck : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Runs `kernel` in blocks * threads lanes. `together`: all blocks at once, as a cooperative launch; else one
// cluster after another, in the order under test. Throws Stuck, and where the device would refuse the launch
// std::runtime_error.
void run(void (*kernel)(const void*), const void* arguments, int blocks, int threads, int cluster,
         bool together, size_t shared_bytes);
int launches();  // so far

// -- Of the lane that runs, for device/*.h --

int thread();
int block();
unsigned char* shared_memory();
void sync_block();
void sync_cluster();
void sync_grid();        // of blocks that run together
void relax();            // lets others run; the lane's clock moves on
uint64_t nanoseconds();  // 100 us a breath
bool hung();             // this lane is of the block in which a hang was planted
void sync_warp();

// The lanes of a warp lay down what they have; the last one gives the table of all 32 to `work`; then all go
// on. `site` must be the same for all.
void warp_together(const void* site, const void* mine, void (*work)(const void* const* all));

unsigned char* in_block(unsigned char* shared, int rank);  // the same place in another block of the cluster
void later(std::function<void()> effect);                  // of a store that lands when it lands
// Of this lane, done at copies_done() at the latest; `from` null: zeros.
void copy_later(void* to, const void* from, size_t bytes);
void copies_done();
void end_copy_group();
void copy_groups_done(int open);  // all but the last `open` groups

// Words that lanes meet at, behind the hooks: memory.h is told what kind of access it is.
uint32_t word(const void* p);
uint16_t half_word(const void* p);
void set_word(void* p, uint32_t v);
void set_first(int64_t* p, int64_t v);  // where there is 0

// -- For memory.cpp and barrier.cpp --

int lane_number();                                // among those resident; below 0: none runs
bool memory_model();                              // whether it is asked
bool watched(const void* p);                      // a lane runs, and this is memory that lanes share
bool ended(const void* shared);                   // the block that this lies in
bool in_shared_memory(const void* p);             // of any block
[[noreturn]] void fail(const std::string& text);  // ends the launch with Stuck, from whatever frame
std::string place_of(const void* code);
std::string place_of_data(const void* p);

}  // namespace simt
