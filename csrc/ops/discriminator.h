// What a discriminator step is called with, on any device, and its checks.
#pragma once
#include <string>

#include "checks.h"

namespace fusegen {

struct MlpCall {
  std::string loss;  // a name of GanLoss
  bool generator;
  double target, r1, r2, gp;
  // [rows, inputs]; real absent in a generator's step without pairs, mixed without gp
  View real, fake, mixed;
  Views weights, biases;       // a bias may be absent
  std::vector<double> slopes;  // one less than weights
  bool weight_gradients, dx_real, dx_fake;
  int threads;  // of the CPU
};

void expect(bool holds, const std::string& what);

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
  void set_layers(const MlpCall& call);
};

// Where backward's gradients go, checked against the step.
struct MlpGradients {
  std::vector<Matrix> dW;
  std::vector<void*> db;

  MlpGradients(const CheckedMlpStep& step, const Views& dweights, const Views& dbiases);
};
void set_outputs(MlpBackward& p, const CheckedMlpStep& step, MlpGradients& gradients, const View& dx_real,
                 const View& dx_fake);

}  // namespace fusegen
