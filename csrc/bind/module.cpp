// fusegen._C: one line an op. Python allocates every output; the GIL is released while kernels run.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "build_info.h"
#include "convolution.h"
#include "discriminator.h"
#include "kernels/cpu/machine.h"
#include "kernels/cpu/peak.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/select.h"
#include "ops/cpu/cell.h"
#include "ops/cpu/discriminator.h"
#include "ops/cpu/layer.h"
#include "recurrent.h"
#include "tensor_view.h"

namespace py = pybind11;
using namespace fusegen;

namespace {

Cell rnn(bool relu) { return relu ? Cell::rnn_relu : Cell::rnn_tanh; }

template <class Layer>
void run(void (*op)(const Layer&), const Layer& layer) {
  py::gil_scoped_release unlocked;
  op(layer);
}

py::dict choose(const std::string& cell, int64_t I, int64_t H, int64_t B, int64_t T, const std::string& dtype,
                bool train, int threads) {
  RecurrentSizes s{};
  s.cell = cell_named(cell);
  s.dtype = dtype_named(dtype);
  s.T = T;
  s.B = B;
  s.I = I;
  s.H = s.P = H;
  s.threads = threads;
  const cpu::Plan forward = cpu::plan_forward(s), backward = cpu::plan_backward(s);
  py::dict d;
  d["kernel"] = std::string("cpu ") + cpu::isa_name();
  d["threads"] = forward.threads;
  d["threads_over"] = forward.threads == 1 ? "none" : forward.over_rows ? "rows" : "units";
  d["input_gemm"] = forward.chunk_rows >= B * T ? "hoisted" : "chunked";
  d["weights"] = forward.small_step ? "as they lie" : "packed";
  d["chunk_rows"] = forward.chunk_rows;
  d["why"] = forward.why;
  if (train)
    d["backward_threads_over"] = backward.threads == 1 ? "none" : backward.over_rows ? "rows" : "units";
  return d;
}

py::dict described(const cpu::Machine& m) {
  py::dict d;
  d["vendor"] = cpu::vendor_name(m.vendor);
  d["family"] = m.family;
  d["model"] = m.model;
  d["l1d"] = m.l1d;
  d["l2"] = m.l2;
  d["l3"] = m.l3;
  d["l3_cores"] = m.l3_cores;
  d["source"] = m.source;
  return d;
}

py::dict described(const cpu::Blocks& b) {
  py::dict d;
  d["resident"] = b.resident_bytes;
  d["input"] = b.input_bytes;
  d["rows"] = b.row_bytes;
  d["panel"] = b.panel_bytes;
  d["columns"] = b.column_bytes;
  d["past_cache"] = b.past_cache_bytes;
  return d;
}

using Caches = std::vector<std::tuple<int, bool, int64_t, int>>;

py::dict machine_from(const std::string& vendor, uint32_t signature, bool hybrid, const Caches& cpuid,
                      const Caches& sysfs, const std::string& caches) {
  cpu::RawMachine raw{vendor, signature, hybrid, {}, {}, caches};
  for (const auto& [level, data, bytes, sharing] : cpuid) raw.cpuid.push_back({level, data, bytes, sharing});
  for (const auto& [level, data, bytes, sharing] : sysfs) raw.sysfs.push_back({level, data, bytes, sharing});
  return described(cpu::machine_from(raw));
}

py::dict build_info() {
  py::dict d;
  d["version"] = build::version;
  d["compiler"] = build::compiler;
  d["build_type"] = build::build_type;
  d["isas"] = py::str(build::isas).attr("split")();
  d["cuda_archs"] = py::str(build::cuda_archs).attr("split")();
  d["cuda_note"] = build::cuda_note;
  return d;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The engine of fusegen. Shapes and meanings: csrc/kernels/params.h.";

  m.def("lstm_forward", [](View x, View h0, View c0, Views weights, View lengths, View y, View h_n, View c_n,
                           View gates, View cells, std::optional<Views> packed, int threads) {
    run(layer_forward, {Cell::lstm, x, h0, c0, weights, lengths, y, h_n, c_n, gates, cells,
                        packed.value_or(Views{}), threads});
  });
  m.def("gru_forward", [](View x, View h0, Views weights, View lengths, View y, View h_n, View gates,
                          std::optional<Views> packed, int threads) {
    run(layer_forward,
        {Cell::gru, x, h0, {}, weights, lengths, y, h_n, {}, gates, {}, packed.value_or(Views{}), threads});
  });
  m.def("rnn_forward", [](View x, View h0, Views weights, View lengths, bool relu, View y, View h_n,
                          std::optional<Views> packed, int threads) {
    run(layer_forward,
        {rnn(relu), x, h0, {}, weights, lengths, y, h_n, {}, {}, {}, packed.value_or(Views{}), threads});
  });
  m.def("lstm_backward",
        [](View dy, View dh_n, View dc_n, View x, View h0, View c0, Views weights, View lengths, View y,
           View gates, View cells, View dx, View dh0, View dc0, Views dweights, int threads) {
          run(layer_backward, {Cell::lstm, dy, dh_n, dc_n, x, h0, c0, weights, lengths, y, gates, cells, dx,
                               dh0, dc0, dweights, threads});
        });
  m.def("gru_backward", [](View dy, View dh_n, View x, View h0, Views weights, View lengths, View y,
                           View gates, View dx, View dh0, Views dweights, int threads) {
    run(layer_backward,
        {Cell::gru, dy, dh_n, {}, x, h0, {}, weights, lengths, y, gates, {}, dx, dh0, {}, dweights, threads});
  });
  m.def("rnn_backward", [](View dy, View dh_n, View x, View h0, Views weights, View lengths, bool relu,
                           View y, View dx, View dh0, Views dweights, int threads) {
    run(layer_backward,
        {rnn(relu), dy, dh_n, {}, x, h0, {}, weights, lengths, y, {}, {}, dx, dh0, {}, dweights, threads});
  });

  m.def("lstm_cell_forward", [](View x, View h, View c, Views weights, View h_out, View c_out, View gates,
                                View cells, std::optional<Views> packed, int threads) {
    weights.push_back({});
    run(cell_forward, {Cell::lstm,
                       x,
                       h,
                       c,
                       weights,
                       {},
                       h_out,
                       h_out,
                       c_out,
                       gates,
                       cells,
                       packed.value_or(Views{}),
                       threads});
  });
  m.def("gru_cell_forward", [](View x, View h, Views weights, View h_out, View gates,
                               std::optional<Views> packed, int threads) {
    run(cell_forward,
        {Cell::gru, x, h, {}, weights, {}, h_out, h_out, {}, gates, {}, packed.value_or(Views{}), threads});
  });
  m.def("rnn_cell_forward", [](View x, View h, Views weights, bool relu, View h_out,
                               std::optional<Views> packed, int threads) {
    run(cell_forward,
        {rnn(relu), x, h, {}, weights, {}, h_out, h_out, {}, {}, {}, packed.value_or(Views{}), threads});
  });
  m.def("lstm_cell_backward", [](View dh_out, View dc_out, View x, View h, View c, Views weights, View gates,
                                 View cells, View dx, View dh, View dc, Views dweights, int threads) {
    weights.push_back({});
    dweights.push_back({});
    run(cell_backward, {Cell::lstm,
                        dh_out,
                        {},
                        dc_out,
                        x,
                        h,
                        c,
                        weights,
                        {},
                        {},
                        gates,
                        cells,
                        dx,
                        dh,
                        dc,
                        dweights,
                        threads});
  });
  m.def("gru_cell_backward", [](View dh_out, View x, View h, Views weights, View gates, View dx, View dh,
                                Views dweights, int threads) {
    run(cell_backward,
        {Cell::gru, dh_out, {}, {}, x, h, {}, weights, {}, {}, gates, {}, dx, dh, {}, dweights, threads});
  });
  m.def("rnn_cell_backward", [](View dh_out, View x, View h, Views weights, bool relu, View h_out, View dx,
                                View dh, Views dweights, int threads) {
    run(cell_backward,
        {rnn(relu), dh_out, {}, {}, x, h, {}, weights, {}, h_out, {}, {}, dx, dh, {}, dweights, threads});
  });

  m.def("packed_bytes",
        [](const std::string& cell, int64_t I, int64_t H, int64_t P, const std::string& dtype) {
          return packed_bytes(cell_named(cell), dtype_named(dtype), I, H, P);
        });
  m.def("pack", [](const std::string& cell, Views weights, View blob, int threads) {
    py::gil_scoped_release unlocked;
    pack_weights(cell_named(cell), weights, blob, threads);
  });

  m.def("mlp_saved_bytes", [](const py::tuple& step) { return mlp_saved_bytes(mlp_call(step)); });
  m.def("mlp_forward", [](const py::tuple& step, View loss, View scalars, View logits, View saved) {
    const MlpCall call = mlp_call(step);
    py::gil_scoped_release unlocked;
    mlp_forward(call, loss, scalars, logits, saved);
  });
  m.def("mlp_backward", [](const py::tuple& step, double scale, View saved, Views dweights, Views dbiases,
                           View dx_real, View dx_fake) {
    const MlpCall call = mlp_call(step);
    py::gil_scoped_release unlocked;
    mlp_backward(call, scale, saved, {dweights, dbiases, dx_real, dx_fake});
  });

  bind_recurrence(m);
  bind_gpu_discriminator(m);
  bind_convolution(m);

  m.def("choose", &choose);
  m.def("isa", [] { return cpu::isa_name(); });
  m.def("available_isas", [] { return py::str(cpu::available_isas()).attr("split")(); });
  m.def("machine", [] { return described(cpu::machine()); });
  m.def("blocks", [] { return described(cpu::blocks()); });
  m.def("machine_from", &machine_from, py::arg("vendor") = "", py::arg("signature") = 0,
        py::arg("hybrid") = false, py::arg("cpuid") = Caches{}, py::arg("sysfs") = Caches{},
        py::arg("caches") = "");
  m.def("build_info", &build_info);
  m.def("peak_gflops", [](int threads) {
    py::gil_scoped_release unlocked;
    return cpu::peak_gflops(threads);
  });
}
