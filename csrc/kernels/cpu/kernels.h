// What each instruction set provides; isa/table.cpp fills one of these per set.
#pragma once
#include "../params.h"

namespace fusegen::cpu {

struct Kernels {
  const char* isa;
  void (*forward)(const RecurrentForward&);
  void (*backward)(const RecurrentBackward&);
  int64_t (*packed_bytes)(const RecurrentPack&);
  void (*pack)(const RecurrentPack&);
  int64_t (*mlp_saved_bytes)(const MlpStep&);
  void (*mlp_forward)(const MlpForward&);
  void (*mlp_backward)(const MlpBackward&);
  double (*peak_gflops)(int threads);
};

// The set in use: the best of the machine, or the one that FUSEGEN_ISA names. Throws std::runtime_error.
const Kernels& kernels();
// Names of the sets that this build has and this machine can run, lowest first, separated by spaces.
const char* available_isas();

}  // namespace fusegen::cpu
