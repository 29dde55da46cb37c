#include "run_backward.h"

template fusegen::cuda::Transport
fusegen::cuda::run_backward<fusegen::device::Bf16, fusegen::device::FormatBf16>(const BackwardPass&);
