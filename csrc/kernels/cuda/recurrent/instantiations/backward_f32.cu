#include "../run.h"

template fusegen::cuda::Transport fusegen::cuda::run<float, fusegen::device::FormatF32>(const BackwardPass&);
