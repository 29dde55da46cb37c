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

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr std::ptrdiff_t kKeptBlocks = 8;         // one a thread that calls at the same time
constexpr size_t kKeptBytes = size_t{256} << 20;  // together; a larger block goes back to the system at once

struct Block {
  unsigned char* data;
  size_t size;
};

struct Cache {
  std::mutex mutex;
  std::vector<Block> blocks;  // longest unused first
  size_t bytes = 0;
};

Cache& cache() {
  static Cache* c = new Cache;  // never destroyed: threads may still call while the process exits
  return *c;
}

}  // namespace

Arena::Arena(size_t bytes) {
  const size_t wanted = bytes + kReadPast;
  {
    Cache& c = cache();
    std::lock_guard<std::mutex> lock(c.mutex);
    size_t best = c.blocks.size();
    for (size_t i = 0; i < c.blocks.size(); ++i)
      if (c.blocks[i].size >= wanted && (best == c.blocks.size() || c.blocks[i].size < c.blocks[best].size))
        best = i;
    if (best < c.blocks.size()) {
      base_ = c.blocks[best].data;
      size_ = c.blocks[best].size;
      c.blocks.erase(c.blocks.begin() + static_cast<long>(best));
      c.bytes -= size_;
      return;
    }
  }
  const bool large = wanted >= kHugePage;
  const size_t unit = large ? kHugePage : kPage;
  size_ = (wanted + unit - 1) / unit * unit;
  base_ = static_cast<unsigned char*>(std::aligned_alloc(unit, size_));
  if (!base_) throw std::bad_alloc();
#ifdef __linux__
  if (large) madvise(base_, size_, MADV_HUGEPAGE);
#endif
}

Arena::~Arena() {
  if (!size_) return;
  if (size_ > kKeptBytes) {
    std::free(base_);
    return;
  }
  std::vector<Block> released;
  {
    Cache& c = cache();
    std::lock_guard<std::mutex> lock(c.mutex);
    c.blocks.push_back({base_, size_});
    c.bytes += size_;
    auto kept = c.blocks.begin();
    for (; c.blocks.end() - kept > kKeptBlocks || c.bytes > kKeptBytes; ++kept) c.bytes -= kept->size;
    released.assign(c.blocks.begin(), kept);
    c.blocks.erase(c.blocks.begin(), kept);
  }
  for (const Block& b : released) std::free(b.data);
}

}  // namespace fusegen::cpu
