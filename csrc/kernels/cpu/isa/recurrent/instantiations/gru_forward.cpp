#include "kernels/cpu/isa/recurrent/run_forward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void run_forward<Cell::gru>(const RecurrentForward&);

}  // namespace fusegen::FUSEGEN_ISA_NS
