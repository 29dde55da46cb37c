#include "discriminator.h"

#include "kernels/cpu/kernels.h"

namespace fusegen {
namespace {

constexpr int kCpu = 1;  // DLPack's number

void* saved_memory(const View& saved, const MlpStep& p) {
  check(saved, "saved", {cpu::kernels().mlp_saved_bytes(p)}, ElementType::u8);
  return saved.data;
}

}  // namespace

int64_t mlp_saved_bytes(const MlpCall& call) {
  return cpu::kernels().mlp_saved_bytes(CheckedMlpStep(call, kCpu).p);
}

void mlp_forward(const MlpCall& call, const View& loss, const View& scalars, const View& logits,
                 const View& saved) {
  const CheckedMlpStep step(call, kCpu);
  MlpForward p{};
  static_cast<MlpStep&>(p) = step.p;
  const bool wide = p.dtype == Dtype::f64;
  check(required(loss, "loss"), "loss", {}, wide ? ElementType::f64 : ElementType::f32);
  check(required(scalars, "scalars"), "scalars", {kMlpScalars}, ElementType::f64);
  p.scalars = static_cast<double*>(scalars.data);
  p.logits = vector(required(logits, "logits"), "logits", p.real + p.fake, step.e);
  p.saved = saved_memory(saved, p);
  cpu::kernels().mlp_forward(p);
  if (wide) *static_cast<double*>(loss.data) = p.scalars[kLoss];
  else *static_cast<float*>(loss.data) = static_cast<float>(p.scalars[kLoss]);
}

void mlp_backward(const MlpCall& call, double scale, const View& saved, const Views& dweights,
                  const Views& dbiases, const View& dx_real, const View& dx_fake) {
  const CheckedMlpStep step(call, kCpu);
  MlpBackward p{};
  static_cast<MlpStep&>(p) = step.p;
  p.scale = scale;
  p.saved = saved_memory(saved, p);
  MlpGradients gradients(step, dweights, dbiases);
  set_outputs(p, step, gradients, dx_real, dx_fake);
  cpu::kernels().mlp_backward(p);
}

}  // namespace fusegen
