// One instantiation a cell and direction of time; the storage type and the way of the call are chosen here.
#pragma once
#include "kernels/cpu/isa/vector/dispatch.h"
#include "small_step.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <Cell cell>
void run_forward(const RecurrentForward& p) {
  const bool small = !p.packed && cpu::plan_forward(p).small_step;
  with_storage(p.dtype, [&](auto s) {
    if (small) SmallStepForward<decltype(s), cell>(p).run();
    else Forward<decltype(s), cell>(p).run();
  });
}

template <Cell cell>
void run_backward(const RecurrentBackward& p) {
  const bool small = cpu::plan_backward(p).small_step;
  with_storage(p.dtype, [&](auto s) {
    if (small) SmallStepBackward<decltype(s), cell>(p).run();
    else Backward<decltype(s), cell>(p).run();
  });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
