// The element maths of the cells, for one unit or one vector of units, host and device.
//
// `Math` supplies sigmoid(V) and tanh(V); V is float, double or a vector of either. Derivatives are
// written from the outputs of the activations, so that backward needs the saved gates alone.
#pragma once

#ifdef __CUDACC__
#define FUSEGEN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define FUSEGEN_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace fusegen::cells {

// c = f c' + i g,  h = o tanh(c)                                      (torch.nn.LSTM)
template <class V>
struct LstmState {
  V i, f, g, o, c, h;
};

template <class Math, class V>
FUSEGEN_HOST_DEVICE LstmState<V> lstm(V a_i, V a_f, V a_g, V a_o, V c_prev) {
  LstmState<V> s;
  s.i = Math::sigmoid(a_i);
  s.f = Math::sigmoid(a_f);
  s.g = Math::tanh(a_g);
  s.o = Math::sigmoid(a_o);
  s.c = s.f * c_prev + s.i * s.g;
  s.h = s.o * Math::tanh(s.c);
  return s;
}

template <class V>
struct LstmGradient {
  V i, f, g, o;  // of the pre-activations
  V c_prev;
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
  r.c_prev = d * f;
  return r;
}

// n = tanh(x_n + r q),  h = n + z (h' - n),  q = R_n h' + b_hn        (torch.nn.GRU)
template <class V>
struct GruState {
  V r, z, n, h;
};

template <class Math, class V>
FUSEGEN_HOST_DEVICE GruState<V> gru(V a_r, V a_z, V x_n, V q, V h_prev) {
  GruState<V> s;
  s.r = Math::sigmoid(a_r);
  s.z = Math::sigmoid(a_z);
  s.n = Math::tanh(x_n + s.r * q);
  s.h = s.n + s.z * (h_prev - s.n);
  return s;
}

template <class V>
struct GruGradient {
  V r, z, n, q;   // of a_r, a_z, x_n and q
  V h_prev;       // the part that reaches h' directly, not through R
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

// d tanh(a) and d relu(a), from the output h.
template <class V>
FUSEGEN_HOST_DEVICE V rnn_tanh_backward(V h, V dh) {
  return dh * (1 - h * h);
}

}  // namespace fusegen::cells
