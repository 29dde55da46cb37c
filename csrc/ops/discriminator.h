// The discriminator step of a dense network: checks, then the kernel. Shapes are those of params.h.
#pragma once
#include <string>

#include "view.h"

namespace fusegen {

struct MlpCall {
  std::string loss;  // a name of GanLoss
  bool generator;
  double target, r1, r2, gp;
  View real, fake, mixed;  // [rows, inputs]; real absent in a generator's step without pairs, mixed without gp
  Views weights, biases;   // a bias may be absent
  std::vector<double> slopes;  // one less than weights
  bool weight_gradients, dx_real, dx_fake;
  int threads;
};

int64_t mlp_saved_bytes(const MlpCall& call);
void mlp_forward(const MlpCall& call, const View& scalars, const View& logits, const View& saved);
void mlp_backward(const MlpCall& call, double scale, const View& saved, const Views& dweights, const Views& dbiases,
                  const View& dx_real, const View& dx_fake);

}  // namespace fusegen
