#include "../run.h"

template void fusegen::cuda::run_cell<float, fusegen::device::FormatTf32>(const CellForwardPass&);
