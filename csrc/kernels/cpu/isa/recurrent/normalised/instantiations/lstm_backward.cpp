#include "kernels/cpu/isa/recurrent/normalised/backward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void normalised_backward_of<Cell::lstm>(const NormalisedBackward&);

}  // namespace fusegen::FUSEGEN_ISA_NS
