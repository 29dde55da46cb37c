// A tensor as the engine sees it: pointer, shape, strides, dtype, device. The caster fills one from a Python
// tensor through the DLPack exchange API (a C function pointer, tens of nanoseconds) or, in releases of torch
// without it, through the tensor's own attributes. Nothing is kept alive and no torch header is needed.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "ops/view.h"

namespace fusegen {

// The part of DLPack's C ABI that is read here (https://dmlc.github.io/dlpack, version 1.x).
namespace dlpack {
struct Device {
  int32_t type, id;
};
struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct Version {
  uint32_t major, minor;
};
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  int (*tensor_from_object)(void* object, Tensor* out);
  void* current_stream;
};
}  // namespace dlpack

// Looks torch up. At import: two first calls at once could each hold what the other waits for, a lock of
// Python's and one of C++'s statics.
void find_torch();

// Reads `object`, a torch.Tensor, into `view`; throws TypeError for anything else.
void read_tensor(pybind11::handle object, View& view);

}  // namespace fusegen

namespace pybind11::detail {

template <>
struct type_caster<fusegen::View> {
  PYBIND11_TYPE_CASTER(fusegen::View, const_name("torch.Tensor | None"));
  bool load(handle src, bool) {
    if (!src.is_none()) fusegen::read_tensor(src, value);
    return true;
  }
};

}  // namespace pybind11::detail
