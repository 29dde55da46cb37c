#include "run_forward.h"

template fusegen::cuda::Transport
fusegen::cuda::run_forward<fusegen::device::Bf16, fusegen::device::FormatBf16>(const ForwardPass&);
