// One instantiation a cell and direction of time; the storage type is chosen here.
#pragma once
#include "backward.h"
#include "dispatch.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <Cell cell>
void run_forward(const RecurrentForward& p) {
  with_storage(p.dtype, [&](auto s) { Forward<decltype(s), cell>(p).run(); });
}

template <Cell cell>
void run_backward(const RecurrentBackward& p) {
  with_storage(p.dtype, [&](auto s) { Backward<decltype(s), cell>(p).run(); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
