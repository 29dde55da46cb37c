#include "kernels/cpu/isa/recurrent/run_backward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void run_backward<Cell::lstm>(const RecurrentBackward&);

}  // namespace fusegen::FUSEGEN_ISA_NS
