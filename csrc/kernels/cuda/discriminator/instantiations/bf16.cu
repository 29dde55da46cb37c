#include "../run.h"

template bool fusegen::cuda::run_mlp_forward<fusegen::device::Bf16, fusegen::device::FormatBf16>(
    const MlpForwardPass&);
template bool fusegen::cuda::run_mlp_backward<fusegen::device::Bf16, fusegen::device::FormatBf16>(
    const MlpBackwardPass&);
