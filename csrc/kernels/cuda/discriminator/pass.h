// What the files of the discriminator step call of each other.
#pragma once
#include "arguments.h"

namespace fusegen::cuda {

// Whether a step runs the kernels of plain chains: those without the options that arguments.h names.
inline bool plain(const MlpStep& p) {
  bool all = p.near_real == 0 && p.near_fake == 0 && p.counted == p.inputs;
  for (int l = 0; l < p.depth; ++l) all = all && plain(p.layers[l]);
  return all;
}

// One instance a format of plain steps, and one of others, each in a file of its own; see backend.h for what
// they return.
template <class T, class Fmt, bool plain>
MlpRun run_mlp_forward(const MlpForwardPass& p);
template <class T, class Fmt, bool plain>
MlpRun run_mlp_backward(const MlpBackwardPass& p);

}  // namespace fusegen::cuda
