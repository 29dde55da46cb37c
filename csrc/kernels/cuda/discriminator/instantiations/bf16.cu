#include "../run.h"

template void fusegen::cuda::run_mlp_forward<fusegen::device::Bf16, fusegen::device::FormatBf16>(
    const MlpForwardPass&);
template void fusegen::cuda::run_mlp_backward<fusegen::device::Bf16, fusegen::device::FormatBf16>(
    const MlpBackwardPass&);
