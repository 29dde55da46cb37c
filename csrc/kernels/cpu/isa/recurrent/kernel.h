// What every kernel of a recurrence has: its types, what it is given, and how it is to go.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cells.h"
#include "kernels/cpu/arena.h"
#include "kernels/cpu/isa/vector/rows.h"
#include "kernels/cpu/isa/vector/storage.h"
#include "kernels/cpu/isa/vector/team.h"
#include "kernels/cpu/isa/vector/vmath.h"
#include "recurrent.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class Params, class S, Cell cell>
class RecurrentKernel {
protected:
  using C = Compute<S>;
  using V = Vector<C>;
  static constexpr int L = kLanes<C>;
  static constexpr int G = gate_count(cell);

  const Params& p_;
  const cpu::Plan plan_;
  const bool relu_;  // of a plain cell

  RecurrentKernel(const Params& p, const cpu::Plan& plan)
      : p_(p), plan_(plan), relu_(p.cell == Cell::rnn_relu) {}
};

}  // namespace fusegen::FUSEGEN_ISA_NS
