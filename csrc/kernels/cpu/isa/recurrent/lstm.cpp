#include "recurrent.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void run_forward<Cell::lstm>(const RecurrentForward&);
template void run_backward<Cell::lstm>(const RecurrentBackward&);

}  // namespace fusegen::FUSEGEN_ISA_NS
