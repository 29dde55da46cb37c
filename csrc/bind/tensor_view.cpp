#include "tensor_view.h"

namespace fusegen {
namespace {

namespace py = pybind11;

using Reader = int (*)(void*, dlpack::Tensor*);

// torch's exchange function, or null where torch has none of major version 1.
Reader find_reader() {
  const py::object type = py::module_::import("torch").attr("Tensor");
  for (const char* name : {"__dlpack_c_exchange_api__", "__c_dlpack_exchange_api__"}) {
    if (!py::hasattr(type, name)) continue;
    const py::object capsule = type.attr(name);
    if (!PyCapsule_CheckExact(capsule.ptr())) continue;
    auto* api = static_cast<dlpack::ExchangeApi*>(
        PyCapsule_GetPointer(capsule.ptr(), PyCapsule_GetName(capsule.ptr())));
    if (!api) throw py::error_already_set();
    while (api && api->version.major != 1) api = api->previous;
    if (api && api->tensor_from_object) return api->tensor_from_object;
  }
  return nullptr;
}

// Set by find_torch.
PyTypeObject* tensor_type = nullptr;
Reader reader = nullptr;

ElementType element_type(const dlpack::DataType& d) {
  enum : uint8_t { integer = 0, unsigned_integer = 1, floating = 2, bfloat = 4, boolean = 6 };
  if (d.lanes != 1) return ElementType::other;
  if (d.code == floating)
    return d.bits == 32   ? ElementType::f32
           : d.bits == 64 ? ElementType::f64
           : d.bits == 16 ? ElementType::f16
                          : ElementType::other;
  if (d.code == bfloat && d.bits == 16) return ElementType::bf16;
  if (d.code == integer && d.bits == 64) return ElementType::i64;
  if (d.code == integer && d.bits == 8) return ElementType::i8;
  if (d.code == unsigned_integer && d.bits == 8) return ElementType::u8;
  if (d.code == boolean && d.bits == 8) return ElementType::boolean;
  return ElementType::other;
}

ElementType element_type(const std::string& name) {
  if (name == "torch.float32") return ElementType::f32;
  if (name == "torch.bfloat16") return ElementType::bf16;
  if (name == "torch.float16") return ElementType::f16;
  if (name == "torch.float64") return ElementType::f64;
  if (name == "torch.int64") return ElementType::i64;
  if (name == "torch.uint8") return ElementType::u8;
  if (name == "torch.int8") return ElementType::i8;
  if (name == "torch.bool") return ElementType::boolean;
  return ElementType::other;
}

void set_ndim(View& view, int64_t ndim) {
  if (ndim > static_cast<int64_t>(view.shape.size()))
    throw py::value_error("expected a tensor of at most 4 dimensions, got " + std::to_string(ndim));
  view.ndim = static_cast<int>(ndim);
}

void read_by_attributes(py::handle object, View& view) {
  view.data = reinterpret_cast<void*>(object.attr("data_ptr")().cast<uintptr_t>());
  const py::tuple shape = object.attr("shape"), strides = object.attr("stride")();
  set_ndim(view, static_cast<int64_t>(shape.size()));
  for (int i = 0; i < view.ndim; ++i) {
    view.shape[i] = shape[i].cast<int64_t>();
    view.strides[i] = strides[i].cast<int64_t>();
  }
  view.dtype = element_type(py::str(object.attr("dtype")).cast<std::string>());
  const py::object device = object.attr("device");
  view.device_type = device.attr("type").cast<std::string>() == "cpu" ? 1 : 2;
  view.device_id = device.attr("index").is_none() ? 0 : device.attr("index").cast<int>();
}

}  // namespace

void find_torch() {
  tensor_type = reinterpret_cast<PyTypeObject*>(
      py::object(py::module_::import("torch").attr("Tensor")).release().ptr());
  reader = find_reader();
}

void read_tensor(py::handle object, View& view) {
  if (Py_TYPE(object.ptr()) != tensor_type && !PyType_IsSubtype(Py_TYPE(object.ptr()), tensor_type))
    throw py::type_error("expected torch.Tensor or None, got " + std::string(Py_TYPE(object.ptr())->tp_name));
  view.present = true;
  if (!reader) return read_by_attributes(object, view);
  dlpack::Tensor t{};
  if (reader(object.ptr(), &t) != 0) throw py::error_already_set();
  set_ndim(view, t.ndim);
  for (int i = 0; i < view.ndim; ++i) {
    view.shape[i] = t.shape[i];
    view.strides[i] = t.strides[i];
  }
  view.data = t.data ? static_cast<char*>(t.data) + t.byte_offset : nullptr;
  view.dtype = element_type(t.dtype);
  view.device_type = t.device.type;
  view.device_id = t.device.id;
}

}  // namespace fusegen
