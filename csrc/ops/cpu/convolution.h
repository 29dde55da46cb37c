// Convolutions and batch norms on the CPU: checks, then the kernel. Shapes are those of params.h; every
// tensor is contiguous.
#pragma once
#include "ops/checks.h"

namespace fusegen {

// height and width of the input, then of stride, padding and dilation
struct ConvGeometry {
  int64_t in[2], stride[2], padding[2], dilation[2];
  int64_t groups;
  int threads;
};

// Samples that a vector of this dtype holds: a block's width is one to four times as many. Throws for 16-bit
// dtypes.
int64_t conv_lanes(Dtype dtype);

void conv_forward(const ConvGeometry& g, const View& x, const View& W, const View& b, double slope,
                  const View& y);
void conv_input_gradient(const ConvGeometry& g, const View& dy, const View& W, const View& below,
                         double slope, const View& dx);
void conv_weight_gradient(const ConvGeometry& g, const View& dy, const View& x, const View& dW);

struct BatchNormCall {
  int64_t n;  // samples
  double eps, slope;
  int threads;
};

// weight and bias may be absent; y, mean and var are written.
struct BatchNormTensors {
  View x, weight, bias, y, mean, var;
};
// y, mean and var are forward's; dx may be absent, dweight and dbias are written.
struct BatchNormGradients {
  View dy, y, x, weight, mean, var;
  View dx, dweight, dbias;
};

void batch_norm_forward(const BatchNormCall& call, const BatchNormTensors& t);
void batch_norm_backward(const BatchNormCall& call, const BatchNormGradients& t);

}  // namespace fusegen
