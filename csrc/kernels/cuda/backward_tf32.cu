#include "run_backward.h"

template fusegen::cuda::Transport fusegen::cuda::run_backward<float, fusegen::device::FormatTf32>(
    const BackwardPass&);
