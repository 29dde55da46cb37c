#include "../run.h"

template void fusegen::cuda::run_mlp_forward<float, fusegen::device::FormatF32>(const MlpForwardPass&);
template void fusegen::cuda::run_mlp_backward<float, fusegen::device::FormatF32>(const MlpBackwardPass&);
