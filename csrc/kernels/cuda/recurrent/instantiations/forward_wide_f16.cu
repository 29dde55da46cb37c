#include "../wide/run.h"

namespace fusegen::cuda::wide {
template bool fits<device::F16, device::FormatF16>(const ForwardPass&);
template void run<device::F16, device::FormatF16>(const ForwardPass&, const Workspace&, unsigned char*);
}  // namespace fusegen::cuda::wide
