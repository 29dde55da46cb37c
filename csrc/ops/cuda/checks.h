// Checks of the tensors of a call on a GPU, and the backend's name of its cell.
#pragma once
#include "kernels/backend.h"
#include "ops/checks.h"

namespace fusegen {

// Checks against the first tensor of a call: its device and dtype.
class GpuChecker {
public:
  explicit GpuChecker(const View& first, const char* name) : device_(first.device_id) {
    dtype_ = float_dtype(required(first, name), name);
    element_ = element_type(dtype_);
    check(dtype_ != Dtype::f64, name, ": expected float32, bfloat16 or float16, got float64");
    check(first.device_type == cuda::device_type(), name,
          ": expected a tensor of the GPU backend's device, got one of device type ", first.device_type);
  }
  Dtype dtype() const { return dtype_; }
  int device() const { return device_; }

  void* of(const View& v, const char* name, std::initializer_list<int64_t> shape) const {
    return of(v, name, shape, element_);
  }
  void* of(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype) const {
    if (!v) return nullptr;
    bool right = v.ndim == static_cast<int>(shape.size());
    int64_t expected = 1, n = 1;
    for (int i = v.ndim; right && i-- > 0;) {
      const int64_t size = shape.begin()[i];
      right = v.shape[i] == size && (size == 1 || v.strides[i] == expected);
      expected *= size;
      n *= size;
    }
    if (!right && n)
      detail::fail(name, ": expected a contiguous tensor of shape ", shape_text(shape), ", got ", v);
    check(v.dtype == dtype, name, ": expected the dtype of the call");
    check(v.device_type == cuda::device_type() && v.device_id == device_, name,
          ": expected a tensor on device ", device_, " of the call, got one on ", v.device_id,
          " (device type ", v.device_type, ")");
    return v.data;
  }
  void* need(const View& v, const char* name, std::initializer_list<int64_t> shape) const {
    return of(required(v, name), name, shape);
  }

private:
  Dtype dtype_;
  ElementType element_;
  int device_;
};

}  // namespace fusegen
