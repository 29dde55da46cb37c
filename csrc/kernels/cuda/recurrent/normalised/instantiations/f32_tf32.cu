// Both ways to multiply float32, since the rows' kernels are the same.
#include "../run.h"

namespace fusegen::cuda::normalised {
template void run_forward<float, device::FormatF32>(const NormalisedForwardPass&);
template void run_backward<float, device::FormatF32>(const NormalisedBackwardPass&);
template void run_forward<float, device::FormatTf32>(const NormalisedForwardPass&);
template void run_backward<float, device::FormatTf32>(const NormalisedBackwardPass&);
}  // namespace fusegen::cuda::normalised
