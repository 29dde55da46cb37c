#include "../run.h"

template fusegen::cuda::MlpRun fusegen::cuda::run_mlp_forward<
    fusegen::device::F16, fusegen::device::FormatF16, false>(const MlpForwardPass&);
template fusegen::cuda::MlpRun fusegen::cuda::run_mlp_backward<
    fusegen::device::F16, fusegen::device::FormatF16, false>(const MlpBackwardPass&);
