// What the rest of a recurrence calls of the wide kernels. No CUDA.
#pragma once
#include "../pass.h"

namespace fusegen::cuda::wide {

// Whether a plan is of these kernels: slices of 32 or 64 rows.
constexpr bool is_wide(const Plan& plan) { return plan.transport == Transport::l2 && plan.tiles >= 4; }

// Whether a forward pass can run by them: `plan` is then how.
bool plan_forward(Plan& plan, const LayerSizes& sizes, const Device& device);

// Rows of H numbers in one copy of what is handed on.
constexpr int64_t exchanged_rows(const Plan& plan, const LayerSizes& s) {
  return static_cast<int64_t>(s.D) * plan.groups * plan.slices * 8 * plan.tiles;
}

// In files of their own: instantiations/wide_*.cu. Of 16-bit numbers alone.
template <class T, class Fmt>
bool fits(const ForwardPass& pass);
template <class T, class Fmt>
void run(const ForwardPass& pass, const Workspace& workspace, unsigned char* memory);

}  // namespace fusegen::cuda::wide
