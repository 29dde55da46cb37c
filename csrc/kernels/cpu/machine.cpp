#include "machine.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fusegen::cpu {
namespace {

constexpr int64_t kKiB = 1024, kMiB = 1024 * 1024;

// From the smallest cache of any x86-64 or 64-bit ARM core to several times the largest: what lies outside
// was not read but made up on the way.
struct Limits {
  int64_t least, most;
};
constexpr Limits kPlausible[3] = {{4 * kKiB, kMiB}, {32 * kKiB, 64 * kMiB}, {128 * kKiB, 4096 * kMiB}};
constexpr int64_t kDefaults[3] = {kDefaultL1d, kDefaultL2, kDefaultL3};

bool plausible(int level, int64_t bytes, int64_t below) {
  const Limits& limits = kPlausible[level - 1];
  return bytes >= limits.least && bytes <= limits.most && bytes >= below;
}

const CacheReading* find(const std::vector<CacheReading>& caches, int level) {
  for (const CacheReading& c : caches)
    if (c.level == level && c.data && c.bytes > 0) return &c;
  return nullptr;
}

// How many cores share `c`: its logical processors over those of one core, which are those that share its L1.
int cores_of(const CacheReading& c, const std::vector<CacheReading>& caches) {
  const CacheReading* l1 = find(caches, 1);
  if (!l1 || l1->sharing < 1 || c.sharing < l1->sharing) return 0;
  return c.sharing / l1->sharing;
}

// "32,512,32768" -> three sizes in bytes.
void parse_caches(const std::string& text, int64_t (&bytes)[3]) {
  const std::string expected = "FUSEGEN_CACHES: expected \"l1d,l2,l3\" in KiB, for example 32,512,32768; ";
  const auto refuse = [&](const std::string& why) {
    throw std::runtime_error(expected + why + "'" + text + "'");
  };
  size_t at = 0;
  for (int i = 0; i < 3; ++i) {
    const size_t start = at;
    int64_t kib = 0;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9' && at - start < 10)
      kib = kib * 10 + (text[at++] - '0');
    if (at == start || (i < 2 ? at >= text.size() || text[at++] != ',' : at != text.size())) refuse("got ");
    bytes[i] = kib * kKiB;
  }
  const char* names[] = {"l1d", "l2", "l3"};
  for (int i = 0; i < 3; ++i) {
    const Limits& limits = kPlausible[i];
    if (bytes[i] < limits.least || bytes[i] > limits.most)
      refuse(std::string(names[i]) + " from " + std::to_string(limits.least / kKiB) + " to " +
             std::to_string(limits.most / kKiB) + "; got ");
    if (i && bytes[i] < bytes[i - 1])
      refuse(std::string(names[i]) + " no smaller than " + names[i - 1] + "; got ");
  }
}

std::string joined(const char* const (&sources)[3]) {
  if (!std::strcmp(sources[0], sources[1]) && !std::strcmp(sources[1], sources[2])) return sources[0];
  return std::string("L1 ") + sources[0] + ", L2 " + sources[1] + ", L3 " + sources[2];
}

#if defined(__x86_64__)

// Intel's leaf 4 and AMD's 0x8000001D have one format.
std::vector<CacheReading> caches_of_leaf(uint32_t leaf) {
  std::vector<CacheReading> found;
  for (uint32_t i = 0; i < 16; ++i) {
    uint32_t a, b, c, d;
    __cpuid_count(leaf, i, a, b, c, d);
    const uint32_t type = a & 31;  // 1 data, 2 instructions, 3 both
    if (type == 0) break;
    const int64_t line = (b & 0xfff) + 1, partitions = (b >> 12 & 0x3ff) + 1, ways = (b >> 22) + 1;
    found.push_back({static_cast<int>(a >> 5 & 7), type != 2, line * partitions * ways * (int64_t{c} + 1),
                     static_cast<int>(a >> 14 & 0xfff) + 1});
  }
  return found;
}

void read_cpuid(RawMachine& raw) {
  uint32_t a, b, c, d, last;
  if (!__get_cpuid(0, &last, &b, &c, &d)) return;
  for (uint32_t part : {b, d, c}) raw.vendor.append(reinterpret_cast<const char*>(&part), 4);
  if (__get_cpuid(1, &a, &b, &c, &d)) raw.signature = a;
  if (last >= 7 && __get_cpuid_count(7, 0, &a, &b, &c, &d)) raw.hybrid = d >> 15 & 1;
  constexpr uint32_t amd_leaf = 0x8000001D, topology_extensions = 1u << 22;
  if (raw.vendor != "GenuineIntel" && __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & topology_extensions) &&
      __get_cpuid_max(0x80000000, nullptr) >= amd_leaf) {
    raw.cpuid = caches_of_leaf(amd_leaf);
  } else if (raw.vendor != "AuthenticAMD" && last >= 4) {
    raw.cpuid = caches_of_leaf(4);
  }
}

#else

void read_cpuid(RawMachine&) {}

#endif

#if defined(__linux__)

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "0-3,8" -> 5
int processors_in(const std::string& list) {
  int n = 0;
  for (const char* p = list.c_str(); *p >= '0' && *p <= '9';) {
    char* end;
    const long from = std::strtol(p, &end, 10);
    const long to = *end == '-' ? std::strtol(end + 1, &end, 10) : from;
    n += static_cast<int>(std::max(0L, to - from + 1));
    p = *end == ',' ? end + 1 : end;
  }
  return n;
}

// "32K" -> 32768
int64_t bytes_in(const std::string& text) {
  char* end;
  const int64_t n = std::strtoll(text.c_str(), &end, 10);
  return *end == 'K' ? n * kKiB : *end == 'M' ? n * kMiB : *end == 'G' ? n * 1024 * kMiB : n;
}

void read_sysfs(RawMachine& raw) {
  for (int i = 0; i < 16; ++i) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    const std::string level = first_line(folder + "level"), type = first_line(folder + "type");
    if (level.empty()) break;
    raw.sysfs.push_back({std::atoi(level.c_str()), type != "Instruction",
                         bytes_in(first_line(folder + "size")),
                         processors_in(first_line(folder + "shared_cpu_list"))});
  }
}

#else

void read_sysfs(RawMachine&) {}

#endif

}  // namespace

Machine machine_from(const RawMachine& raw) {
  Machine m{};
  m.vendor = raw.vendor == "GenuineIntel"   ? Vendor::intel
             : raw.vendor == "AuthenticAMD" ? Vendor::amd
                                            : Vendor::other;
  const uint32_t s = raw.signature, family = s >> 8 & 15;
  m.family = static_cast<int>(family == 15 ? family + (s >> 20 & 255) : family);
  m.model = static_cast<int>((s >> 4 & 15) | (family == 6 || family == 15 ? s >> 12 & 0xf0 : 0));

  int64_t bytes[3];
  if (!raw.caches.empty()) {
    parse_caches(raw.caches, bytes);
    m.source = "FUSEGEN_CACHES";
  } else {
    struct {
      const char* name;
      const std::vector<CacheReading>* caches;
    } readers[2] = {{"CPUID", &raw.cpuid}, {"sysfs", &raw.sysfs}};
    if (raw.hybrid) std::swap(readers[0], readers[1]);
    const char* sources[3];
    for (int level = 1; level <= 3; ++level) {
      const int64_t below = level == 1 ? 0 : bytes[level - 2];
      bytes[level - 1] = std::max(kDefaults[level - 1], below);
      sources[level - 1] = "default";
      for (const auto& reader : readers) {
        const CacheReading* c = find(*reader.caches, level);
        if (!c) continue;
        const int cores = cores_of(*c, *reader.caches);
        const int64_t of_one = level < 3 && cores > 1 ? c->bytes / cores : c->bytes;
        if (!plausible(level, of_one, below)) continue;
        bytes[level - 1] = of_one;
        sources[level - 1] = reader.name;
        if (level == 3) m.l3_cores = cores;
        break;
      }
    }
    m.source = joined(sources);
  }
  m.l1d = bytes[0];
  m.l2 = bytes[1];
  m.l3 = bytes[2];
  return m;
}

RawMachine read_machine() {
  RawMachine raw;
  read_cpuid(raw);
  read_sysfs(raw);
  const char* forced = std::getenv("FUSEGEN_CACHES");
  if (forced) raw.caches = forced;
  return raw;
}

const Machine& machine() {
  static const Machine read = machine_from(read_machine());  // a throw leaves it to be read again
  return read;
}

const char* vendor_name(Vendor vendor) {
  return vendor == Vendor::intel ? "intel" : vendor == Vendor::amd ? "amd" : "other";
}

}  // namespace fusegen::cpu
