#include "kernels/cpu/isa/recurrent/small_step/backward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void small_step_backward<Cell::lstm>(const RecurrentBackward&, const cpu::Plan&);
template void small_step_backward<Cell::gru>(const RecurrentBackward&, const cpu::Plan&);
template void small_step_backward<Cell::rnn_tanh>(const RecurrentBackward&, const cpu::Plan&);

}  // namespace fusegen::FUSEGEN_ISA_NS
