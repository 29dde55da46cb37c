// The processor: its vendor and its caches, read once. What block and chunk sizes follow from.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fusegen::cpu {

enum class Vendor { intel, amd, other };

struct Machine {
  Vendor vendor;
  int family, model;  // as CPUID gives them, extended fields added in; 0 where there is no CPUID
  int64_t l1d, l2;    // bytes of one core's share
  int64_t l3;         // bytes, of the group of cores that share it
  int l3_cores;       // that group's size as the processor tells it (often rounded up), 0 unknown
  // Of the sizes: "CPUID", "sysfs", "default", "FUSEGEN_CACHES", or "L1 CPUID, L2 sysfs, ..."
  std::string source;
};

// Where neither CPUID nor the system tells: containers and hypervisors hide them.
constexpr int64_t kDefaultL1d = 32 * 1024;
constexpr int64_t kDefaultL2 = 512 * 1024;
constexpr int64_t kDefaultL3 = 8 * 1024 * 1024;

// One cache as CPUID or the system tells it.
struct CacheReading {
  int level;  // 1, 2, 3
  bool data;  // holds data, alone or beside instructions
  int64_t bytes;
  int sharing;  // logical processors that share it, 0 unknown
};

// What can be read of a processor; `machine_from` makes the answer of it and reads nothing itself.
struct RawMachine {
  std::string vendor;      // CPUID leaf 0: "GenuineIntel", ...; "" where there is no CPUID
  uint32_t signature = 0;  // CPUID leaf 1, EAX
  bool hybrid = false;     // cores of several kinds: CPUID then answers for whichever core asks
  std::vector<CacheReading> cpuid;
  std::vector<CacheReading> sysfs;  // of the first core
  std::string caches;               // FUSEGEN_CACHES: "l1d,l2,l3" in KiB; "" to read
};

// Each level from CPUID (where cores are of several kinds, from sysfs first, so that runs agree), else from
// the other, else the default. A size of 0 or of no plausible cache, or a level smaller than the one below
// it, counts as not read. Throws std::runtime_error for `caches` of another form.
Machine machine_from(const RawMachine& raw);

RawMachine read_machine();

// This machine. Throws std::runtime_error where FUSEGEN_CACHES is wrong.
const Machine& machine();

const char* vendor_name(Vendor vendor);  // "intel", "amd", "other"

}  // namespace fusegen::cpu
