#include "emulator.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

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
  Barrier barrier;
};

struct Warp {
  Barrier barrier;
  const void* site = nullptr;
  const void* laid[32] = {};
};

struct Effect {
  void (*act)(void*);
  alignas(16) unsigned char data[48];
};

struct Grid {
  void (*kernel)(const void*);
  const void* arguments;
  int threads, cluster, first_block, all_blocks;
  std::vector<Lane> lanes;
  std::vector<Block> blocks;
  std::vector<Barrier> clusters;
  Barrier barrier;
  std::vector<Warp> warps;
  std::vector<int> ready, next;  // lanes of this round, and of the one after
  std::vector<Effect> effects;
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
    while (all_.size() <= i) {
      void* p =
          mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) throw std::bad_alloc();
      all_.push_back(static_cast<unsigned char*>(p));
    }
    return all_[i];
  }

private:
  std::vector<unsigned char*> all_;
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
  to_scheduler();
  std::abort();
}

void wake(int number) {
  grid->lanes[number].waits = nullptr;
  grid->next.push_back(number);
}

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
  Effect effect = grid->effects[i];
  grid->effects[i] = grid->effects.back();
  grid->effects.pop_back();
  effect.act(effect.data);
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

int pick() {
  auto& ready = grid->ready;
  if (ready.empty()) {
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

// One set of blocks that are resident together.
void run_resident(Grid& g, int blocks, size_t shared_bytes) {
  grid = &g;
  g.random = settings().seed * 0x2545f4914f6cdd1dull + g.first_block + 1;
  g.lanes.resize(static_cast<size_t>(blocks) * g.threads);
  g.blocks.resize(blocks);
  g.clusters.resize(blocks / g.cluster);
  g.warps.resize(g.lanes.size() / 32);
  for (Block& b : g.blocks) {
    b.memory.reset(new unsigned char[shared_bytes + 1024]);
    const auto at = reinterpret_cast<uintptr_t>(b.memory.get());
    b.shared = b.memory.get() + (1024 - at % 1024) % 1024;
    std::memset(b.memory.get(), 0xff, shared_bytes + 1024);  // NaN in every format
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
    g.next.push_back(lane.number);
  }
  for (int number; g.error.empty();) {
    land_some();
    number = pick();
    if (number < 0) {
      if (g.effects.empty()) break;
      if (std::all_of(g.lanes.begin(), g.lanes.end(), [](const Lane& l) { return l.done; }))
        throw Stuck("a block ended while stores into its memory were under way");
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
  }
  if (!g.error.empty()) throw Stuck(g.error);
  if (std::any_of(g.lanes.begin(), g.lanes.end(), [](const Lane& l) { return !l.done; })) stuck();
}

Block& own_block() { return grid->blocks[here->block]; }

}  // namespace

Settings& settings() {
  static Settings s;
  return s;
}

void run(void (*kernel)(const void*), const void* arguments, int blocks, int threads, int cluster,
         bool together, size_t shared_bytes) {
  ++launched;
  const int each = together ? blocks : cluster;
  const int launches = blocks / each;
  for (int i = 0; i < launches; ++i) {
    Grid g;
    g.kernel = kernel;
    g.arguments = arguments;
    g.threads = threads;
    g.cluster = cluster;
    g.all_blocks = blocks;
    g.first_block = (settings().order == Order::forward ? i : launches - 1 - i) * each;
    run_resident(g, each, shared_bytes);
  }
}

int launches() { return launched; }

int thread() { return here->thread; }
int block() { return grid->first_block + here->block; }
unsigned char* shared_memory() { return own_block().shared; }
void sync_block() { arrive(own_block().barrier, grid->threads, "its block"); }
void sync_cluster() {
  arrive(grid->clusters[here->block / grid->cluster], grid->cluster * grid->threads, "its cluster");
}
void sync_grid() {
  if (grid->blocks.size() != static_cast<size_t>(grid->all_blocks))
    throw Stuck("blocks wait for a grid that is not resident");
  arrive(grid->barrier, static_cast<int>(grid->lanes.size()), "its grid");
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

void later(void (*effect)(void*), const void* data, size_t bytes) {
  Effect e{effect, {}};
  if (bytes > sizeof e.data) throw std::logic_error("an effect with too much data");
  std::memcpy(e.data, data, bytes);
  grid->effects.push_back(e);
}

void copy_later(void* to, const void* from, size_t bytes) {
  if (settings().order == Order::forward || (settings().order == Order::random && random_number() % 2 == 0)) {
    std::memcpy(to, from, bytes);
  } else {
    here->copies.push_back({to, from, bytes, here->copy_group});
  }
}

void copies_done() {
  for (const Copy& c : here->copies) std::memcpy(c.to, c.from, c.bytes);
  here->copies.clear();
}

void end_copy_group() { ++here->copy_group; }

void copy_groups_done(int open) {
  auto& copies = here->copies;
  const auto pending = std::find_if(copies.begin(), copies.end(),
                                    [&](const Copy& c) { return c.group >= here->copy_group - open; });
  for (auto c = copies.begin(); c != pending; ++c) std::memcpy(c->to, c->from, c->bytes);
  copies.erase(copies.begin(), pending);
}

}  // namespace simt
