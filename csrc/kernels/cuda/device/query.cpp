// What CUDA tells of a device, asked once.
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <string>

#include <device/launch.h>

#include "../../backend.h"
#include "../cell/pass.h"

namespace fusegen::cuda {
namespace {

Device ask(int index) {
  int sms = 0, shared = 0, major = 0;
  device::check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, index), "device attribute");
  device::check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
                "device attribute");
  device::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "device attribute");
  if (major < 8)
    throw std::runtime_error("fusegen: expected a GPU of compute capability 8.0 or later, got " +
                             std::to_string(major) + ".x; set_backend('torch') runs torch's own kernels");
  return device_of(sms, shared, major, code(index).ptx);
}

}  // namespace

int device_type() { return 2; }

Code code(int index) {
  const device::DeviceGuard guard(index);
  return loaded_code();
}

Device device(int index) {
  static std::mutex lock;
  static std::map<int, Device> known;  // only of those asked for: another GPU of the machine may be too old
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = known.find(index);
  return found != known.end() ? found->second : known.emplace(index, ask(index)).first->second;
}

}  // namespace fusegen::cuda
