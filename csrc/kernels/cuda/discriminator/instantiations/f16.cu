#include "../run.h"

template void fusegen::cuda::run_mlp_forward<fusegen::device::F16, fusegen::device::FormatF16>(
    const MlpForwardPass&);
template void fusegen::cuda::run_mlp_backward<fusegen::device::F16, fusegen::device::FormatF16>(
    const MlpBackwardPass&);
