#include "../run.h"

template bool fusegen::cuda::run_mlp_forward<float, fusegen::device::FormatF32>(const MlpForwardPass&);
template bool fusegen::cuda::run_mlp_backward<float, fusegen::device::FormatF32>(const MlpBackwardPass&);
