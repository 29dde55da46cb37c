// Arguments that are neither tensors nor numbers, from Python: a cell and a dtype by name, the step of a
// discriminator as a tuple.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "ops/cpu/layer.h"
#include "ops/discriminator.h"
#include "tensor_view.h"

namespace fusegen {

// Throw ValueError for anything else than a name.
Cell read_cell(pybind11::handle name);
Dtype read_dtype(pybind11::handle name);

// A tuple in the order of MlpCall's fields; it keeps the tensors alive for the call.
MlpCall read_step(const pybind11::tuple& step);

// None, or a tuple in the order of LayerInside's fields.
LayerInside read_inside(const std::optional<pybind11::tuple>& inside);

}  // namespace fusegen

namespace pybind11::detail {

template <>
struct type_caster<fusegen::Cell> {
  PYBIND11_TYPE_CASTER(fusegen::Cell, const_name("str"));
  bool load(handle src, bool) {
    value = fusegen::read_cell(src);
    return true;
  }
};

template <>
struct type_caster<fusegen::Dtype> {
  PYBIND11_TYPE_CASTER(fusegen::Dtype, const_name("str"));
  bool load(handle src, bool) {
    value = fusegen::read_dtype(src);
    return true;
  }
};

}  // namespace pybind11::detail
