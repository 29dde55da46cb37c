#include "arguments.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace fusegen {
namespace {

namespace py = pybind11;

// The value of `name` in `table`.
template <class T, size_t N>
T named(const char* argument, py::handle name, const std::pair<std::string_view, T> (&table)[N]) {
  const std::string_view given = py::isinstance<py::str>(name) ? name.cast<std::string_view>() : "";
  for (const auto& [text, value] : table)
    if (text == given) return value;
  std::string names;
  for (size_t i = 0; i < N; ++i)
    names += (i == 0 ? "'" : i + 1 < N ? ", '" : " or '") + std::string(table[i].first) + "'";
  throw py::value_error(std::string(argument) + ": expected " + names + ", got " +
                        py::repr(name).cast<std::string>());
}

}  // namespace

Cell read_cell(py::handle name) {
  static constexpr std::pair<std::string_view, Cell> cells[] = {
      {"lstm", Cell::lstm}, {"gru", Cell::gru}, {"rnn_tanh", Cell::rnn_tanh}, {"rnn_relu", Cell::rnn_relu}};
  return named("cell", name, cells);
}

Dtype read_dtype(py::handle name) {
  static constexpr std::pair<std::string_view, Dtype> dtypes[] = {
      {"float32", Dtype::f32}, {"bfloat16", Dtype::bf16}, {"float16", Dtype::f16}, {"float64", Dtype::f64}};
  return named("dtype", name, dtypes);
}

LayerInside read_inside(const std::optional<py::tuple>& inside) {
  if (!inside) return {};
  const py::tuple& t = *inside;
  if (t.size() != 7) throw py::value_error("inside: expected 7 values, got " + std::to_string(t.size()));
  const auto rates = t[4].cast<std::vector<double>>();
  if (!rates.empty() && rates.size() != 4)
    throw py::value_error("rates: expected 4 numbers or none, got " + std::to_string(rates.size()));
  LayerInside read{.resets = t[0].cast<View>(),
                   .reset_h = t[1].cast<View>(),
                   .reset_c = t[2].cast<View>(),
                   .key = t[3].cast<View>(),
                   .layer = t[5].cast<int64_t>(),
                   .training = t[6].cast<bool>()};
  std::copy(rates.begin(), rates.end(), read.rates.begin());
  return read;
}

MlpCall read_step(const py::tuple& t) {
  if (t.size() != 22) throw py::value_error("step: expected 22 values, got " + std::to_string(t.size()));
  return {
      .loss = t[0].cast<std::string>(),
      .generator = t[1].cast<bool>(),
      .target = t[2].cast<double>(),
      .r1 = t[3].cast<double>(),
      .r2 = t[4].cast<double>(),
      .gp = t[5].cast<double>(),
      .near_real = t[6].cast<double>(),
      .near_fake = t[7].cast<double>(),
      .counted = t[8].cast<int64_t>(),
      .real = t[9].cast<View>(),
      .fake = t[10].cast<View>(),
      .mixed = t[11].cast<View>(),
      .weights = t[12].cast<Views>(),
      .biases = t[13].cast<Views>(),
      .slopes = t[14].cast<std::vector<double>>(),
      .activations = t[15].cast<std::vector<std::string>>(),
      .dropouts = t[16].cast<std::vector<double>>(),
      .key = t[17].cast<View>(),
      .weight_gradients = t[18].cast<bool>(),
      .dx_real = t[19].cast<bool>(),
      .dx_fake = t[20].cast<bool>(),
      .threads = t[21].cast<int>(),
  };
}

}  // namespace fusegen
