// Checks of what came in, each naming the argument, what was expected and what came. The Python layers check
// for users; these keep a wrong direct call from reading foreign memory.
#pragma once
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "view.h"

namespace fusegen {

std::string shape_text(const View& v);
std::string shape_text(std::initializer_list<int64_t> shape);

namespace detail {
inline void write(std::string& to, std::string_view text) { to += text; }
inline void write(std::string& to, const View& v) { to += shape_text(v); }
void write(std::string& to, double number);
template <class N>
  requires std::is_integral_v<N>
void write(std::string& to, N number) {
  to += std::to_string(number);
}

// The parts side by side. Not by a stream: those of C++20 are newer than the systems a wheel is for
// (csrc/bind/older_systems.cpp).
template <class... Parts>
std::string joined(const Parts&... parts) {
  std::string text;
  (write(text, parts), ...);
  return text;
}

template <class... Parts>
[[noreturn, gnu::cold, gnu::noinline]] void fail(const Parts&... parts) {
  throw std::invalid_argument(joined(parts...));
}
}  // namespace detail

// Where the condition does not hold, throws std::invalid_argument of the parts side by side: text, numbers,
// and of a View its shape. They are read only then.
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]]
    detail::fail(parts...);
}

// The dtype of a call, from its first tensor.
Dtype float_dtype(const View& v, const char* name);
ElementType element_type(Dtype dtype);
// What a kernel computes in, and saves cells in.
constexpr ElementType wide_type(Dtype dtype) {
  return dtype == Dtype::f64 ? ElementType::f64 : ElementType::f32;
}
int64_t element_bytes(ElementType type);  // 0 of another

// Where the tensors of a call lie, in DLPack's numbers.
struct Site {
  int device_type = 1, device_id = 0;
};

// v has this shape, the call's dtype, lies at `site` and has a contiguous last dimension.
void check_tensor(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
                  Site site = {});

// [T,B,n] or [B,n] -> Rows; absent stays absent.
Rows rows(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
          Site site = {});
Matrix matrix(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
              Site site = {});
void* vector(const View& v, const char* name, int64_t n, ElementType dtype, Site site = {});

// A missing tensor is refused.
const View& required(const View& v, const char* name);

}  // namespace fusegen
