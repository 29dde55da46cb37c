#include "../run.h"

template bool fusegen::cuda::run_mlp_forward<fusegen::device::F16, fusegen::device::FormatF16>(
    const MlpForwardPass&);
template bool fusegen::cuda::run_mlp_backward<fusegen::device::F16, fusegen::device::FormatF16>(
    const MlpBackwardPass&);
