#include "../run.h"

namespace fusegen::cuda::normalised {
template void run_forward<device::Bf16, device::FormatBf16>(const NormalisedForwardPass&);
template void run_backward<device::Bf16, device::FormatBf16>(const NormalisedBackwardPass&);
}  // namespace fusegen::cuda::normalised
