// The instruction set in use, decided once.
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "build_info.h"
#include "kernels.h"

namespace fusegen {

#define FUSEGEN_DECLARE(name)      \
  namespace name {                 \
  extern const cpu::Kernels table; \
  }
FUSEGEN_FOR_EACH_ISA(FUSEGEN_DECLARE)

namespace cpu {
namespace {

bool machine_has(const std::string& isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (isa == "avx2") return avx2;
  if (isa == "avx512") return avx512;
  if (isa == "avx512_bf16") return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return isa == "baseline";
}

const std::vector<const Kernels*>& available() {
  static const std::vector<const Kernels*> sets = [] {
    std::vector<const Kernels*> v;
#define FUSEGEN_APPEND(name) \
  if (machine_has(name::table.isa)) v.push_back(&name::table);
    FUSEGEN_FOR_EACH_ISA(FUSEGEN_APPEND)
    return v;
  }();
  return sets;
}

const Kernels& choose() {
  const char* forced = std::getenv("FUSEGEN_ISA");
  if (!forced || !*forced) return *available().back();
  for (const Kernels* k : available())
    if (std::string(k->isa) == forced) return *k;
  throw std::runtime_error(std::string("FUSEGEN_ISA: expected one of: ") + available_isas() + "; got '" +
                           forced + "'");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();  // a throw leaves it to be decided again
  return chosen;
}

const char* available_isas() {
  static const std::string names = [] {
    std::string s;
    for (const Kernels* k : available()) s += (s.empty() ? "" : " ") + std::string(k->isa);
    return s;
  }();
  return names.c_str();
}

}  // namespace cpu
}  // namespace fusegen
