// Piecewise linear activations and their derivatives, for one number or one vector of them, host and device.
// `slope` is the activation's below zero: 0 ReLU, 1 none, else LeakyReLU.
//
// Derivatives are written from the output y of the activation. NaN goes where torch lets it: an activation
// gives NaN for NaN, and a gradient that meets y = NaN passes ReLU as it is and LeakyReLU times the slope
// (torch's threshold_backward keeps what is not y <= 0, leaky_relu_backward scales what is not y > 0).
#pragma once
#include "host_device.h"

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

}  // namespace fusegen::activations
