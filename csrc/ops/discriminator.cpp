#include "discriminator.h"

namespace fusegen {
namespace {

constexpr int kHost = 1;  // DLPack's number of host memory

GanLoss loss_named(const std::string& name) {
  if (name == "non_saturating") return GanLoss::non_saturating;
  if (name == "minimax") return GanLoss::minimax;
  if (name == "hinge") return GanLoss::hinge;
  if (name == "least_squares") return GanLoss::least_squares;
  if (name == "wasserstein") return GanLoss::wasserstein;
  if (name == "relativistic") return GanLoss::relativistic;
  detail::fail(
      "loss: expected non_saturating, minimax, hinge, least_squares, wasserstein or relativistic, got '",
      name, "'");
}

Activation activation_named(const std::string& name) {
  if (name == "piecewise_linear") return Activation::piecewise_linear;
  if (name == "tanh") return Activation::tanh;
  if (name == "sigmoid") return Activation::sigmoid;
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "elu") return Activation::elu;
  detail::fail("activations: expected piecewise_linear, tanh, sigmoid, silu, gelu, gelu_tanh or elu, got '",
               name, "'");
}

Rows samples(const View& v, const char* name, int64_t inputs, ElementType e, Site site, int64_t& count) {
  count = v ? v.shape[0] : 0;
  return rows(v, name, {count, inputs}, e, site);
}

}  // namespace

CheckedMlpStep::CheckedMlpStep(const MlpCall& call, int device_type) {
  const View& fake = required(call.fake, "fake");
  check(fake.ndim == 2, "fake: expected shape [N, inputs], got ", fake);
  site = {device_type, fake.device_id};
  p.dtype = float_dtype(fake, "fake");
  e = element_type(p.dtype);
  p.loss = loss_named(call.loss);
  p.generator = call.generator;
  p.target = call.target;
  p.r1 = call.r1;
  p.r2 = call.r2;
  p.gp = call.gp;
  check(p.r1 >= 0 && p.r2 >= 0 && p.gp >= 0, "r1, r2, gp: expected weights of at least 0");
  p.inputs = fake.shape[1];
  p.x_real = samples(call.real, "real", p.inputs, e, site, p.real);
  p.x_fake = samples(fake, "fake", p.inputs, e, site, p.fake);
  p.x_mixed = samples(call.mixed, "mixed", p.inputs, e, site, p.mixed);
  check(p.inputs > 0 && p.fake > 0, "fake: expected at least one sample and one input, got ", fake);
  check(p.generator || p.real > 0, "real: expected at least one sample");
  check((p.gp > 0) == (p.mixed > 0), "mixed: expected samples where gp is above 0, and only there");
  check(!p.generator || (p.r1 == 0 && p.r2 == 0 && p.gp == 0),
        "r1, r2, gp: expected 0 in a generator's step");
  set_approximate(call);
  check(call.counted >= 0 && call.counted <= p.inputs, "counted: expected 0 to ", p.inputs, ", got ",
        call.counted);
  p.counted = call.counted ? call.counted : p.inputs;
  set_layers(call);
  set_dropouts(call);
  p.weight_gradients = call.weight_gradients && !p.generator;
  p.dx_real = call.dx_real && p.real > 0;
  p.dx_fake = call.dx_fake;
  p.threads = call.threads > 0 ? call.threads : 1;
}

void CheckedMlpStep::set_approximate(const MlpCall& call) {
  p.near_real = call.near_real;
  p.near_fake = call.near_fake;
  check(p.near_real >= 0 && p.near_fake >= 0 && !(p.generator && (p.near_real > 0 || p.near_fake > 0)),
        "near_real, near_fake: expected weights of at least 0, and 0 in a generator's step");
  check(!(p.near_real > 0 && (p.r1 > 0 || p.real % 2)) && !(p.near_fake > 0 && (p.r2 > 0 || p.fake % 2)),
        "near_real, near_fake: expected samples and as many with noise, and no exact penalty on them");
  check(p.loss != GanLoss::relativistic || own_real(p) == own_fake(p),
        "real, fake: expected equal sizes for the relativistic loss, got ", own_real(p), " and ",
        own_fake(p));
}

void CheckedMlpStep::set_layers(const MlpCall& call) {
  const size_t depth = call.weights.size();
  check(depth > 0 && call.biases.size() == depth && call.slopes.size() + 1 == depth,
        "weights, biases, slopes: expected n, n and n - 1 of them, got ", depth, ", ", call.biases.size(),
        " and ", call.slopes.size());
  check(call.activations.empty() || call.activations.size() + 1 == depth, "activations: expected none or ",
        depth - 1, ", got ", call.activations.size());
  int64_t inputs = p.inputs;
  for (size_t l = 0; l < depth; ++l) {
    const View& W = required(call.weights[l], "weights");
    check(W.ndim == 2 && W.shape[1] == inputs && W.shape[0] > 0, "weights[", l,
          "]: expected shape [outputs, ", inputs, "], got ", W);
    const int64_t outputs = W.shape[0];
    const Activation activation =
        l < call.activations.size() ? activation_named(call.activations[l]) : Activation::piecewise_linear;
    const double slope = l + 1 < depth ? call.slopes[l] : 1.0;
    check(slope >= 0 || activation == Activation::elu, "slopes: expected values of at least 0, got ", slope);
    layers.push_back({.W = matrix(W, "weights", {outputs, inputs}, e, site),
                      .b = vector(call.biases[l], "biases", outputs, e, site),
                      .outputs = outputs,
                      .activation = activation,
                      .slope = slope,
                      .dropout = 0});
    inputs = outputs;
  }
  check(inputs == 1, "weights: expected the last layer to have one output, got ", inputs);
  p.layers = layers.data();
  p.depth = static_cast<int>(depth);
}

void CheckedMlpStep::set_dropouts(const MlpCall& call) {
  const std::vector<double>& dropouts = call.dropouts;
  if (dropouts.empty()) return;
  check(dropouts.size() == layers.size(), "dropouts: expected none or ", layers.size(), ", got ",
        dropouts.size());
  bool drops = false;
  for (size_t l = 0; l < layers.size(); ++l) {
    check(dropouts[l] >= 0 && dropouts[l] < 1, "dropouts: expected values of at least 0 and below 1, got ",
          dropouts[l]);
    layers[l].dropout = dropouts[l];
    drops = drops || dropouts[l] > 0;
  }
  if (!drops) return;
  const View& key = required(call.key, "key");
  check(key.dtype == ElementType::i64 && key.ndim == 0 && key.device_type == kHost,
        "key: expected an int64 in host memory, got ", key);
  p.key = *static_cast<const uint64_t*>(key.data);
}

CheckedMlpGradients::CheckedMlpGradients(const CheckedMlpStep& step, const MlpGradients& gradients) {
  const Views &dweights = gradients.dweights, &dbiases = gradients.dbiases;
  const MlpStep& p = step.p;
  const size_t depth = step.layers.size();
  check(dweights.size() == depth && dbiases.size() == depth, "dweights, dbiases: expected ", depth,
        " tensors or None each");
  int64_t inputs = p.inputs;
  for (size_t l = 0; l < depth; ++l) {
    const int64_t outputs = step.layers[l].outputs;
    dW.push_back(matrix(dweights[l], "dweights", {outputs, inputs}, step.e, step.site));
    check(!dW[l].data || outputs == 1 || dW[l].stride == inputs, "dweights: expected contiguous tensors");
    db.push_back(vector(dbiases[l], "dbiases", outputs, step.e, step.site));
    check(p.weight_gradients || (!dW[l].data && !db[l]),
          "dweights, dbiases: expected None without weight_gradients");
    inputs = outputs;
  }
  dx[0] = rows(gradients.dx_real, "dx_real", {p.real, p.inputs}, step.e, step.site);
  dx[1] = rows(gradients.dx_fake, "dx_fake", {p.fake, p.inputs}, step.e, step.site);
  check((p.dx_real || !dx[0].data) && (p.dx_fake || !dx[1].data),
        "dx_real, dx_fake: not what forward was told");
}

void CheckedMlpGradients::set(MlpBackward& p) {
  p.dW = dW.data();
  p.db = db.data();
  p.dx[0] = dx[0];
  p.dx[1] = dx[1];
}

}  // namespace fusegen
