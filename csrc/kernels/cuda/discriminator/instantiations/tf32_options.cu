#include "../run.h"

template fusegen::cuda::MlpRun fusegen::cuda::run_mlp_forward<float, fusegen::device::FormatTf32, false>(
    const MlpForwardPass&);
template fusegen::cuda::MlpRun fusegen::cuda::run_mlp_backward<float, fusegen::device::FormatTf32, false>(
    const MlpBackwardPass&);
