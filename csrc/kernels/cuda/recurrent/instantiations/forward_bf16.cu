#include "../run.h"

template fusegen::cuda::Transport fusegen::cuda::run<fusegen::device::Bf16, fusegen::device::FormatBf16>(
    const ForwardPass&);
