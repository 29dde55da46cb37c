#include "kernels/cpu/isa/recurrent/forward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void sequence_forward<Cell::lstm>(const RecurrentForward&, const cpu::Plan&);

}  // namespace fusegen::FUSEGEN_ISA_NS
