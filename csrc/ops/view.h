// What an op is called with.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/params.h"

namespace fusegen {

enum class ElementType : uint8_t { f32, bf16, f16, f64, i64, u8, i8, boolean, other };

struct View {
  void* data = nullptr;
  bool present = false;  // false: the caller passed None
  int device_type = 1;   // DLPack's numbers: 1 CPU, 2 CUDA
  int device_id = 0;
  ElementType dtype = ElementType::other;
  int ndim = 0;
  std::array<int64_t, 4> shape{};
  std::array<int64_t, 4> strides{};

  explicit operator bool() const { return present; }
};

using Views = std::vector<View>;

}  // namespace fusegen
