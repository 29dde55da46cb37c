// The element maths of the cells, for one unit or one vector of units, host and device.
//
// `Math` supplies sigmoid(V) and tanh(V); V is float, double or a vector of either. Derivatives are
// written from the outputs of the activations, so that backward needs the saved gates alone.
#pragma once
#include "activations.h"

namespace fusegen::cells {

// c = f c' + i g,  h = o tanh(c)                                      (torch.nn.LSTM)
template <class V>
struct LstmState {
  V i, f, g, o, c, h;
};

// In two parts, since those of several rows run side by side: the gates, then the state.
template <class V>
struct LstmGates {
  V i, f, g, o;
};

template <class Math, class V>
FUSEGEN_HOST_DEVICE LstmGates<V> lstm_gates(V a_i, V a_f, V a_g, V a_o) {
  return {Math::sigmoid(a_i), Math::sigmoid(a_f), Math::tanh(a_g), Math::sigmoid(a_o)};
}

template <class Math, class V>
FUSEGEN_HOST_DEVICE LstmState<V> lstm_state(const LstmGates<V>& gates, V c_prev) {
  LstmState<V> s{gates.i, gates.f, gates.g, gates.o, gates.f * c_prev + gates.i * gates.g, {}};
  s.h = s.o * Math::tanh(s.c);
  return s;
}

template <class Math, class V>
FUSEGEN_HOST_DEVICE LstmState<V> lstm(V a_i, V a_f, V a_g, V a_o, V c_prev) {
  return lstm_state<Math, V>(lstm_gates<Math, V>(a_i, a_f, a_g, a_o), c_prev);
}

template <class V>
struct LstmGradient {
  V i, f, g, o;  // of the pre-activations
  V c, c_prev;
};

// dc holds the gradient that reaches c_t from step t+1; dh the whole gradient of h_t.
template <class Math, class V>
FUSEGEN_HOST_DEVICE LstmGradient<V> lstm_backward(V i, V f, V g, V o, V c_prev, V c, V dh, V dc) {
  const V tc = Math::tanh(c);
  const V d = dc + dh * o * (1 - tc * tc);
  LstmGradient<V> r;
  r.i = d * g * i * (1 - i);
  r.f = d * c_prev * f * (1 - f);
  r.g = d * i * (1 - g * g);
  r.o = dh * tc * o * (1 - o);
  r.c = d;
  r.c_prev = d * f;
  return r;
}

// n = tanh(x_n + r q),  h = n + z (h' - n),  q = R_n h' + b_hn        (torch.nn.GRU)
template <class V>
struct GruState {
  V r, z, n, h;
};

// In two parts, as above.
template <class V>
struct GruGates {
  V r, z;
};

template <class Math, class V>
FUSEGEN_HOST_DEVICE GruGates<V> gru_gates(V a_r, V a_z) {
  return {Math::sigmoid(a_r), Math::sigmoid(a_z)};
}

template <class Math, class V>
FUSEGEN_HOST_DEVICE GruState<V> gru_state(const GruGates<V>& gates, V x_n, V q, V h_prev) {
  GruState<V> s{gates.r, gates.z, Math::tanh(x_n + gates.r * q), {}};
  s.h = s.n + s.z * (h_prev - s.n);
  return s;
}

template <class Math, class V>
FUSEGEN_HOST_DEVICE GruState<V> gru(V a_r, V a_z, V x_n, V q, V h_prev) {
  return gru_state<Math, V>(gru_gates<Math, V>(a_r, a_z), x_n, q, h_prev);
}

template <class V>
struct GruGradient {
  V r, z, n, q;  // of a_r, a_z, x_n and q
  V h_prev;      // the part that reaches h' directly, not through R
};

template <class V>
FUSEGEN_HOST_DEVICE GruGradient<V> gru_backward(V r, V z, V n, V q, V h_prev, V dh) {
  GruGradient<V> d;
  d.n = dh * (1 - z) * (1 - n * n);
  d.q = d.n * r;
  d.r = d.n * q * r * (1 - r);
  d.z = dh * (h_prev - n) * z * (1 - z);
  d.h_prev = dh * z;
  return d;
}

// h = tanh(a), or relu(a)                                             (torch.nn.RNN)
template <class Math, class V>
FUSEGEN_HOST_DEVICE V rnn(bool relu, V a) {
  return relu ? activations::relu(a) : Math::tanh(a);
}

// The gradient of the pre-activation, from the output h.
template <class V>
FUSEGEN_HOST_DEVICE V rnn_backward(bool relu, V h, V dh) {
  return relu ? activations::relu_backward(h, dh) : dh * (1 - h * h);
}

}  // namespace fusegen::cells
