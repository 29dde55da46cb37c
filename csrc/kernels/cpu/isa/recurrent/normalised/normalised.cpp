#include "kernels/normalised.h"

#include "kernels/cpu/isa/recurrent/recurrent.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <Cell cell>
void normalised_forward_of(const NormalisedForward& p);
template <Cell cell>
void normalised_backward_of(const NormalisedBackward& p);

void normalised_forward(const NormalisedForward& p) {
  with_cell(p.cell, [&](auto cell) { normalised_forward_of<cell>(p); });
}

void normalised_backward(const NormalisedBackward& p) {
  with_cell(p.cell, [&](auto cell) { normalised_backward_of<cell>(p); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
