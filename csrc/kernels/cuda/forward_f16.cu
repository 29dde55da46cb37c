#include "run_forward.h"

template fusegen::cuda::Transport
fusegen::cuda::run_forward<fusegen::device::F16, fusegen::device::FormatF16>(const ForwardPass&);
