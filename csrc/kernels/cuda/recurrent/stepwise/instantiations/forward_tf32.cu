#include "../run.h"

namespace fusegen::cuda {

template void stepwise::run<float, device::FormatTf32>(const ForwardPass&);

}  // namespace fusegen::cuda
