#include "recurrent.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void run_forward<Cell::rnn_tanh>(const RecurrentForward&);
template void run_backward<Cell::rnn_tanh>(const RecurrentBackward&);
template void run_forward<Cell::rnn_relu>(const RecurrentForward&);
template void run_backward<Cell::rnn_relu>(const RecurrentBackward&);

}  // namespace fusegen::FUSEGEN_ISA_NS
