#include "../wide/run.h"

namespace fusegen::cuda::wide {
template bool fits<device::Bf16, device::FormatBf16>(const ForwardPass&);
template void run<device::Bf16, device::FormatBf16>(const ForwardPass&, const Workspace&, unsigned char*);
}  // namespace fusegen::cuda::wide
