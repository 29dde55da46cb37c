#include "checks.h"

#include <cstdio>

namespace fusegen {
namespace {

const char* text(ElementType t) {
  switch (t) {
    case ElementType::f32: return "float32";
    case ElementType::bf16: return "bfloat16";
    case ElementType::f16: return "float16";
    case ElementType::f64: return "float64";
    case ElementType::i64: return "int64";
    case ElementType::u8: return "uint8";
    case ElementType::i8: return "int8";
    case ElementType::boolean: return "bool";
    case ElementType::other: break;
  }
  return "another dtype";
}

std::string join(const int64_t* shape, int n) {
  std::string s(1, '[');
  for (int i = 0; i < n; ++i) {
    if (i) s += ", ";
    s += std::to_string(shape[i]);
  }
  s += ']';
  return s;
}

}  // namespace

std::string shape_text(const View& v) { return join(v.shape.data(), v.ndim); }
std::string shape_text(std::initializer_list<int64_t> shape) {
  return join(shape.begin(), static_cast<int>(shape.size()));
}

void detail::write(std::string& to, double number) {
  char text[32];
  to.append(text, static_cast<size_t>(std::snprintf(text, sizeof(text), "%g", number)));
}

Dtype float_dtype(const View& v, const char* name) {
  switch (v.dtype) {
    case ElementType::f32: return Dtype::f32;
    case ElementType::bf16: return Dtype::bf16;
    case ElementType::f16: return Dtype::f16;
    case ElementType::f64: return Dtype::f64;
    default: break;
  }
  detail::fail(name, ": expected float32, bfloat16, float16 or float64, got ", text(v.dtype));
}

ElementType element_type(Dtype d) {
  switch (d) {
    case Dtype::f32: return ElementType::f32;
    case Dtype::bf16: return ElementType::bf16;
    case Dtype::f16: return ElementType::f16;
    case Dtype::f64: return ElementType::f64;
  }
  return ElementType::other;
}

int64_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::f64:
    case ElementType::i64: return 8;
    case ElementType::f32: return 4;
    case ElementType::bf16:
    case ElementType::f16: return 2;
    case ElementType::u8:
    case ElementType::i8:
    case ElementType::boolean: return 1;
    case ElementType::other: break;
  }
  return 0;
}

namespace {

constexpr int kCpu = 1;

void check_site(const View& v, const char* name, Site site) {
  if (site.device_type == kCpu)
    return check(v.device_type == kCpu, name, ": expected a CPU tensor, got one on device ", v.device_id,
                 " of type ", v.device_type);
  check(v.device_type != kCpu, name, ": expected a tensor on GPU ", site.device_id,
        " of the call, got one on the CPU");
  check(v.device_type == site.device_type && v.device_id == site.device_id, name,
        ": expected a tensor on GPU ", site.device_id, " of the call, got one on device ", v.device_id,
        " of type ", v.device_type);
}

}  // namespace

void check_tensor(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
                  Site site) {
  check_site(v, name, site);
  check(v.dtype == dtype, name, ": expected ", text(dtype), ", got ", text(v.dtype));
  bool same = v.ndim == static_cast<int>(shape.size());
  int64_t elements = 1;
  for (int i = 0; same && i < v.ndim; ++i) {
    same = v.shape[i] == shape.begin()[i];
    elements *= v.shape[i];
  }
  if (!same) detail::fail(name, ": expected shape ", shape_text(shape), ", got ", v);
  check(!v.ndim || !elements || v.shape[v.ndim - 1] <= 1 || v.strides[v.ndim - 1] == 1, name,
        ": expected a contiguous last dimension, got stride ", v.ndim ? v.strides[v.ndim - 1] : 0);
}

Rows rows(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
          Site site) {
  if (!v) return {};
  check_tensor(v, name, shape, dtype, site);
  if (v.ndim == 3) return {v.data, v.strides[0], v.strides[1]};
  return {v.data, 0, v.strides[0]};
}

Matrix matrix(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
              Site site) {
  if (!v) return {};
  check_tensor(v, name, shape, dtype, site);
  return {v.data, v.strides[0]};
}

void* vector(const View& v, const char* name, int64_t n, ElementType dtype, Site site) {
  if (!v) return nullptr;
  check_tensor(v, name, {n}, dtype, site);
  return v.data;
}

const View& required(const View& v, const char* name) {
  check(v.present, name, ": expected a tensor, got None");
  return v;
}

}  // namespace fusegen
