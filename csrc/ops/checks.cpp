#include "checks.h"

namespace fusegen {
namespace {

[[noreturn]] void fail(const std::string& name, const std::string& expected, const std::string& got) {
  throw std::invalid_argument(name + ": expected " + expected + ", got " + got);
}

const char* text(ElementType t) {
  switch (t) {
    case ElementType::f32: return "float32";
    case ElementType::bf16: return "bfloat16";
    case ElementType::f16: return "float16";
    case ElementType::f64: return "float64";
    case ElementType::i64: return "int64";
    case ElementType::u8: return "uint8";
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

Dtype float_dtype(const View& v, const char* name) {
  switch (v.dtype) {
    case ElementType::f32: return Dtype::f32;
    case ElementType::bf16: return Dtype::bf16;
    case ElementType::f16: return Dtype::f16;
    case ElementType::f64: return Dtype::f64;
    default: fail(name, "float32, bfloat16, float16 or float64", text(v.dtype));
  }
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

void check(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
           Site site) {
  if (v.device_type != site.device_type || (v.device_type != 1 && v.device_id != site.device_id))
    fail(name,
         site.device_type == 1 ? "a CPU tensor"
                               : "a tensor on GPU " + std::to_string(site.device_id) + " of the call",
         v.device_type == 1
             ? "one on the CPU"
             : "one on device " + std::to_string(v.device_id) + " of type " + std::to_string(v.device_type));
  if (v.dtype != dtype) fail(name, text(dtype), text(v.dtype));
  bool same = v.ndim == static_cast<int>(shape.size());
  int64_t elements = 1;
  for (int i = 0; same && i < v.ndim; ++i) {
    same = v.shape[i] == shape.begin()[i];
    elements *= v.shape[i];
  }
  if (!same) fail(name, "shape " + shape_text(shape), shape_text(v));
  if (v.ndim && elements && v.shape[v.ndim - 1] > 1 && v.strides[v.ndim - 1] != 1)
    fail(name, "a contiguous last dimension", "stride " + std::to_string(v.strides[v.ndim - 1]));
}

Rows rows(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
          Site site) {
  if (!v) return {};
  check(v, name, shape, dtype, site);
  if (v.ndim == 3) return {v.data, v.strides[0], v.strides[1]};
  return {v.data, 0, v.strides[0]};
}

Matrix matrix(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
              Site site) {
  if (!v) return {};
  check(v, name, shape, dtype, site);
  return {v.data, v.strides[0]};
}

void* vector(const View& v, const char* name, int64_t n, ElementType dtype, Site site) {
  if (!v) return nullptr;
  check(v, name, {n}, dtype, site);
  return v.data;
}

const View& required(const View& v, const char* name) {
  if (!v) fail(name, "a tensor", "None");
  return v;
}

}  // namespace fusegen
