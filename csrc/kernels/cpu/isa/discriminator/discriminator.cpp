#include "backward.h"
#include "forward.h"
#include "kernels/cpu/isa/vector/storage.h"

namespace fusegen::FUSEGEN_ISA_NS {

int64_t mlp_saved_bytes(const MlpStep& p) {
  cpu::Arena measure{cpu::Arena::Measure{}};
  with_storage(p.dtype, [&](auto s) { MlpSaved<Compute<decltype(s)>>(p, measure); });
  return static_cast<int64_t>(measure.used()) + 64;  // the first block starts on a line
}

void mlp_forward(const MlpForward& p) {
  with_storage(p.dtype, [&](auto s) { MlpForwardStep<decltype(s)>(p).run(); });
}

void mlp_backward(const MlpBackward& p) {
  with_storage(p.dtype, [&](auto s) { MlpBackwardStep<decltype(s)>(p).run(); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
