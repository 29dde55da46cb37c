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
    if (dtype_ == Dtype::f64)
      throw std::invalid_argument(std::string(name) + ": expected float32, bfloat16 or float16, got float64");
    if (first.device_type != cuda::device_type())
      throw std::invalid_argument(std::string(name) +
                                  ": expected a tensor of the GPU backend's device, got one of device type " +
                                  std::to_string(first.device_type));
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
      throw std::invalid_argument(std::string(name) + ": expected a contiguous tensor of shape " +
                                  shape_text(shape) + ", got " + shape_text(v));
    if (v.dtype != dtype) throw std::invalid_argument(std::string(name) + ": expected the dtype of the call");
    if (v.device_type != cuda::device_type() || v.device_id != device_)
      throw std::invalid_argument(std::string(name) + ": expected a tensor on device " +
                                  std::to_string(device_) + " of the call, got one on " +
                                  std::to_string(v.device_id) + " (device type " +
                                  std::to_string(v.device_type) + ")");
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
