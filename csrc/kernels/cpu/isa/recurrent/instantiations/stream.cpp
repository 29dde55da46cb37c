#include "kernels/cpu/isa/recurrent/stream.h"

namespace fusegen::FUSEGEN_ISA_NS {

template int64_t stream_bytes<Cell::lstm>(const Stream&);
template int64_t stream_bytes<Cell::gru>(const Stream&);
template int64_t stream_bytes<Cell::rnn_tanh>(const Stream&);
template void stream_begin<Cell::lstm>(const Stream&);
template void stream_begin<Cell::gru>(const Stream&);
template void stream_begin<Cell::rnn_tanh>(const Stream&);
template void stream_run<Cell::lstm>(const StreamRun&);
template void stream_run<Cell::gru>(const StreamRun&);
template void stream_run<Cell::rnn_tanh>(const StreamRun&);
template void stream_states<Cell::lstm>(const StreamStates&);
template void stream_states<Cell::gru>(const StreamStates&);
template void stream_states<Cell::rnn_tanh>(const StreamStates&);

}  // namespace fusegen::FUSEGEN_ISA_NS
