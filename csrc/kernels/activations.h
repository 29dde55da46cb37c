// Activations and their derivatives, for one number or one vector of them, host and device.
//
// Of piecewise linear ones `slope` is the activation's below zero: 0 ReLU, 1 none, else LeakyReLU. Their
// derivatives are written from the output y of the activation. NaN goes where torch lets it: an activation
// gives NaN for NaN, and a gradient that meets y = NaN passes ReLU as it is and LeakyReLU times the slope
// (torch's threshold_backward keeps what is not y <= 0, leaky_relu_backward scales what is not y > 0).
#pragma once
#include "host_device.h"
#include "params.h"

namespace fusegen::activations {

template <class V>
FUSEGEN_HOST_DEVICE V relu(V x) {
  return x < V{} ? V{} : x;
}
template <class V>
FUSEGEN_HOST_DEVICE V relu_backward(V y, V dy) {
  return y <= V{} ? V{} : dy;
}

template <class V, class C>
FUSEGEN_HOST_DEVICE V activated(V x, C slope) {
  return slope == 1 ? x : slope == 0 ? relu(x) : x < V{} ? slope * x : x;
}
// dy times the activation's derivative where it gave y.
template <class V, class C>
FUSEGEN_HOST_DEVICE V activation_gradient(V y, V dy, C slope) {
  return slope == 0 ? relu_backward(y, dy) : y > V{} ? dy : slope * dy;
}

// ---- smooth ones ------------------------------------------------------------------------------------
// From the input x: neither GELU nor SiLU can be told from its output. `Math` supplies tanh(V),
// sigmoid_both(V), expm1(V) and normal(V), of which nothing is written by a difference from 1 where that
// would lose the digits. C is the number that a V is of.

template <class V>
struct Sigmoids {
  V of_x, of_minus_x;  // their sum is 1
};
template <class V>
struct Normal {
  V cdf, pdf;
};

// What an activation gives, and its first and second derivative.
template <class V>
struct Smooth {
  V y, first, second;
};

template <class Math, class C, class V>
FUSEGEN_HOST_DEVICE Smooth<V> tanh(V x) {
  const V y = Math::tanh(x), first = (1 - y) * (1 + y);
  return {y, first, -2 * y * first};
}

template <class Math, class C, class V>
FUSEGEN_HOST_DEVICE Smooth<V> sigmoid(V x) {
  const Sigmoids<V> s = Math::sigmoid_both(x);
  const V first = s.of_x * s.of_minus_x;
  return {s.of_x, first, first * (s.of_minus_x - s.of_x)};
}

// x sigmoid(w), of w's first and second derivative by x.
template <class Math, class C, class V>
FUSEGEN_HOST_DEVICE Smooth<V> gated(V x, V w, V dw, V ddw) {
  const Smooth<V> s = sigmoid<Math, C>(w);
  const V first = s.first * dw;
  return {x * s.y, s.y + x * first, 2 * first + x * (s.second * dw * dw + s.first * ddw)};
}

// Elfwing et al. 2018; torch's SiLU.
template <class Math, class C, class V>
FUSEGEN_HOST_DEVICE Smooth<V> silu(V x) {
  return gated<Math, C>(x, x, V{} + C(1), V{});
}

// x Phi(x), Hendrycks and Gimpel 2016; torch's GELU with approximate="none".
template <class Math, class C, class V>
FUSEGEN_HOST_DEVICE Smooth<V> gelu(V x) {
  const Normal<V> n = Math::normal(x);
  return {x * n.cdf, n.cdf + x * n.pdf, n.pdf * (2 - x * x)};
}

// x (1 + tanh(k (x + a x^3))) / 2 with k = sqrt(2 / pi), a = 0.044715; torch's GELU with approximate="tanh".
// As (1 + tanh(z)) / 2 is sigmoid(2 z), it is gated by 2 k (x + a x^3).
template <class Math, class C, class V>
FUSEGEN_HOST_DEVICE Smooth<V> gelu_tanh(V x) {
  constexpr C k = C(2 * 0.79788456080286535588), a = C(0.044715);
  const V square = x * x;
  return gated<Math, C>(x, k * (x + a * square * x), k * (1 + 3 * a * square), 6 * k * a * x);
}

// Clevert et al. 2016. At 0 its derivatives are those below, at NaN those above, as torch's.
template <class Math, class C, class V>
FUSEGEN_HOST_DEVICE Smooth<V> elu(V x, C alpha) {
  const V below = alpha * Math::expm1(x), slope = below + alpha;
  return {x > V{} ? x : below, x <= V{} ? slope : V{} + C(1), x <= V{} ? slope : V{}};
}

// f(a function from x to Smooth), of an activation known at run time.
template <class Math, class C, class V, class F>
FUSEGEN_HOST_DEVICE void with_smooth(Activation activation, C alpha, F&& f) {
  switch (activation) {
    case Activation::piecewise_linear: return;
    case Activation::tanh: return f([](V x) { return tanh<Math, C>(x); });
    case Activation::sigmoid: return f([](V x) { return sigmoid<Math, C>(x); });
    case Activation::silu: return f([](V x) { return silu<Math, C>(x); });
    case Activation::gelu: return f([](V x) { return gelu<Math, C>(x); });
    case Activation::gelu_tanh: return f([](V x) { return gelu_tanh<Math, C>(x); });
    case Activation::elu: return f([alpha](V x) { return elu<Math, C>(x, alpha); });
  }
}

}  // namespace fusegen::activations
