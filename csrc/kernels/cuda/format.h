// From a format to the types that its kernels are made with. Host.
#pragma once
#include <device/mma.h>
#include <device/number.h>

#include "../backend.h"

namespace fusegen::cuda {

// call(number, multiplied): what lies in memory, and what the tensor cores take of it.
template <class Call>
auto with_format(Format format, const Call& call) {
  switch (format) {
    case Format::bf16: return call(device::Bf16{}, device::FormatBf16{});
    case Format::f16: return call(device::F16{}, device::FormatF16{});
    case Format::f32: return call(0.0f, device::FormatF32{});
    case Format::tf32: break;
  }
  return call(0.0f, device::FormatTf32{});
}

}  // namespace fusegen::cuda
