// How the threads of a parallel region share work.
#pragma once
#include <algorithm>
#include <cstdint>

namespace fusegen::FUSEGEN_ISA_NS {

// Threads that share work, and which of them this is. A barrier counts all threads of the parallel region, so
// either every thread is its own team (size 1, no barrier inside) or all are one.
struct Team {
  int rank, size;
  void barrier() const {
    if (size > 1) {
#pragma omp barrier
    }
  }
};

struct Range {
  int64_t begin, end;
};
inline Range share(int64_t n, int rank, int size, int64_t unit = 1) {
  const int64_t units = (n + unit - 1) / unit;
  return {std::min(n, units * rank / size * unit), std::min(n, units * (rank + 1) / size * unit)};
}
inline Range share(int64_t n, const Team& t) { return share(n, t.rank, t.size); }

}  // namespace fusegen::FUSEGEN_ISA_NS
