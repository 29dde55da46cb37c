// The host's side of csrc/kernels/cuda/device/launch.h: a launch runs the kernel to its end.
#pragma once
#include <cstring>

#include "../emulator.h"
#include "kernels/backend.h"

namespace fusegen::device {

struct Launch {
  int blocks;
  int cluster = 1;
  bool together = false;
  int shared_bytes = 0;
  void* stream;
};

template <class Arguments>
struct Bound {
  void (*kernel)(Arguments);
  const Arguments* arguments;
  static void call(const void* p) {
    const auto& b = *static_cast<const Bound*>(p);
    b.kernel(*b.arguments);
  }
};

template <class Arguments>
void launch(void (*kernel)(Arguments), const Launch& l, const Arguments& arguments) {
  const Bound<Arguments> bound{kernel, &arguments};
  simt::run(Bound<Arguments>::call, &bound, l.blocks, 256, l.cluster, l.together, l.shared_bytes);
}

template <class Arguments>
cuda::Code code_of(void (*)(Arguments)) {
  return {10 * simt::settings().major, simt::settings().code};
}

template <class Arguments>
bool resident(void (*kernel)(Arguments), const Launch& l) {
  const simt::Settings& s = simt::settings();
  if (l.cluster > 1 && (!s.clusters_fit || code_of(kernel).ptx < 90)) return false;
  const int sms = s.free_sms > 0 ? s.free_sms : s.sms;
  return (l.cluster > 1 ? l.cluster : l.blocks) <= sms && l.shared_bytes <= s.shared_bytes;
}

inline void zero(void* memory, size_t bytes, void*) { std::memset(memory, 0, bytes); }

struct DeviceGuard {
  explicit DeviceGuard(int) {}
};

}  // namespace fusegen::device
