// The smooth activations of a discriminator's layers, on vectors.
#pragma once
#include "kernels/cpu/isa/vector/vmath.h"
#include "kernels/params.h"

namespace fusegen::FUSEGEN_ISA_NS {

// Not inlined: six of them would fill the loops that they stand in.
template <class C>
__attribute__((noinline)) activations::Smooth<Vector<C>> smooth_at(const DenseLayer& layer, Vector<C> x) {
  activations::Smooth<Vector<C>> s;
  activations::with_smooth<Math, C, Vector<C>>(layer.activation, static_cast<C>(layer.slope),
                                               [&](const auto& f) { s = f(x); });
  return s;
}

}  // namespace fusegen::FUSEGEN_ISA_NS
