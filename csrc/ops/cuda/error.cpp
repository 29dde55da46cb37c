#include "error.h"

#include <atomic>

#include "kernels/backend.h"
#include "ops/checks.h"

namespace fusegen {
namespace {

std::string told(const cuda::Wait& w) {
  const std::string awaited =
      w.awaited == cuda::kAnyBlock ? "the other blocks of its cluster" : "block " + std::to_string(w.awaited);
  return detail::joined(
      "fusegen: an earlier call on this GPU was given up: block ", w.rank, " of group ", w.group,
      ", direction ", w.direction, ", had waited in vain for ", awaited, " at turn ", w.turn,
      ", longer than FUSEGEN_PATIENCE allows (10 s unless set): a hung or preempted GPU, or one under a "
      "debugger, which wants FUSEGEN_PATIENCE=0. Its outputs are NaN. set_backend('torch') runs torch's own "
      "kernels");
}

}  // namespace

void raise_what_was_left(const View& error) {
  check(required(error, "error").dtype == ElementType::i64 && error.ndim == 1 && error.shape[0] == 1,
        "error: expected an int64 tensor of one element in host memory, got ", error);
  // Of threads that come at once, one raises it. Kernels write the word too.
  const std::atomic_ref<int64_t> word(*static_cast<int64_t*>(error.data));
  if (word.load(std::memory_order_relaxed) == 0) return;
  const int64_t left = word.exchange(0);
  if (left == 0) return;
  switch (cuda::code_of(left)) {
    case cuda::kBadLength:
      detail::fail("lengths: an earlier call on this GPU had a length outside 0..T, of row ",
                   cuda::row_of_length(left),
                   " of its batch; the outputs and gradients of that sequence are NaN");
    case cuda::kNoClusters:
      throw std::runtime_error(
          "fusegen: an earlier call on this GPU was planned in clusters, for which the kernels that were "
          "loaded "
          "are not compiled; its outputs are NaN. This is an error of fusegen's: please report it");
    default: throw std::runtime_error(told(cuda::wait_of(left)));
  }
}

}  // namespace fusegen
