#include "kernels/cpu/isa/recurrent/small_step/forward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void small_step_forward<Cell::lstm>(const RecurrentForward&, const cpu::Plan&);
template void small_step_forward<Cell::gru>(const RecurrentForward&, const cpu::Plan&);
template void small_step_forward<Cell::rnn_tanh>(const RecurrentForward&, const cpu::Plan&);

}  // namespace fusegen::FUSEGEN_ISA_NS
