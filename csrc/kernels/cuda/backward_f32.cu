#include "run_backward.h"

template fusegen::cuda::Transport fusegen::cuda::run_backward<float, fusegen::device::FormatF32>(
    const BackwardPass&);
