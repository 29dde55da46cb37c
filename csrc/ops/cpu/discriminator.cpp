#include "discriminator.h"

#include "kernels/cpu/discriminator.h"

namespace fusegen {
namespace {

constexpr int kCpu = 1;  // DLPack's number

void* saved_memory(const View& saved, const MlpStep& p) {
  check_tensor(saved, "saved", {cpu::mlp_saved_bytes(p)}, ElementType::u8);
  return saved.data;
}

}  // namespace

int64_t mlp_saved_bytes(const MlpCall& call) { return cpu::mlp_saved_bytes(CheckedMlpStep(call, kCpu).p); }

void mlp_forward(const MlpCall& call, const View& loss, const View& scalars, const View& logits,
                 const View& saved) {
  const CheckedMlpStep step(call, kCpu);
  MlpForward p{};
  static_cast<MlpStep&>(p) = step.p;
  const ElementType wide = wide_type(p.dtype);
  check_tensor(required(loss, "loss"), "loss", {}, wide);
  check_tensor(required(scalars, "scalars"), "scalars", {kMlpScalars}, ElementType::f64);
  p.scalars = static_cast<double*>(scalars.data);
  p.logits = vector(required(logits, "logits"), "logits", p.real + p.fake, step.e);
  p.saved = saved_memory(saved, p);
  cpu::mlp_forward(p);
  if (wide == ElementType::f64) *static_cast<double*>(loss.data) = p.scalars[kLoss];
  else *static_cast<float*>(loss.data) = static_cast<float>(p.scalars[kLoss]);
}

void mlp_backward(const MlpCall& call, double scale, const View& saved, const MlpGradients& gradients) {
  const CheckedMlpStep step(call, kCpu);
  MlpBackward p{};
  static_cast<MlpStep&>(p) = step.p;
  p.scale = scale;
  p.saved = saved_memory(saved, p);
  CheckedMlpGradients checked(step, gradients);
  checked.set(p);
  cpu::mlp_backward(p);
}

}  // namespace fusegen
