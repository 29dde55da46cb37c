// A dtype known at run time to the type that stores it.
#pragma once
#include "kernels/params.h"
#include "simd.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class F>
void with_storage(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f32: return f(float{});
    case Dtype::bf16: return f(bf16{});
    case Dtype::f16: return f(f16{});
    case Dtype::f64: return f(double{});
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
