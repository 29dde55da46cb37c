#include "../run.h"

namespace fusegen::cuda {

template void stepwise::run<device::F16, device::FormatF16>(const ForwardPass&);

}  // namespace fusegen::cuda
