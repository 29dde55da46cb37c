#include "arena.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fusegen::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kKeptBlocks = 8;                 // one a thread that calls at the same time
constexpr size_t kKeptBytes = size_t{256} << 20;  // larger blocks go back to the system at once

struct Block {
  unsigned char* data;
  size_t size;
};

struct Cache {
  std::mutex mutex;
  std::vector<Block> blocks;
};

Cache& cache() {
  static Cache* c = new Cache;  // never destroyed: threads may still call while the process exits
  return *c;
}

}  // namespace

Arena::Arena(size_t bytes) {
  // Room for the prefetches and whole-vector reads that run past the last panel.
  const size_t wanted = bytes + 4096;
  {
    Cache& c = cache();
    std::lock_guard<std::mutex> lock(c.mutex);
    size_t best = c.blocks.size();
    for (size_t i = 0; i < c.blocks.size(); ++i)
      if (c.blocks[i].size >= wanted && (best == c.blocks.size() || c.blocks[i].size < c.blocks[best].size)) best = i;
    if (best < c.blocks.size()) {
      base_ = c.blocks[best].data;
      size_ = c.blocks[best].size;
      c.blocks.erase(c.blocks.begin() + static_cast<long>(best));
      return;
    }
  }
  const bool large = wanted >= kHugePage;
  const size_t unit = large ? kHugePage : 4096;
  size_ = (wanted + unit - 1) / unit * unit;
  base_ = static_cast<unsigned char*>(std::aligned_alloc(unit, size_));
  if (!base_) throw std::bad_alloc();
#ifdef __linux__
  if (large) madvise(base_, size_, MADV_HUGEPAGE);
#endif
}

Arena::~Arena() {
  if (!size_) return;
  unsigned char* released = base_;
  if (size_ <= kKeptBytes) {
    Cache& c = cache();
    std::lock_guard<std::mutex> lock(c.mutex);
    if (c.blocks.size() < kKeptBlocks) {
      c.blocks.push_back({base_, size_});
      return;
    }
    // Full: the smallest block goes.
    size_t least = 0;
    for (size_t i = 1; i < c.blocks.size(); ++i)
      if (c.blocks[i].size < c.blocks[least].size) least = i;
    if (c.blocks[least].size < size_) {
      released = c.blocks[least].data;
      c.blocks[least] = {base_, size_};
    }
  }
  std::free(released);
}

}  // namespace fusegen::cpu
