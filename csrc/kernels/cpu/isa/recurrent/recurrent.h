// The kernels of a cell: whole sequences, and single steps of a few rows. Each is compiled in a file of its
// own (instantiations/), so that they build side by side. Cell::rnn_tanh stands for both plain cells, which
// differ in one function of an element.
#pragma once
#include <type_traits>

#include "kernels/cpu/plan.h"

namespace fusegen::FUSEGEN_ISA_NS {

// f(what a cell's kernels are compiled for, as a constant)
template <class F>
void with_cell(Cell cell, const F& f) {
  switch (cell) {
    case Cell::lstm: return f(std::integral_constant<Cell, Cell::lstm>{});
    case Cell::gru: return f(std::integral_constant<Cell, Cell::gru>{});
    case Cell::rnn_tanh:
    case Cell::rnn_relu: return f(std::integral_constant<Cell, Cell::rnn_tanh>{});
  }
}

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
