// Scratch memory of one call. Blocks are kept and handed to later calls (contents never are): a fresh mapping
// of tens of megabytes costs page faults at every call, and 2 MiB pages keep packed weights out of the TLB's
// way. At most 256 MiB are kept by the process; beyond, the block longest unused goes back to the system.
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace fusegen::cpu {

// Bytes behind the last panel of a packed weight that a kernel may read: whole vectors, and lines fetched
// ahead.
constexpr int64_t kReadPast = 4096;

class Arena {
public:
  explicit Arena(size_t bytes);  // throws std::bad_alloc
  // Of what lay_out(arena) takes: it is called twice, first to sum the sizes.
  template <class F>
    requires std::invocable<const F&, Arena&>
  explicit Arena(const F& lay_out) : Arena(sum_of(lay_out)) {
    lay_out(*this);
  }
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // n elements on a 64-byte boundary; uninitialised, of a measure null.
  template <class X>
  X* take(int64_t n) {
    X* p = reinterpret_cast<X*>(base_ ? base_ + used_ : nullptr);
    used_ += (static_cast<size_t>(n > 0 ? n : 0) * sizeof(X) + 63) / 64 * 64;
    return p;
  }
  size_t used() const { return used_; }

  // Without memory: sums what is taken.
  struct Measure {};
  explicit Arena(Measure) {}
  // Memory of the caller, from its first 64-byte boundary on.
  explicit Arena(void* borrowed)
      : base_(reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(borrowed) + 63) / 64 * 64)) {}

private:
  template <class F>
  static size_t sum_of(const F& lay_out) {
    Arena measure{Measure{}};
    lay_out(measure);
    return measure.used();
  }

  unsigned char* base_ = nullptr;
  size_t size_ = 0;  // 0: not this arena's to release
  size_t used_ = 0;
};

}  // namespace fusegen::cpu
