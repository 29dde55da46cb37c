// Copies from global to shared memory that run beside the lane that asked for them. They read past the L1
// cache, so they see what another block has written and released.
#pragma once
#include <device/number.h>

namespace fusegen::device {

FUSEGEN_DEVICE void copy16_async(void* shared, const void* global) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}

// The same where `there`; else zeros, and `global` is not read.
FUSEGEN_DEVICE void copy16_or_zero_async(void* shared, const void* global, bool there) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(there ? 16 : 0)
               : "memory");
}

// Closes a group of the lane's copies, those asked for since the last group.
FUSEGEN_DEVICE void end_copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all but the lane's last `open` groups are there. Other lanes' need a barrier as well.
template <int open>
FUSEGEN_DEVICE void copy_groups_done() {
  asm volatile("cp.async.wait_group %0;" ::"n"(open) : "memory");
}

// Until the lane's own copies are there. Other lanes' need a barrier as well.
FUSEGEN_DEVICE void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

}  // namespace fusegen::device
