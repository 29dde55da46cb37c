// Backward of a unit's step (the maths of kernels/cells.h) in two parts: what multiplies the gradients,
// worked out while those of the next step are on their way, and the products. The order of the factors
// differs from cells.h, hence the last bits.
#pragma once
#include "../../../cells.h"
#include "../../sigmoid_tanh.h"

namespace fusegen::cuda {

struct LstmSlopes {
  float i, f, g, o;  // of the pre-activations: o's by dh, the others' by the whole gradient of c_t
  float c;           // of c_t by h_t
  float c_prev;
};

FUSEGEN_DEVICE LstmSlopes lstm_slopes(float i, float f, float g, float o, float c_prev, float c) {
  const float tc = Math::tanh(c);
  return {g * i * (1 - i), c_prev * f * (1 - f), i * (1 - g * g), tc * o * (1 - o), o * (1 - tc * tc), f};
}
// dc: the gradient that reaches c_t from step t+1; dh: the whole gradient of h_t.
FUSEGEN_DEVICE cells::LstmGradient<float> lstm_gradient(const LstmSlopes& s, float dh, float dc) {
  const float d = dc + dh * s.c;
  return {d * s.i, d * s.f, d * s.g, dh * s.o, d, d * s.c_prev};
}

struct GruSlopes {
  float n;     // of x_n, by dh
  float q, r;  // of q and a_r, by n's
  float z, h_prev;
};

FUSEGEN_DEVICE GruSlopes gru_slopes(float r, float z, float n, float q, float h_prev) {
  return {(1 - z) * (1 - n * n), r, q * r * (1 - r), (h_prev - n) * z * (1 - z), z};
}
FUSEGEN_DEVICE cells::GruGradient<float> gru_gradient(const GruSlopes& s, float dh) {
  const float n = dh * s.n;
  return {n * s.r, dh * s.z, n, n * s.q, dh * s.h_prev};
}

}  // namespace fusegen::cuda
