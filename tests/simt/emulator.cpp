#include "emulator.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "barrier.h"
#include "memory.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIMT_ASAN 1
#else
#define SIMT_ASAN 0
#endif

namespace simt {
namespace {

// -- Fibers --

constexpr size_t kStack = SIMT_ASAN ? 256 * 1024 : 32 * 1024;

#if defined(__x86_64__)
using Context = void*;  // a stack pointer, below it the registers that a call must keep
extern "C" void simt_switch(Context* from, Context to);
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
)");
void prepare(Context& c, unsigned char* stack, void (*entry)()) {
  auto* top = reinterpret_cast<void**>(stack + kStack);
  *--top = nullptr;  // the entry's return address: it never returns
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  c = top;
}
void swap(Context& from, Context& to) { simt_switch(&from, to); }
#else
using Context = ucontext_t;
void prepare(Context& c, unsigned char* stack, void (*entry)()) {
  getcontext(&c);
  c.uc_stack.ss_sp = stack;
  c.uc_stack.ss_size = kStack;
  c.uc_link = nullptr;
  makecontext(&c, entry, 0);
}
void swap(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  int group;
  bool landed;
};

struct Lane {
  Context context{};
  int thread = 0, block = 0, number = 0;
  uint64_t breaths = 0;
  bool done = false;
  const char* waits = nullptr;  // for what, where it does
  std::vector<Copy> copies;
  int copy_group = 0;  // of the next copy
  void* fake_stack = nullptr;
};

struct Barrier {
  int arrived = 0;
  std::vector<int> waiting;
};

struct Block {
  std::unique_ptr<unsigned char[]> memory;  // its own allocation, so that AddressSanitizer sees its end
  unsigned char* shared = nullptr;
  int lanes = 0;   // that have not ended
  int starts = 0;  // in which round
  Barrier barrier;
};

struct Warp {
  Barrier barrier;
  const void* site = nullptr;
  const void* laid[32] = {};
};

struct Grid {
  void (*kernel)(const void*);
  const void* arguments;
  int threads, cluster, first_block, all_blocks;
  size_t shared_bytes;
  int round = 0;
  std::vector<Lane> lanes;
  std::vector<Block> blocks;
  std::vector<Barrier> clusters;
  Barrier barrier;
  std::vector<Warp> warps;
  std::vector<int> ready, next;  // lanes of this round, and of the one after
  std::vector<std::function<void()>> effects;
  uint64_t random = 0;
  Context scheduler{};
  void* fake_stack = nullptr;
  const void* stack_bottom = nullptr;
  size_t stack_size = 0;
  std::string error;
};

Grid* grid = nullptr;
Lane* here = nullptr;
int launched = 0;

class Stacks {  // kept for the next launch
public:
  unsigned char* get(size_t i) {
    if (!all_) {
      void* p = mmap(nullptr, kMost * kStack, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) throw std::bad_alloc();
      all_ = static_cast<unsigned char*>(p);
    }
    if (i >= kMost) throw std::length_error("emulator: more lanes at once than it has stacks for");
    return all_ + i * kStack;
  }
  bool has(const void* p) const {
    return static_cast<size_t>(static_cast<const unsigned char*>(p) - all_) < kMost * kStack;
  }

private:
  static constexpr size_t kMost = 256 * 256;
  unsigned char* all_ = nullptr;
};
Stacks stacks;

uint64_t random_number() {  // splitmix64
  uint64_t z = (grid->random += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

void to_scheduler() {
  Lane& lane = *here;
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(lane.done ? nullptr : &lane.fake_stack, grid->stack_bottom,
                                 grid->stack_size);
#endif
  swap(lane.context, grid->scheduler);
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(lane.fake_stack, nullptr, nullptr);
#endif
}

void end_of_lane() {
  Block& block = grid->blocks[here->block];
  if (--block.lanes || settings().hang_at) return;  // blocks that give up wait for nothing
  try {
    detail::end_barriers(block.shared, grid->shared_bytes);
  } catch (const Stuck& e) {
    if (grid->error.empty()) grid->error = e.what();
  }
}

void entry() {
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &grid->stack_bottom, &grid->stack_size);
#endif
  try {
    for (int i = 0; settings().late_block == block() + 1 && i < settings().late_breaths; ++i) relax();
    grid->kernel(grid->arguments);
  } catch (const std::exception& e) {
    if (grid->error.empty()) grid->error = e.what();
  }
  if (!here->copies.empty() && grid->error.empty())
    grid->error = "a lane ends with copies that it has not waited for";
  here->done = true;
  end_of_lane();
  to_scheduler();
  std::abort();
}

void wake(int number) {
  grid->lanes[number].waits = nullptr;
  grid->next.push_back(number);
}

bool last_to_arrive(const Barrier& barrier, int members) { return barrier.arrived + 1 == members; }

// Waits until `members` lanes have come. Returns true in the last one, which has not waited.
bool arrive(Barrier& barrier, int members, const char* what) {
  if (++barrier.arrived == members) {
    barrier.arrived = 0;
    std::vector<int> waiting;
    waiting.swap(barrier.waiting);
    for (int number : waiting) wake(number);
    return true;
  }
  barrier.waiting.push_back(here->number);
  here->waits = what;
  to_scheduler();
  return false;
}

void land(size_t i) {
  auto& effects = grid->effects;
  std::swap(effects[i], effects.back());
  const auto effect = std::move(effects.back());
  effects.pop_back();
  effect();
}

// Some of the stores that are under way arrive: the first, the last, or a few of them in any order, now and
// then.
void land_some() {
  auto& effects = grid->effects;
  if (effects.empty()) return;
  switch (settings().order) {
    case Order::forward: land(0); break;
    case Order::reverse: land(effects.size() - 1); break;
    case Order::random:
      if (random_number() % 4) break;
      for (size_t n = 1 + effects.size() / 8; n > 0 && !effects.empty(); --n)
        land(random_number() % effects.size());
      break;
  }
}

// Blocks whose round has come; where nobody else can go on, the next.
void start_blocks() {
  Grid& g = *grid;
  if (g.next.empty() && g.effects.empty()) {
    int soonest = -1;
    for (const Block& b : g.blocks)
      if (b.starts >= 0 && (soonest < 0 || b.starts < soonest)) soonest = b.starts;
    g.round = std::max(g.round, soonest);
  }
  for (size_t b = 0; b < g.blocks.size(); ++b) {
    if (g.blocks[b].starts < 0 || g.blocks[b].starts > g.round) continue;
    g.blocks[b].starts = -1;
    for (int i = 0; i < g.threads; ++i) g.next.push_back(static_cast<int>(b) * g.threads + i);
  }
  ++g.round;
}

int pick() {
  auto& ready = grid->ready;
  if (ready.empty()) {
    start_blocks();
    ready.swap(grid->next);
    if (settings().order == Order::forward) std::sort(ready.begin(), ready.end(), std::greater<int>());
    if (settings().order == Order::reverse) std::sort(ready.begin(), ready.end());
  }
  if (ready.empty()) return -1;
  if (settings().order == Order::random) std::swap(ready[random_number() % ready.size()], ready.back());
  const int number = ready.back();
  ready.pop_back();
  return number;
}

[[noreturn]] void stuck() {
  std::string text = "kernel cannot go on:";
  int shown = 0;
  for (const Lane& lane : grid->lanes)
    if (!lane.done && shown++ < 8)
      text += " lane " + std::to_string(lane.thread) + " of block " + std::to_string(lane.block) +
              " waits for " + (lane.waits ? lane.waits : "nothing") + ";";
  throw Stuck(text);
}

// How many rounds after the first a block starts.
int rounds_late(const Grid& g) {
  if (g.cluster > 1) return 0;  // those of a cluster start together
  return settings().order == Order::random && random_number() % 2 ? static_cast<int>(random_number() % 100)
                                                                  : 0;
}

void set_up(Grid& g, int blocks) {
  g.random = settings().seed * 0x2545f4914f6cdd1dull + g.first_block + 1;
  g.lanes.resize(static_cast<size_t>(blocks) * g.threads);
  g.blocks.resize(blocks);
  g.clusters.resize(blocks / g.cluster);
  g.warps.resize(g.lanes.size() / 32);
  memory::begin_resident(g.first_block, blocks);
  detail::forget_barriers();
  for (int i = 0; i < blocks; ++i) {
    Block& b = g.blocks[i];
    b.memory.reset(new unsigned char[g.shared_bytes + 1024]);
    const auto at = reinterpret_cast<uintptr_t>(b.memory.get());
    b.shared = b.memory.get() + (1024 - at % 1024) % 1024;
    b.lanes = g.threads;
    b.starts = rounds_late(g);
    std::memset(b.memory.get(), 0xff, g.shared_bytes + 1024);  // NaN in every format
    memory::forget(b.shared, g.shared_bytes);                  // others' before
  }
  for (size_t i = 0; i < g.lanes.size(); ++i) {
    Lane& lane = g.lanes[i];
    lane.number = static_cast<int>(i);
    lane.thread = static_cast<int>(i) % g.threads;
    lane.block = static_cast<int>(i) / g.threads;
#if SIMT_ASAN
    __asan_unpoison_memory_region(stacks.get(i), kStack);  // the last fiber there never left its frames
#endif
    prepare(lane.context, stacks.get(i), entry);
  }
}

// One set of blocks that are resident together.
void run_resident(Grid& g, int blocks) {
  grid = &g;
  set_up(g, blocks);
  for (int number; g.error.empty();) {
    land_some();
    number = pick();
    if (number < 0) {
      if (g.effects.empty()) break;
      land(0);
      continue;
    }
    here = &g.lanes[number];
#if SIMT_ASAN
    __sanitizer_start_switch_fiber(&g.fake_stack, stacks.get(number), kStack);
#endif
    swap(g.scheduler, here->context);
#if SIMT_ASAN
    __sanitizer_finish_switch_fiber(g.fake_stack, nullptr, nullptr);
#endif
    here = nullptr;
  }
  if (!g.error.empty()) throw Stuck(g.error);
  if (std::any_of(g.lanes.begin(), g.lanes.end(), [](const Lane& l) { return !l.done; })) stuck();
  for (const Block& b : g.blocks) memory::forget(b.shared, g.shared_bytes);  // others' from here on
}

// What the driver would say of a launch.
void check_launch(int blocks, int cluster, bool together, size_t shared_bytes) {
  const Settings& s = settings();
  const int sms = s.free_sms > 0 ? s.free_sms : s.sms;
  const auto refuse = [](const std::string& why) {
    throw std::runtime_error("CUDA: launch of a kernel: " + why);
  };
  if (blocks < 1 || blocks % cluster) refuse("invalid configuration argument");
  if (shared_bytes > static_cast<size_t>(s.shared_bytes)) refuse("more shared memory than a block may have");
  if (cluster > 1 && s.major < 9) refuse("no clusters on this device");
  if (cluster > (s.major == 12 ? 8 : 16) || cluster > sms) refuse("a cluster larger than the device takes");
  if (together && blocks > sms) refuse("too many blocks in cooperative launch");
}

// The sets of blocks in the order in which they find room.
std::vector<int> order_of(int sets) {
  std::vector<int> order(sets);
  std::iota(order.begin(), order.end(), 0);
  if (settings().order == Order::reverse) std::reverse(order.begin(), order.end());
  if (settings().order == Order::random) {
    Grid g{};
    g.random = settings().seed + 1;
    grid = &g;
    for (int i = sets; i > 1; --i) std::swap(order[i - 1], order[random_number() % i]);
  }
  return order;
}

Block& own_block() { return grid->blocks[here->block]; }

}  // namespace

Settings& settings() {
  static Settings s;
  return s;
}

void run(void (*kernel)(const void*), const void* arguments, int blocks, int threads, int cluster,
         bool together, size_t shared_bytes) {
  check_launch(blocks, cluster, together, shared_bytes);
  ++launched;
  const int each = together ? blocks : cluster;
  memory::begin_launch(threads);
  for (int set : order_of(blocks / each)) {
    Grid g{};
    g.kernel = kernel;
    g.arguments = arguments;
    g.threads = threads;
    g.cluster = cluster;
    g.shared_bytes = shared_bytes;
    g.all_blocks = blocks;
    g.first_block = set * each;
    run_resident(g, each);
  }
}

int launches() { return launched; }

int thread() { return here->thread; }
int block() { return grid->first_block + here->block; }
unsigned char* shared_memory() { return own_block().shared; }
void sync_block() {
  const int block = here->block;
  if (last_to_arrive(own_block().barrier, grid->threads)) memory::barrier_of_blocks(block, 1);
  arrive(own_block().barrier, grid->threads, "its block");
}
void sync_cluster() {
  const int cluster = here->block / grid->cluster, lanes = grid->cluster * grid->threads;
  if (last_to_arrive(grid->clusters[cluster], lanes))
    memory::barrier_of_blocks(cluster * grid->cluster, grid->cluster);
  arrive(grid->clusters[cluster], lanes, "its cluster");
}
void sync_grid() {
  if (grid->blocks.size() != static_cast<size_t>(grid->all_blocks))
    throw Stuck("blocks wait for a grid that is not resident");
  const int lanes = static_cast<int>(grid->lanes.size());
  if (last_to_arrive(grid->barrier, lanes)) memory::barrier_of_blocks(0, grid->all_blocks);
  arrive(grid->barrier, lanes, "its grid");
}
void relax() {
  if (++here->breaths > settings().most_breaths && grid->error.empty())
    grid->error = "a lane looks at a flag without end";
  grid->next.push_back(here->number);
  to_scheduler();
}
uint64_t nanoseconds() { return here->breaths * 100000; }
bool hung() { return settings().hang_at == block() + 1; }

void warp_together(const void* site, const void* mine, void (*work)(const void* const* all)) {
  Warp& warp = grid->warps[here->number / 32];
  if (warp.barrier.arrived == 0) warp.site = site;
  if (warp.site != site) throw Stuck("lanes of one warp are at different instructions");
  warp.laid[here->thread % 32] = mine;
  if (warp.barrier.arrived == 31) work(warp.laid);
  arrive(warp.barrier, 32, "its warp");
}

unsigned char* in_block(unsigned char* shared, int rank) {
  const int first = here->block / grid->cluster * grid->cluster;
  return grid->blocks[first + rank].shared + (shared - own_block().shared);
}

void sync_warp() {
  static const char site = 0;
  warp_together(&site, nullptr,
                [](const void* const*) { memory::barrier_of_lanes(here->number / 32 * 32, 32); });
}

void later(std::function<void()> effect) { grid->effects.push_back(std::move(effect)); }

namespace {

void copy(void* to, const void* from, size_t bytes) {
  if (from) std::memcpy(to, from, bytes);
  else std::memset(to, 0, bytes);
}

}  // namespace

void copy_later(void* to, const void* from, size_t bytes) {
  if (from) memory::access(from, bytes, memory::kRead | memory::kPending);
  memory::access(to, bytes, memory::kWrite | memory::kPending);
  const bool now =
      settings().order == Order::forward || (settings().order == Order::random && random_number() % 2 == 0);
  if (now) copy(to, from, bytes);
  here->copies.push_back({to, from, bytes, here->copy_group, now});
}

void copies_done() { copy_groups_done(-1); }

void end_copy_group() { ++here->copy_group; }

void copy_groups_done(int open) {
  auto& copies = here->copies;
  const auto pending = std::find_if(copies.begin(), copies.end(),
                                    [&](const Copy& c) { return c.group >= here->copy_group - open; });
  for (auto c = copies.begin(); c != pending; ++c) {
    if (!c->landed) copy(c->to, c->from, c->bytes);
    if (c->from) memory::complete(c->from, c->bytes, memory::kRead);
    memory::complete(c->to, c->bytes, memory::kWrite);
  }
  copies.erase(copies.begin(), pending);
}

uint32_t word(const void* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
uint16_t half_word(const void* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}
void set_word(void* p, uint32_t v) { std::memcpy(p, &v, 4); }
void set_first(int64_t* p, int64_t v) {
  if (*p == 0) *p = v;
}

// -- For memory.cpp and barrier.cpp --

int lane_number() { return here ? here->number : -1; }
bool watched(const void* p) { return here && memory_model() && !stacks.has(p); }
bool memory_model() {  // blocks that give up waiting read what they get, and all becomes NaN
  return !settings().hang_at;
}

bool ended(const void* shared) {
  for (const Block& b : grid->blocks)
    if (b.shared <= shared && shared < b.shared + grid->shared_bytes) return b.lanes == 0;
  return false;
}

bool in_shared_memory(const void* p) {
  return std::any_of(grid->blocks.begin(), grid->blocks.end(),
                     [&](const Block& b) { return b.shared <= p && p < b.shared + grid->shared_bytes; });
}

void fail(const std::string& text) {
  if (!here) throw Stuck(text);
  // Not thrown: the hooks that come here are called where nothing can be caught.
  if (grid->error.empty()) grid->error = text;
  to_scheduler();
  std::abort();
}

std::string place_of(const void* code) {
  Dl_info info{};
  std::ostringstream out;
  if (code && dladdr(code, &info) && info.dli_fbase)
    out << ", at " << std::hex << std::showbase
        << static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase) << " of _simt";
  return out.str();
}

std::string place_of_data(const void* p) {
  std::ostringstream out;
  for (size_t b = 0; b < grid->blocks.size(); ++b) {
    const unsigned char* shared = grid->blocks[b].shared;
    if (shared <= p && p < shared + grid->shared_bytes) {
      out << "byte " << static_cast<const unsigned char*>(p) - shared << " of the shared memory of block "
          << grid->first_block + static_cast<int>(b);
      return out.str();
    }
  }
  out << "global memory, " << p;
  return out.str();
}

}  // namespace simt
