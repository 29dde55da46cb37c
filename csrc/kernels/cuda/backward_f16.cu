#include "run_backward.h"

template fusegen::cuda::Transport
fusegen::cuda::run_backward<fusegen::device::F16, fusegen::device::FormatF16>(const BackwardPass&);
