// Starting kernels, from the host. Nothing here allocates device memory or waits for the device, so a CUDA
// graph can capture it.
#pragma once
#include <cuda_runtime.h>

#include <compare>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "../../backend.h"

namespace fusegen::device {

struct Launch {
  int blocks;
  int cluster = 1;        // blocks of a cluster; 1: none
  bool together = false;  // all blocks must be resident at once, because they wait for each other
  int shared_bytes = 0;
  void* stream;
};

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // not left for torch to find
  throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

// Of a kernel on the current device, asked of the driver (or told to it) once: each `Ask` has its own memory
// of the answers.
struct Asked {
  const void* kernel;
  int device, cluster, shared_bytes;  // cluster 0: of the kernel alone
  auto operator<=>(const Asked&) const = default;
};
template <class Answer, class Ask>
Answer once(Asked asked, const Ask& ask) {
  static std::mutex lock;
  static std::map<Asked, Answer> known;  // as many as there are kernels and sizes of their shared memory
  check(cudaGetDevice(&asked.device), "current device");
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = known.find(asked);
  return found != known.end() ? found->second : known.emplace(asked, ask()).first->second;
}

// What is loaded of a kernel: it was compiled for `ptx`, and runs as machine code of `binary`.
template <class Arguments>
cuda::Code code_of(void (*kernel)(Arguments)) {
  return once<cuda::Code>({reinterpret_cast<const void*>(kernel), 0, 0, 0}, [&] {
    cudaFuncAttributes a{};
    check(cudaFuncGetAttributes(&a, kernel), "attributes of a kernel");
    return cuda::Code{a.binaryVersion, a.ptxVersion};
  });
}

template <class Arguments>
void configure(cudaLaunchConfig_t& config, cudaLaunchAttribute (&attributes)[2], void (*kernel)(Arguments),
               const Launch& l) {
  const Asked asked{reinterpret_cast<const void*>(kernel), 0, 0, 0};
  if (l.shared_bytes > 48 * 1024)
    once<bool>(asked, [&] {
      // All that the device has, not what this launch needs: the next may need more.
      int device = 0, most = 0;
      check(cudaGetDevice(&device), "current device");
      check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
            "device attribute");
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
            "shared memory of a kernel");
      return true;
    });
  config = {};
  config.gridDim = dim3(l.blocks);
  config.blockDim = dim3(256);
  config.dynamicSmemBytes = l.shared_bytes;
  config.stream = static_cast<cudaStream_t>(l.stream);
  config.attrs = attributes;
  if (l.cluster > 1) {
    if (l.cluster > 8)
      once<bool>(asked, [&] {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
              "cluster of 16");
        return true;
      });
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {static_cast<unsigned>(l.cluster), 1, 1};
  } else if (l.together) {
    attributes[config.numAttrs].id = cudaLaunchAttributeCooperative;
    attributes[config.numAttrs++].val.cooperative = 1;
  }
}

template <class Arguments>
void launch(void (*kernel)(Arguments), const Launch& l, const Arguments& arguments) {
  cudaLaunchConfig_t config;
  cudaLaunchAttribute attributes[2];
  configure(config, attributes, kernel, l);
  check(cudaLaunchKernelEx(&config, kernel, arguments), "launch of a kernel");
}

// Whether the device can hold at once the blocks that wait for each other: all of a cooperative launch, or
// those of one cluster, since clusters do not wait for others. Asked of the driver, so it knows of MIG and of
// other processes' partitions.
template <class Arguments>
bool resident(void (*kernel)(Arguments), const Launch& l) {
  if (l.cluster > 1 && code_of(kernel).ptx < 90) return false;
  const auto at_once = [&] {
    cudaLaunchConfig_t config;
    cudaLaunchAttribute attributes[2];
    configure(config, attributes, kernel, l);
    int device = 0, sms = 0, each = 0;
    if (l.cluster > 1) {
      const bool known = cudaOccupancyMaxActiveClusters(&each, kernel, &config) == cudaSuccess;
      cudaGetLastError();
      return known ? each * l.cluster : 0;
    }
    check(cudaGetDevice(&device), "current device");
    check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device), "device attribute");
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, 256, l.shared_bytes), "occupancy");
    return each * sms;
  };
  const int blocks =
      once<int>({reinterpret_cast<const void*>(kernel), 0, l.cluster, l.shared_bytes}, at_once);
  return blocks >= (l.cluster > 1 ? l.cluster : l.blocks);
}

inline void zero(void* memory, size_t bytes, void* stream) {
  check(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream)), "clearing workspace");
}

// Makes `device` current for the calls of a scope.
class DeviceGuard {
public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_), "current device");
    changed_ = before_ != device;
    if (changed_) check(cudaSetDevice(device), "choice of a device");
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace fusegen::device
