// _simt: the GPU backend's functions on CPU tensors, its kernels run by the emulator.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>

#include "bind/bind.h"
#include "bind/tensor_view.h"

#include "emulator.h"
#include "kernels/backend.h"
#include "kernels/cuda/cell/pass.h"
#include "kernels/cuda/discriminator/tiles.h"
#include "kernels/cuda/sigmoid_tanh.h"
#include "planted.h"
#include "tensor_core.h"

namespace py = pybind11;

namespace fusegen::cuda {

int device_type() { return 1; }

Device device(int) {
  const simt::Settings& s = simt::settings();
  return device_of(s.sms, s.shared_bytes, s.major, s.code);
}

Code code(int) { return loaded_code(); }

}  // namespace fusegen::cuda

namespace fusegen::ladder {

double worst_error(int version, int T, int B, int H);  // benchmarks/gpu/lstm_forward.cu

}  // namespace fusegen::ladder

namespace fusegen::activations {

std::array<double, 2> worst_error(const std::string& name, double from, double to, int stride);

}  // namespace fusegen::activations

namespace fusegen::products {

double worst_error(const std::string& shape, bool tf32, int chunks, float special);

}  // namespace fusegen::products

namespace fusegen::boxes {

std::vector<int> box(const std::vector<int>& numbers, int64_t width, int64_t rows, int64_t stride, int x,
                     int y, int offset);

}  // namespace fusegen::boxes

PYBIND11_MODULE(_simt, m) {
  fusegen::find_torch();
  m.doc() = "The CUDA kernels of fusegen, run lane by lane on the CPU, for the tests.";
  fusegen::bind_cuda_layer(m);
  fusegen::bind_cuda_cell(m);
  fusegen::bind_cuda_normalised(m);
  fusegen::bind_cuda_discriminator(m);
  m.def(
      "set_order",
      [](const std::string& order, uint64_t seed) {
        simt::Settings& s = simt::settings();
        if (order != "forward" && order != "reverse" && order != "random")
          throw py::value_error("order: expected 'forward', 'reverse' or 'random', got '" + order + "'");
        s.order = order == "forward"   ? simt::Order::forward
                  : order == "reverse" ? simt::Order::reverse
                                       : simt::Order::random;
        s.seed = seed;
      },
      py::arg("order"), py::arg("seed") = 0);
  m.def(
      "set_device",
      [](int sms, int shared_bytes, int major, std::optional<int> code) {
        simt::Settings& s = simt::settings();
        s.sms = sms;
        s.shared_bytes = shared_bytes;
        s.major = major;
        s.code = code.value_or(10 * major);
      },
      "What the emulated device has, the H200's figures at start; code: what the kernels there were compiled "
      "for, "
      "10 * major unless said.",
      py::arg("sms") = 132, py::arg("shared_bytes") = 227 * 1024, py::arg("major") = 9,
      py::arg("code") = py::none());
  m.def(
      "leave_free", [](int sms) { simt::settings().free_sms = sms; },
      "Lets a launch find so few SMs free; 0: all.");
  m.def("launches", &simt::launches, "Kernels launched so far.");
  m.def(
      "mlp_tile",
      [](int sms, int major, const std::string& format, const std::vector<std::array<int, 4>>& products) {
        using fusegen::cuda::Format;
        const std::pair<const char*, Format> formats[] = {{"bfloat16", Format::bf16},
                                                          {"float16", Format::f16},
                                                          {"float32", Format::f32},
                                                          {"tf32", Format::tf32}};
        std::vector<fusegen::cuda::ProductSize> sizes;
        for (const auto& p : products) sizes.push_back({p[0], p[1], p[2], p[3]});
        for (const auto& [name, f] : formats)
          if (format == name) {
            const char* tiles[] = {"small", "medium", "large", "warpgroups"};
            const auto device =
                fusegen::cuda::device_of(sms, simt::settings().shared_bytes, major, 10 * major);
            return std::string(tiles[static_cast<int>(fusegen::cuda::choose_tile(device, f, sizes))]);
          }
        throw py::value_error("format: no '" + format + "'");
      },
      "The tile in which a discriminator step forms these products (m, n, k, phase).", py::arg("sms"),
      py::arg("major"), py::arg("format"), py::arg("products"));
  m.def("ladder_error", &fusegen::ladder::worst_error,
        "The largest difference of a version of benchmarks/gpu/lstm_forward.cu from a plain loop.",
        py::arg("version"), py::arg("T"), py::arg("B"), py::arg("H"));
  m.def("product_error", &fusegen::products::worst_error,
        "The largest error of a product of rows kept in registers, as a part of the sum of its products' "
        "sizes; "
        "infinity where one that is not finite is another than IEEE's.",
        py::arg("shape"), py::arg("tf32"), py::arg("chunks"), py::arg("special"));
  m.def("box", &fusegen::boxes::box,
        "[64, 64], row by row: what a bulk copy brings of a matrix [rows, width] of 16-bit numbers, rows "
        "`stride` bytes apart, the first `offset` bytes behind 16-byte aligned memory; the box begins at "
        "number x of row y.",
        py::arg("numbers"), py::arg("width"), py::arg("rows"), py::arg("stride"), py::arg("x"), py::arg("y"),
        py::arg("offset") = 0);
  m.def("activation_error", &fusegen::activations::worst_error,
        "The largest error of 'sigmoid' or 'tanh' (sigmoid_tanh.h), absolute and in proportion, over every "
        "stride-th float between two of one sign.",
        py::arg("name"), py::arg("from"), py::arg("to"), py::arg("stride"));
  m.def(
      "activation",
      [](const std::string& name, float x) {
        return name == "tanh" ? fusegen::cuda::Math::tanh(x) : fusegen::cuda::Math::sigmoid(x);
      },
      py::arg("name"), py::arg("x"));
  m.def(
      "tensor_core",
      [](float c, const std::vector<float>& a, const std::vector<float>& b, bool tf32) {
        const int K = tf32 ? 8 : 16;
        if (a.size() > static_cast<size_t>(K) || b.size() != a.size())
          throw py::value_error("a, b: expected up to " + std::to_string(K) + " numbers each");
        std::array<float, 8> d{c};
        std::vector<float> row(a), columns(8 * K);
        row.resize(K);
        std::copy(b.begin(), b.end(), columns.begin());
        simt::multiply_add(d.data(), row.data(), columns.data(), 1, 8, K,
                           tf32 ? simt::Numbers::tf32 : simt::Numbers::of16bits);
        return d[0];
      },
      "c plus the products of a and b, as one instruction of the emulated device's tensor cores adds them "
      "up.",
      py::arg("c"), py::arg("a"), py::arg("b"), py::arg("tf32"));
  m.def("planted", &simt::planted, "Runs a kernel with this fault.");
  m.def("planted_faults", &simt::planted_faults);
  m.def(
      "hang_at", [](int block) { simt::settings().hang_at = block; },
      "Plants a hang in this block, counted from 1; 0: none.");
  m.def(
      "let_clusters_fit", [](bool fit) { simt::settings().clusters_fit = fit; },
      "Whether the driver finds room for a cluster.");
  m.def(
      "start_late",
      [](int block, int breaths) {
        simt::settings().late_block = block;
        simt::settings().late_breaths = breaths;
      },
      "Starts this block, counted from 1, so many breaths after the others; 0: none.");
  m.def(
      "set_old_code", [](bool old) { simt::settings().old_code = old; },
      "Runs the kernels as code from before clusters, whatever is told of them.");
}
