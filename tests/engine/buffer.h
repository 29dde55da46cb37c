// A tensor of the engine's tests: exactly the bytes of its shape, so that AddressSanitizer sees the first
// beyond.
#pragma once
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "kernels/half.h"
#include "ops/view.h"

namespace fusegen::test {

inline ElementType element(Dtype d) {
  return d == Dtype::f64   ? ElementType::f64
         : d == Dtype::f32 ? ElementType::f32
         : d == Dtype::f16 ? ElementType::f16
                           : ElementType::bf16;
}

inline void store(char* p, Dtype d, double v) {
  if (d == Dtype::f64) {
    std::memcpy(p, &v, 8);
  } else if (d == Dtype::f16) {
    const Half h = static_cast<Half>(v);
    std::memcpy(p, &h, 2);
  } else {
    const float f = static_cast<float>(v);
    uint32_t bits = std::bit_cast<uint32_t>(f);
    // The values stored here are exact in bfloat16, or NaN: cutting off is rounding.
    std::memcpy(p, d == Dtype::f32 ? reinterpret_cast<char*>(&bits) : reinterpret_cast<char*>(&bits) + 2,
                d == Dtype::f32 ? 4 : 2);
  }
}

inline double load(const char* p, Dtype d) {
  if (d == Dtype::f64) {
    double v;
    std::memcpy(&v, p, 8);
    return v;
  }
  if (d == Dtype::f16) {
    Half h;
    std::memcpy(&h, p, 2);
    return static_cast<double>(h);
  }
  uint32_t bits = 0;
  std::memcpy(d == Dtype::f32 ? reinterpret_cast<char*>(&bits) : reinterpret_cast<char*>(&bits) + 2, p,
              d == Dtype::f32 ? 4 : 2);
  return std::bit_cast<float>(bits);
}

class Buffer {
public:
  Buffer() = default;  // absent

  // Filled with NaN, so that an element that no kernel writes is found. `swapped`: the first two dimensions
  // lie the other way round in memory, as those of a batch_first tensor.
  Buffer(Dtype dtype, std::vector<int64_t> shape, bool swapped = false)
      : present_(true), dtype_(dtype), shape_(std::move(shape)) {
    strides_.resize(shape_.size());
    std::vector<size_t> order(shape_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (swapped) std::swap(order[0], order[1]);
    for (size_t i = order.size(); i-- > 0;) {
      strides_[order[i]] = size_;
      size_ *= shape_[order[i]];
    }
    // One element in front: a tensor may start anywhere, not only where a vector register would like it.
    if (size_ > 0) bytes_ = std::make_unique_for_overwrite<char[]>((size_ + 1) * dtype_size(dtype_));
    for (int64_t i = 0; i < size_; ++i) store(data() + i * dtype_size(dtype_), dtype_, kNaN);
  }

  Buffer(Dtype dtype, std::vector<int64_t> shape, const std::vector<double>& values, bool swapped = false)
      : Buffer(dtype, std::move(shape), swapped) {
    for (int64_t i = 0; i < size_; ++i) store(at(i), dtype_, values[i]);
  }

  std::vector<double> values() const {
    std::vector<double> v(size_);
    for (int64_t i = 0; i < size_; ++i) v[i] = load(at(i), dtype_);
    return v;
  }

  operator View() const {
    View v;
    v.data = data();
    v.present = present_;
    v.dtype = element(dtype_);
    v.ndim = static_cast<int>(shape_.size());
    for (int i = 0; i < v.ndim; ++i) {
      v.shape[i] = shape_[i];
      v.strides[i] = strides_[i];
    }
    return v;
  }

private:
  static constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

  char* data() const { return size_ > 0 && bytes_ ? bytes_.get() + dtype_size(dtype_) : nullptr; }

  // Element i in the order of the shape.
  char* at(int64_t i) const {
    int64_t offset = 0;
    for (size_t k = shape_.size(); k-- > 0;) {
      offset += i % shape_[k] * strides_[k];
      i /= shape_[k];
    }
    return data() + offset * dtype_size(dtype_);
  }

  bool present_ = false;
  Dtype dtype_ = Dtype::f32;
  std::vector<int64_t> shape_, strides_;
  int64_t size_ = 1;
  std::unique_ptr<char[]> bytes_;
};

// Memory as torch gives it for packed weights, from a 64-byte boundary on.
template <class T>
struct FromBoundary {
  using value_type = T;
  static constexpr std::align_val_t kBoundary{64};

  FromBoundary() = default;
  template <class U>
  FromBoundary(const FromBoundary<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kBoundary)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kBoundary); }
  bool operator==(const FromBoundary&) const = default;
};
using Blob = std::vector<unsigned char, FromBoundary<unsigned char>>;

// Integers that lie side by side.
template <class T, class Allocator>
View view_of(const std::vector<T, Allocator>& values, const std::vector<int64_t>& shape) {
  View v;
  v.data = const_cast<T*>(values.data());
  v.present = true;
  v.dtype = std::is_same_v<T, int64_t>  ? ElementType::i64
            : std::is_same_v<T, int8_t> ? ElementType::i8
                                        : ElementType::u8;
  v.ndim = static_cast<int>(shape.size());
  for (int64_t i = v.ndim, stride = 1; i-- > 0; stride *= shape[i]) {
    v.shape[i] = shape[i];
    v.strides[i] = stride;
  }
  return v;
}

}  // namespace fusegen::test
