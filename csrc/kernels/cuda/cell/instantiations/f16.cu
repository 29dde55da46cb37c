#include "../run.h"

template void fusegen::cuda::run_cell<fusegen::device::F16, fusegen::device::FormatF16>(
    const CellForwardPass&);
