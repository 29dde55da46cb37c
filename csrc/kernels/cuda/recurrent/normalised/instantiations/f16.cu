#include "../run.h"

namespace fusegen::cuda::normalised {
template void run_forward<device::F16, device::FormatF16>(const NormalisedForwardPass&);
template void run_backward<device::F16, device::FormatF16>(const NormalisedBackwardPass&);
}  // namespace fusegen::cuda::normalised
