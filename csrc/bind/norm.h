// A norm by name, from Python.
#pragma once
#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "kernels/normalised.h"

namespace fusegen {

// Throws ValueError for anything else than a name.
inline Norm read_norm(const std::string& name) {
  static constexpr std::pair<const char*, Norm> norms[] = {
      {"none", Norm::none}, {"haste", Norm::haste}, {"ba", Norm::ba}, {"dreamer", Norm::dreamer}};
  for (const auto& [text, norm] : norms)
    if (name == text) return norm;
  throw pybind11::value_error("norm: expected 'none', 'haste', 'ba' or 'dreamer', got '" + name + "'");
}

}  // namespace fusegen
