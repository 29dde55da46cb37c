#include "recurrent.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void run_forward<Cell::gru>(const RecurrentForward&);
template void run_backward<Cell::gru>(const RecurrentBackward&);

}  // namespace fusegen::FUSEGEN_ISA_NS
