#include "../run.h"

namespace fusegen::cuda {

template void stepwise::run<float, device::FormatTf32>(const BackwardPass&);

}  // namespace fusegen::cuda
