#include "../run.h"

template void fusegen::cuda::run_cell<float, fusegen::device::FormatF32>(const CellForwardPass&);
