// What g++ -fsanitize=thread calls before each access to memory, in the files of the kernels. That sanitizer
// and AddressSanitizer exclude each other, so where the rest is compiled with the latter these ask it too.
#include <cstddef>

#include "emulator.h"
#include "memory.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_loadN(const void*, size_t);
extern "C" void __asan_storeN(const void*, size_t);
#endif

namespace {

inline void hook(const void* p, size_t bytes, unsigned kind, const void* at) {
#if defined(__SANITIZE_ADDRESS__)
  kind& simt::memory::kWrite ? __asan_storeN(p, bytes) : __asan_loadN(p, bytes);
#endif
  if (simt::watched(p)) simt::memory::access(p, bytes, kind, at);
}

}  // namespace

#define SIMT_HOOK(name, bytes, kind) \
  extern "C" void name(const void* p) { hook(p, bytes, kind, __builtin_return_address(0)); }
#define SIMT_HOOKS(bytes)                                                                              \
  SIMT_HOOK(__tsan_read##bytes, bytes, simt::memory::kRead)                                            \
  SIMT_HOOK(__tsan_write##bytes, bytes, simt::memory::kWrite)                                          \
  SIMT_HOOK(__tsan_unaligned_read##bytes, bytes, simt::memory::kRead)                                  \
  SIMT_HOOK(__tsan_unaligned_write##bytes, bytes, simt::memory::kWrite)                                \
  SIMT_HOOK(__tsan_volatile_read##bytes, bytes, simt::memory::kRead | simt::memory::kStrong)           \
  SIMT_HOOK(__tsan_volatile_write##bytes, bytes, simt::memory::kWrite | simt::memory::kStrong)         \
  SIMT_HOOK(__tsan_unaligned_volatile_read##bytes, bytes, simt::memory::kRead | simt::memory::kStrong) \
  SIMT_HOOK(__tsan_unaligned_volatile_write##bytes, bytes, simt::memory::kWrite | simt::memory::kStrong)

SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)

extern "C" void __tsan_read_range(const void* p, size_t bytes) {
  hook(p, bytes, simt::memory::kRead, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(const void* p, size_t bytes) {
  hook(p, bytes, simt::memory::kWrite, __builtin_return_address(0));
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(const void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_read(const void*) {}
extern "C" void __tsan_vptr_update(const void*, const void*) {}
// Of the guards of local statics, which lanes do not race for: one runs at a time.
extern "C" char __tsan_atomic8_load(const volatile char* p, int) {
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
