#include "kernels/cpu/isa/recurrent/backward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void sequence_backward<Cell::lstm>(const RecurrentBackward&, const cpu::Plan&);

}  // namespace fusegen::FUSEGEN_ISA_NS
