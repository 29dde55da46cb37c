// How all blocks of a grid wait for each other.
#pragma once
#include <cooperative_groups.h>

#include <device/thread.h>

namespace fusegen::device {

// Until all lanes of all blocks are here; what they wrote before can be read afterwards. Only in launches of
// blocks that are resident together. The counter is the driver's own: nothing has to be zeroed before a
// launch.
FUSEGEN_DEVICE void sync_grid() { cooperative_groups::this_grid().sync(); }

}  // namespace fusegen::device
