#include "run_forward.h"

template fusegen::cuda::Transport fusegen::cuda::run_forward<float, fusegen::device::FormatF32>(
    const ForwardPass&);
