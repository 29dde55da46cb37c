// What a discriminator step is called with, on any device, and its checks.
#pragma once
#include <string>
#include <vector>

#include "checks.h"

namespace fusegen {

struct MlpCall {
  std::string loss;  // a name of GanLoss
  bool generator;
  double target, r1, r2, gp;
  double near_real, near_fake;
  int64_t counted;  // of the inputs; 0: all
  // [rows, inputs]; real absent in a generator's step without pairs, mixed without gp
  View real, fake, mixed;
  Views weights, biases;       // a bias may be absent
  std::vector<double> slopes;  // one less than weights
  // names of Activation, as many as slopes; none: all are piecewise linear
  std::vector<std::string> activations;
  std::vector<double> dropouts;  // of what each layer reads; none: nothing is dropped
  View key;                      // int64 in host memory; absent where nothing is dropped
  bool weight_gradients, dx_real, dx_fake;
  int threads;  // of the CPU
};

// The checked step; the layers that it points to live beside it.
struct CheckedMlpStep {
  MlpStep p{};
  std::vector<DenseLayer> layers;
  ElementType e;
  Site site;

  // All tensors lie on devices of this type.
  CheckedMlpStep(const MlpCall& call, int device_type);
  CheckedMlpStep(const CheckedMlpStep&) = delete;

private:
  void set_approximate(const MlpCall& call);
  void set_layers(const MlpCall& call);
  void set_dropouts(const MlpCall& call);
};

// Where backward's gradients go; what is absent is not wanted.
struct MlpGradients {
  Views dweights, dbiases;
  View dx_real, dx_fake;
};

// The same checked against the step.
struct CheckedMlpGradients {
  std::vector<Matrix> dW;
  std::vector<void*> db;
  Rows dx[2];

  CheckedMlpGradients(const CheckedMlpStep& step, const MlpGradients& gradients);
  void set(MlpBackward& p);  // which then points into this
};

}  // namespace fusegen
