// The kernels of a cell: whole sequences, and single steps of a few rows. Each is compiled in a file of its
// own (instantiations/), so that they build side by side. Cell::rnn_tanh stands for both plain cells, which
// differ in one function of an element.
#pragma once
#include "kernels/cpu/plan.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <Cell cell>
void sequence_forward(const RecurrentForward& p, const cpu::Plan& plan);
template <Cell cell>
void sequence_backward(const RecurrentBackward& p, const cpu::Plan& plan);
template <Cell cell>
void small_step_forward(const RecurrentForward& p, const cpu::Plan& plan);
template <Cell cell>
void small_step_backward(const RecurrentBackward& p, const cpu::Plan& plan);

template <Cell cell>
int64_t stream_bytes(const Stream& p);
template <Cell cell>
void stream_begin(const Stream& p);
template <Cell cell>
void stream_run(const StreamRun& p);
template <Cell cell>
void stream_states(const StreamStates& p);

}  // namespace fusegen::FUSEGEN_ISA_NS
