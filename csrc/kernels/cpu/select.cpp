#include "select.h"

#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fusegen::cpu {
namespace {

#define FUSEGEN_NAME(isa, floats) #isa,
#define FUSEGEN_NAME_OF_FLOATS(isa, floats) #floats,
constexpr const char* kBuilt[] = {FUSEGEN_FOR_EACH_ISA(FUSEGEN_NAME)};
constexpr const char* kFloats[] = {FUSEGEN_FOR_EACH_ISA(FUSEGEN_NAME_OF_FLOATS)};

#if defined(__x86_64__)
// What GCC 11's __builtin_cpu_supports has no name for: leaf 7, subleaf 1, EAX bit 4.
bool has_avx_vnni() {
  uint32_t a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1) return false;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

bool machine_has(const std::string& isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (isa == "avx2") return avx2;
  if (isa == "avx2_vnni") return avx2 && has_avx_vnni();
  if (isa == "avx512") return avx512;
  if (isa == "avx512_vnni") return avx512 && __builtin_cpu_supports("avx512vnni");
  if (isa == "avx512_bf16")
    return avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
#endif
  return isa == "baseline";
}

int choose() {
  const char* forced = std::getenv("FUSEGEN_ISA");
  int best = -1;
  for (int i = 0; i < static_cast<int>(std::size(kBuilt)); ++i) {
    if (!machine_has(kBuilt[i])) continue;
    if (forced && *forced && std::string(kBuilt[i]) == forced) return i;
    best = i;
  }
  if (!forced || !*forced) return best;
  throw std::runtime_error(std::string("FUSEGEN_ISA: expected one of: ") + available_isas() + "; got '" +
                           forced + "'");
}

}  // namespace

int isa_in_use() {
  static const int chosen = choose();  // a throw leaves it to be decided again
  return chosen;
}

const char* isa_name() { return kBuilt[isa_in_use()]; }
const char* float_isa_name() { return kFloats[isa_in_use()]; }

const char* available_isas() {
  static const std::string names = [] {
    std::string s;
    for (const char* isa : kBuilt)
      if (machine_has(isa)) s += (s.empty() ? "" : " ") + std::string(isa);
    return s;
  }();
  return names.c_str();
}

}  // namespace fusegen::cpu
