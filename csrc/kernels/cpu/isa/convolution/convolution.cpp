#include "convolution.h"

#include "batch_norm.h"

namespace fusegen::FUSEGEN_ISA_NS {
namespace {

template <template <class> class Pass, class Params>
void run(const Params& p) {
  if (p.dtype == Dtype::f64) Pass<double>(p).run();
  else Pass<float>(p).run();
}

}  // namespace

int64_t conv_lanes(Dtype dtype) { return dtype == Dtype::f64 ? kLanes<double> : kLanes<float>; }
void conv_forward(const ConvForward& p) { run<ConvForwardPass>(p); }
void conv_input_gradient(const ConvInputGradient& p) { run<ConvInputPass>(p); }
void conv_weight_gradient(const ConvWeightGradient& p) { run<ConvWeightPass>(p); }
void batch_norm_forward(const BatchNormForward& p) { run<BatchNormForwardPass>(p); }
void batch_norm_backward(const BatchNormBackward& p) { run<BatchNormBackwardPass>(p); }

}  // namespace fusegen::FUSEGEN_ISA_NS
