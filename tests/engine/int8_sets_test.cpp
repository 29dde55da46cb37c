// Weights of 8 bits: every instruction set that was built against the baseline's results. Sums are exact, so
// a Linear layer of integers gives the same numbers on all of them, and one step of a cell the same to
// float32's rounding; over several, an activation may be rounded to the next integer.
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/cpu/recurrent.h"
#include "report.h"
#include "vnni_emulator.h"

namespace fusegen::test {
namespace {

struct Set {
  const char* name;
  int64_t (*packed_bytes)(const Int8Pack&);
  void (*pack)(const Int8Pack&);
  void (*forward)(const Int8Forward&);
  int64_t (*linear_bytes)(const Int8LinearPack&);
  void (*linear_pack)(const Int8LinearPack&);
  void (*linear)(const Int8Linear&);
};

#define FUSEGEN_SET(isa, floats) \
  {#isa,                         \
   isa::int8_packed_bytes,       \
   isa::int8_pack,               \
   isa::int8_forward,            \
   isa::int8_linear_bytes,       \
   isa::int8_linear_pack,        \
   isa::int8_linear},
constexpr Set kSets[] = {FUSEGEN_FOR_EACH_ISA(FUSEGEN_SET)};

using Floats = std::vector<float>;
using Bytes = std::vector<int8_t>;

// Memory of exactly so many bytes, the first on no boundary.
struct Blob {
  std::unique_ptr<char[]> bytes;
  explicit Blob(int64_t n) : bytes(std::make_unique<char[]>(n + 1)) {}
  void* data() const { return bytes.get() + 1; }
};

struct Draw {
  std::mt19937 random{0};
  Bytes integers(int64_t n) {
    std::uniform_int_distribution<int> pick(-127, 127);
    Bytes v(n);
    for (int8_t& e : v) e = static_cast<int8_t>(pick(random));
    return v;
  }
  Floats floats(int64_t n, float low, float high) {
    std::uniform_real_distribution<float> pick(low, high);
    Floats v(n);
    for (float& e : v) e = pick(random);
    return v;
  }
};

// Activations and weights are integers and every scale is 1, so all that is computed is exact.
Floats linear(const Set& set, int64_t n, int64_t I, int64_t O, bool weight_only) {
  Draw draw;
  const Bytes W = draw.integers(O * I);
  Floats x(n * I), b(O);
  for (float& v : x) v = static_cast<float>(draw.integers(1)[0]);
  for (int64_t row = 0; row < n; ++row) x[row * I] = 127;
  for (float& v : b) v = static_cast<float>(draw.integers(1)[0]);
  const Floats ones(O, 1.0f);
  Int8LinearPack pack{I, O, weight_only, W.data(), ones.data(), b.data(), nullptr};
  const Blob blob(set.linear_bytes(pack));
  pack.packed = blob.data();
  set.linear_pack(pack);
  Floats y(n * O, NAN);
  set.linear({Dtype::f32, n, I, O, weight_only, blob.data(), x.data(), y.data(), 1});
  return y;
}

// y [T,B,P], then h_n [B,P] and an LSTM's c_n [B,H].
Floats layer(const Set& set, Cell cell, int64_t I, int64_t H, int64_t B, int64_t T, bool project,
             bool weight_only, int threads) {
  Draw draw;
  const int64_t GH = gate_count(cell) * H, P = project ? (H + 1) / 2 : H;
  const float range = 1 / std::sqrt(static_cast<float>(H)) / 127;
  const Bytes W = draw.integers(GH * I), R = draw.integers(GH * P), W_hr = draw.integers(P * H);
  const Floats s_W = draw.floats(GH, 0.1f * range, range), s_R = draw.floats(GH, 0.1f * range, range),
               s_hr = draw.floats(P, 0.1f * range, range), b = draw.floats(2 * GH, -0.1f, 0.1f);
  Floats x = draw.floats(T * B * I, -1, 1), h0 = draw.floats(B * P, -1, 1), c0 = draw.floats(B * H, -1, 1);
  Int8Pack pack{cell,        I,          H,          P,           project,  weight_only,   W.data(), R.data(),
                W_hr.data(), s_W.data(), s_R.data(), s_hr.data(), b.data(), b.data() + GH, nullptr};
  if (!project) pack.W_hr = nullptr, pack.s_hr = nullptr;
  const Blob blob(set.packed_bytes(pack));
  pack.packed = blob.data();
  set.pack(pack);
  Floats out(T * B * P + B * P + (cell == Cell::lstm ? B * H : 0), NAN);
  Int8Forward p{};
  static_cast<RecurrentSizes&>(p) = {cell, Dtype::f32, T, B, I, H, P, 1, project, false, nullptr, threads};
  p.weight_only = weight_only;
  p.packed = blob.data();
  p.x = {x.data(), B * I, I};
  p.h0 = {h0.data(), 0, P};
  p.y = {out.data(), B * P, P};
  p.h_n = {out.data() + T * B * P, 0, P};
  if (cell == Cell::lstm) p.c0 = {c0.data(), 0, H}, p.c_n = {out.data() + T * B * P + B * P, 0, H};
  set.forward(p);
  return out;
}

std::string compare(const Floats& got, const Floats& want, float limit) {
  for (size_t i = 0; i < want.size(); ++i)
    if (!(std::fabs(got[i] - want[i]) <= limit)) {
      char text[100];
      std::snprintf(text, sizeof text, "[%zu]: got %.9g, want %.9g", i, got[i], want[i]);
      return text;
    }
  return "";
}

void check_set(Report& report, const Set& set) {
  const Set& plain = kSets[0];
  const std::string on = std::string("int8 on ") + set.name;
  for (bool weight_only : {false, true}) {
    for (const auto& [n, I, O] : {std::array<int64_t, 3>{1, 1, 1}, {5, 37, 70}, {13, 300, 24}, {40, 64, 129}})
      report.run(on + ", Linear", [&] {
        return compare(linear(set, n, I, O, weight_only), linear(plain, n, I, O, weight_only), 0);
      });
    for (Cell cell : {Cell::lstm, Cell::gru, Cell::rnn_tanh, Cell::rnn_relu})
      for (const auto& [I, H, B, T] :
           {std::array<int64_t, 4>{7, 33, 1, 1}, {37, 70, 3, 1}, {64, 64, 40, 1}, {37, 70, 5, 6}})
        for (bool project : {false, true}) {
          if (project && cell != Cell::lstm) continue;
          // One step's activations are the same integers; of what follows, 3e-2 as tests/nn/test_quantize.py.
          const float limit = T == 1 ? 5e-6f : 3e-2f;
          report.run(on + ", cell " + std::to_string(static_cast<int>(cell)), [&] {
            return compare(layer(set, cell, I, H, B, T, project, weight_only, T == 1 ? 1 : 2),
                           layer(plain, cell, I, H, B, T, project, weight_only, 1), limit);
          });
        }
  }
}

bool runs_here(const std::string& name) {
  std::istringstream names(cpu::available_isas());
  for (std::string one; names >> one;)
    if (one == name) return true;
  return false;
}

}  // namespace

void check_int8_sets(Report& report) {
  for (const Set& set : kSets) {
    bool emulated = false;
#if defined(FUSEGEN_EMULATES_VNNI)
    if (set.name == std::string("avx2_vnni") && !runs_here(set.name) && runs_here("avx2")) {
      emulated = true;
      VnniEmulator::start();
    }
#endif
    if (!emulated && !runs_here(set.name)) {
      std::printf("int8 on %s: not run, this CPU has no such set\n", set.name);
      continue;
    }
    check_set(report, set);
#if defined(FUSEGEN_EMULATES_VNNI)
    if (emulated)
      report.run("vpdpbusd is what was emulated",
                 [] { return VnniEmulator::done > 0 ? std::string() : std::string("no instruction was"); });
#endif
  }
}

}  // namespace fusegen::test
