// run_backward (recurrent.h): the storage type and the way of a call are chosen here.
#pragma once
#include "backward.h"
#include "kernels/cpu/isa/vector/storage.h"
#include "recurrent.h"
#include "small_step_backward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <Cell cell>
void run_backward(const RecurrentBackward& p) {
  const cpu::Plan plan = cpu::plan_backward(p);
  with_storage(p.dtype, [&](auto s) {
    if (plan.small_step) SmallStepBackward<decltype(s), cell>(p, plan).run();
    else Backward<decltype(s), cell>(p, plan).run();
  });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
