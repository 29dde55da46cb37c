#include "kernels/cpu/isa/recurrent/normalised/forward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void normalised_forward_of<Cell::lstm>(const NormalisedForward&);

}  // namespace fusegen::FUSEGEN_ISA_NS
