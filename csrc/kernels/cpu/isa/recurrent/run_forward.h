// run_forward (recurrent.h): the storage type and the way of a call are chosen here.
#pragma once
#include "forward.h"
#include "kernels/cpu/isa/vector/storage.h"
#include "recurrent.h"
#include "small_step_forward.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <Cell cell>
void run_forward(const RecurrentForward& p) {
  const cpu::Plan plan = cpu::plan_forward(p);
  with_storage(p.dtype, [&](auto s) {
    if (plan.small_step && !p.packed) SmallStepForward<decltype(s), cell>(p, plan).run();
    else Forward<decltype(s), cell>(p, plan).run();
  });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
