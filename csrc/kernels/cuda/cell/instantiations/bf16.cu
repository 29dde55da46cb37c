#include "../run.h"

template void fusegen::cuda::run_cell<fusegen::device::Bf16, fusegen::device::FormatBf16>(
    const CellForwardPass&);
