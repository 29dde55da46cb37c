#include "../run.h"

template fusegen::cuda::Transport fusegen::cuda::run<fusegen::device::F16, fusegen::device::FormatF16>(
    const BackwardPass&);
