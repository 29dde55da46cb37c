// What each instruction set provides; isa/table.cpp fills one of these per set.
#pragma once
#include "kernels/params.h"

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
  int64_t (*conv_lanes)(Dtype);  // samples of a vector: a block's width is one to four times as many
  void (*conv_forward)(const ConvForward&);
  void (*conv_input_gradient)(const ConvInputGradient&);
  void (*conv_weight_gradient)(const ConvWeightGradient&);
  void (*batch_norm_forward)(const BatchNormForward&);
  void (*batch_norm_backward)(const BatchNormBackward&);
  double (*peak_gflops)(int threads);
};

// The set in use: the best of the machine, or the one that FUSEGEN_ISA names. Throws std::runtime_error.
const Kernels& kernels();
// Names of the sets that this build has and this machine can run, lowest first, separated by spaces.
const char* available_isas();

}  // namespace fusegen::cpu
