// What a layer computes, in double precision and one line per formula: the oracle of the engine's tests.
#pragma once
#include <cmath>
#include <vector>

#include "kernels/params.h"

namespace fusegen::test {

using Values = std::vector<double>;

struct Layer {
  Cell cell;
  int64_t T, B, I, H, P, D;  // P == H: no projection
  Values x, h0, c0;          // [T,B,I], [D,B,P], [D,B,H]; empty states: zero
  // per direction W [G*H,I], R [G*H,P], b_ih, b_hh [G*H], W_hr [P,H]; empty: absent
  std::vector<Values> weights;
  std::vector<int64_t> lengths;  // [B]; empty: all T
};

struct Outputs {
  Values y, h_n, c_n;  // [T,B,D*P], [D,B,P], [D,B,H]
};

inline double sigmoid(double v) { return 1 / (1 + std::exp(-v)); }

// out[j] = sum_k m[j,k] v[k] + bias[j]
inline Values affine(const Values& m, const double* v, int64_t columns, const Values& bias) {
  Values out(m.size() / columns);
  for (size_t j = 0; j < out.size(); ++j) {
    for (int64_t k = 0; k < columns; ++k) out[j] += m[j * columns + k] * v[k];
    if (!bias.empty()) out[j] += bias[j];
  }
  return out;
}

inline Outputs reference(const Layer& l) {
  const int64_t H = l.H, P = l.P;
  Outputs out{Values(l.T * l.B * l.D * P), Values(l.D * l.B * P), Values(l.D * l.B * H)};
  const size_t per_direction = l.weights.size() / l.D;
  for (int64_t d = 0; d < l.D; ++d) {
    const Values* w = &l.weights[d * per_direction];
    for (int64_t b = 0; b < l.B; ++b) {
      Values h(P), c(H);
      for (int64_t j = 0; j < P && !l.h0.empty(); ++j) h[j] = l.h0[(d * l.B + b) * P + j];
      for (int64_t j = 0; j < H && !l.c0.empty(); ++j) c[j] = l.c0[(d * l.B + b) * H + j];
      const int64_t length = l.lengths.empty() ? l.T : l.lengths[b];
      for (int64_t s = 0; s < length; ++s) {
        const int64_t t = d == 0 ? s : length - 1 - s;
        const Values in = affine(w[0], &l.x[(t * l.B + b) * l.I], l.I, w[2]);
        const Values re = affine(w[1], h.data(), P, w[3]);
        Values next(H);
        for (int64_t j = 0; j < H; ++j) {
          const auto gate = [&](int64_t g) { return in[g * H + j] + re[g * H + j]; };
          if (l.cell == Cell::lstm) {
            c[j] = sigmoid(gate(1)) * c[j] + sigmoid(gate(0)) * std::tanh(gate(2));
            next[j] = sigmoid(gate(3)) * std::tanh(c[j]);
          } else if (l.cell == Cell::gru) {
            const double n = std::tanh(in[2 * H + j] + sigmoid(gate(0)) * re[2 * H + j]);
            const double z = sigmoid(gate(1));
            next[j] = (1 - z) * n + z * h[j];
          } else {
            next[j] = l.cell == Cell::rnn_tanh ? std::tanh(gate(0)) : gate(0) < 0 ? 0 : gate(0);
          }
        }
        h = P == H ? next : affine(w[4], next.data(), H, {});
        for (int64_t j = 0; j < P; ++j) out.y[((t * l.B + b) * l.D + d) * P + j] = h[j];
      }
      for (int64_t j = 0; j < P; ++j) out.h_n[(d * l.B + b) * P + j] = h[j];
      for (int64_t j = 0; j < H; ++j) out.c_n[(d * l.B + b) * H + j] = c[j];
    }
  }
  return out;
}

}  // namespace fusegen::test
