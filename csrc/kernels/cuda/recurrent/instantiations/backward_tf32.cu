#include "../run.h"

template fusegen::cuda::Transport fusegen::cuda::run<float, fusegen::device::FormatTf32>(const BackwardPass&);
