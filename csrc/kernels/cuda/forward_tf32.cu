#include "run_forward.h"

template fusegen::cuda::Transport fusegen::cuda::run_forward<float, fusegen::device::FormatTf32>(
    const ForwardPass&);
