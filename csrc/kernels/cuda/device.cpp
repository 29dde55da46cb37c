// What CUDA tells of a device, asked once.
#include <cuda_runtime.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include <device/launch.h>

#include "../backend.h"

namespace fusegen::cuda {
namespace {

Device ask(int index) {
  int sms = 0, shared = 0, major = 0;
  device::check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, index), "device attribute");
  device::check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index), "device attribute");
  device::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "device attribute");
  if (major < 8)
    throw std::runtime_error("fusegen: expected a GPU of compute capability 8.0 or later, got " + std::to_string(major) +
                             ".x; set_backend('torch') runs torch's own kernels");
  return {sms, shared, major, major < 9 ? 1 : major < 12 ? 16 : 8};
}

}  // namespace

int device_type() { return 2; }

Device device(int index) {
  static std::mutex lock;
  static std::vector<Device> known;
  const std::lock_guard<std::mutex> guard(lock);
  while (static_cast<int>(known.size()) <= index) known.push_back(ask(static_cast<int>(known.size())));
  return known[index];
}

}  // namespace fusegen::cuda
