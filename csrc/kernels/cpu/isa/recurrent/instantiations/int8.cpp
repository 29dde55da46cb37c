#include "kernels/cpu/isa/recurrent/int8.h"

namespace fusegen::FUSEGEN_ISA_NS {

template void int8_forward<Cell::lstm>(const Int8Forward&, const cpu::Plan&);
template void int8_forward<Cell::gru>(const Int8Forward&, const cpu::Plan&);
template void int8_forward<Cell::rnn_tanh>(const Int8Forward&, const cpu::Plan&);

void int8_linear(const Int8Linear& p) {
  switch (p.dtype) {
    case Dtype::bf16: return int8_linear<bf16>(p);
    case Dtype::f16: return int8_linear<f16>(p);
    case Dtype::f32:
    case Dtype::f64: return int8_linear<float>(p);  // float64 is refused before
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
