#include "../run.h"

namespace fusegen::cuda {

template void stepwise::run<float, device::FormatF32>(const ForwardPass&);

}  // namespace fusegen::cuda
