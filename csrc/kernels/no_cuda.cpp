// Built where there is no CUDA backend: its functions, and one clear error. What plans for a device that is
// not here, the choose.cpp of cuda/recurrent and cuda/cell, is in every build.
#include <stdexcept>

#include "backend.h"
#include "backend_normalised.h"

namespace fusegen::cuda {
namespace {

[[noreturn]] void none() {
  throw std::runtime_error("fusegen: this build has no CUDA kernels (fusegen info says why)");
}

}  // namespace

int device_type() { return 2; }
Device device(int) { none(); }
Code code(int) { none(); }
void cell_forward(const CellForwardPass&) { none(); }
void cell_backward(const CellBackwardPass&) { none(); }
Transport forward(const ForwardPass&) { none(); }
Transport backward(const BackwardPass&) { none(); }
void normalised_forward(const NormalisedForwardPass&) { none(); }
void normalised_backward(const NormalisedBackwardPass&) { none(); }
void make_mask(const MaskPass&) { none(); }
int64_t mlp_saved_bytes(const MlpStep&) { none(); }
int64_t mlp_workspace_bytes(const MlpStep&) { none(); }
MlpRun mlp_forward(const MlpForwardPass&) { none(); }
MlpRun mlp_backward(const MlpBackwardPass&) { none(); }

}  // namespace fusegen::cuda
