#include "../run.h"

template fusegen::cuda::MlpRun fusegen::cuda::run_mlp_forward<
    fusegen::device::Bf16, fusegen::device::FormatBf16, false>(const MlpForwardPass&);
template fusegen::cuda::MlpRun fusegen::cuda::run_mlp_backward<
    fusegen::device::Bf16, fusegen::device::FormatBf16, false>(const MlpBackwardPass&);
