#include "kernels/cpu/isa/recurrent/backward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void sequence_backward<Cell::rnn_tanh>(const RecurrentBackward&, const cpu::Plan&);

}  // namespace fusegen::FUSEGEN_ISA_NS
