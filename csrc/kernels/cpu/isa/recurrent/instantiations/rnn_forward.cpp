#include "kernels/cpu/isa/recurrent/forward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void sequence_forward<Cell::rnn_tanh>(const RecurrentForward&, const cpu::Plan&);

}  // namespace fusegen::FUSEGEN_ISA_NS
