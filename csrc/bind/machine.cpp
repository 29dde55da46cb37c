// What `fusegen info` asks of the engine: the build, the processor, the plan of a call.
#include "kernels/cpu/machine.h"

#include <tuple>

#include "arguments.h"
#include "bind.h"
#include "build_info.h"
#include "kernels/cpu/peak.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/select.h"

namespace fusegen {

namespace py = pybind11;
using namespace py::literals;

namespace {

// What the threads of a plan share: a machine's cores take rows of the batch, or units.
const char* shared_out(const cpu::Plan& p) {
  return p.threads == 1 ? "none" : p.over_rows ? "rows" : "units";
}

// What becomes of weights that are not packed yet: what a call reads once is never packed as a whole.
const char* weights_of(const cpu::Plan& p, bool hoisted, bool one_step) {
  if (p.small_step) return "as they lie";
  if (one_step) return "block by block as they are used";
  return hoisted && !p.over_rows ? "R packed, W block by block as it is used" : "packed";
}

py::dict choose(Cell cell, int64_t I, int64_t H, int64_t B, int64_t T, Dtype dtype, bool train, int threads) {
  RecurrentSizes s{};
  s.cell = cell;
  s.dtype = dtype;
  s.T = T;
  s.B = B;
  s.I = I;
  s.H = s.P = H;
  s.threads = threads;
  const cpu::Plan forward = cpu::plan_forward(s);
  const bool hoisted = forward.chunk_rows >= B * T;
  py::dict d("kernel"_a = std::string("cpu ") + cpu::float_isa_name(), "threads"_a = forward.threads,
             "threads_over"_a = shared_out(forward), "input_gemm"_a = hoisted ? "hoisted" : "chunked",
             "weights"_a = weights_of(forward, hoisted, T == 1), "chunk_rows"_a = forward.chunk_rows,
             "why"_a = forward.why);
  if (train) d["backward_threads_over"] = shared_out(cpu::plan_backward(s));
  return d;
}

py::dict described(const cpu::Machine& m) {
  return py::dict("vendor"_a = cpu::vendor_name(m.vendor), "family"_a = m.family, "model"_a = m.model,
                  "l1d"_a = m.l1d, "l2"_a = m.l2, "l3"_a = m.l3, "l3_cores"_a = m.l3_cores,
                  "source"_a = m.source);
}

py::dict described(const cpu::Blocks& b) {
  return py::dict("resident"_a = b.resident_bytes, "input"_a = b.input_bytes, "rows"_a = b.row_bytes,
                  "panel"_a = b.panel_bytes, "columns"_a = b.column_bytes,
                  "past_cache"_a = b.past_cache_bytes);
}

using Caches = std::vector<std::tuple<int, bool, int64_t, int>>;

py::dict machine_from(const std::string& vendor, uint32_t signature, bool hybrid, const Caches& cpuid,
                      const Caches& sysfs, const std::string& caches) {
  cpu::RawMachine raw{vendor, signature, hybrid, {}, {}, caches};
  for (const auto& [level, data, bytes, sharing] : cpuid) raw.cpuid.push_back({level, data, bytes, sharing});
  for (const auto& [level, data, bytes, sharing] : sysfs) raw.sysfs.push_back({level, data, bytes, sharing});
  return described(cpu::machine_from(raw));
}

py::list words(const char* text) { return py::str(text).attr("split")(); }

py::dict build_info() {
  return py::dict("version"_a = build::version, "compiler"_a = build::compiler,
                  "build_type"_a = build::build_type, "isas"_a = words(build::isas),
                  "cuda_archs"_a = words(build::cuda_archs), "cuda_note"_a = build::cuda_note);
}

}  // namespace

void bind_machine(py::module_& m) {
  m.def("choose", &choose, "cell"_a, "I"_a, "H"_a, "B"_a, "T"_a, "dtype"_a, "train"_a, "threads"_a);
  m.def("isa", [] { return cpu::isa_name(); });
  m.def("float_isa", [] { return cpu::float_isa_name(); });
  m.def("available_isas", [] { return words(cpu::available_isas()); });
  m.def("machine", [] { return described(cpu::machine()); });
  m.def("blocks", [] { return described(cpu::blocks()); });
  m.def("machine_from", &machine_from, "vendor"_a = "", "signature"_a = 0, "hybrid"_a = false,
        "cpuid"_a = Caches{}, "sysfs"_a = Caches{}, "caches"_a = "");
  m.def("build_info", &build_info);
  m.def(
      "peak_gflops",
      [](int threads) {
        py::gil_scoped_release unlocked;
        return cpu::peak_gflops(threads);
      },
      "threads"_a);
}

}  // namespace fusegen
