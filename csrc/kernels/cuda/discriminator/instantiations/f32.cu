#include "../run.h"

template fusegen::cuda::MlpRun fusegen::cuda::run_mlp_forward<float, fusegen::device::FormatF32, true>(
    const MlpForwardPass&);
template fusegen::cuda::MlpRun fusegen::cuda::run_mlp_backward<float, fusegen::device::FormatF32, true>(
    const MlpBackwardPass&);
