#include "discriminator.h"

namespace fusegen {
namespace {

// The step, held to what the kernels count in 32 bits.
struct GpuStep : CheckedMlpStep {
  cuda::MlpPlace place;

  explicit GpuStep(const GpuMlpCall& call) : CheckedMlpStep(call.step, cuda::device_type()) {
    check(p.dtype != Dtype::f64, "fake: expected float32, bfloat16 or float16, got float64");
    constexpr int64_t kMost = 1 << 24;
    check(p.real + p.fake + p.mixed <= kMost, "real, fake, mixed: expected at most 2^24 samples");
    check(p.inputs <= kMost, "fake: expected at most 2^24 inputs, got ", p.inputs);
    for (const DenseLayer& layer : layers)
      check(layer.outputs <= kMost, "weights: expected at most 2^24 outputs, got ", layer.outputs);
    place = {cuda::format_of(p.dtype, call.tf32), call.stream, site.device_id};
  }
};

void* memory(const View& v, const char* name, int64_t bytes, Site site) {
  check_tensor(required(v, name), name, {bytes}, ElementType::u8, site);
  check(reinterpret_cast<uintptr_t>(v.data) % 16 == 0, name, ": expected memory that begins on 16 bytes");
  return v.data;
}

float* scalar(const View& v, const char* name, Site site) {
  check_tensor(required(v, name), name, {}, ElementType::f32, site);
  return static_cast<float*>(v.data);
}

}  // namespace

int64_t gpu_mlp_saved_bytes(const GpuMlpCall& call) { return cuda::mlp_saved_bytes(GpuStep(call).p); }
int64_t gpu_mlp_workspace_bytes(const GpuMlpCall& call) { return cuda::mlp_workspace_bytes(GpuStep(call).p); }

cuda::MlpRun gpu_mlp_forward(const GpuMlpCall& call, const View& loss, const View& scalars,
                             const View& logits, const View& saved) {
  const GpuStep step(call);
  cuda::MlpForwardPass p{};
  static_cast<MlpStep&>(p) = step.p;
  static_cast<cuda::MlpPlace&>(p) = step.place;
  check_tensor(required(scalars, "scalars"), "scalars", {kMlpScalars}, ElementType::f64, step.site);
  p.scalars = static_cast<double*>(scalars.data);
  p.logits = vector(required(logits, "logits"), "logits", p.real + p.fake, step.e, step.site);
  p.saved = memory(saved, "saved", cuda::mlp_saved_bytes(p), step.site);
  p.loss_out = scalar(loss, "loss", step.site);
  return cuda::mlp_forward(p);
}

cuda::MlpRun gpu_mlp_backward(const GpuMlpCall& call, const View& scale, const View& saved,
                              const View& workspace, const MlpGradients& gradients) {
  const GpuStep step(call);
  cuda::MlpBackwardPass p{};
  static_cast<MlpStep&>(p) = step.p;
  static_cast<cuda::MlpPlace&>(p) = step.place;
  p.scale_in = scalar(scale, "scale", step.site);
  p.saved = memory(saved, "saved", cuda::mlp_saved_bytes(p), step.site);
  p.workspace = memory(workspace, "workspace", cuda::mlp_workspace_bytes(p), step.site);
  CheckedMlpGradients checked(step, gradients);
  checked.set(p);
  for (int i = 0; i < 2; ++i) {
    const int64_t n = i ? p.fake : p.real;
    check(!p.dx[i].data || n == 1 || p.dx[i].stride_b == p.inputs,
          "dx_real, dx_fake: expected contiguous tensors");
  }
  return cuda::mlp_backward(p);
}

}  // namespace fusegen
