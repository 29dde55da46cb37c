#include "../run.h"

template bool fusegen::cuda::run_mlp_forward<float, fusegen::device::FormatTf32>(const MlpForwardPass&);
template bool fusegen::cuda::run_mlp_backward<float, fusegen::device::FormatTf32>(const MlpBackwardPass&);
