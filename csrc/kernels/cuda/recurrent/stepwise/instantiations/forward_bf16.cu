#include "../run.h"

namespace fusegen::cuda {

template void stepwise::run<device::Bf16, device::FormatBf16>(const ForwardPass&);

}  // namespace fusegen::cuda
