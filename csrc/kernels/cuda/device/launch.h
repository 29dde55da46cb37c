// Starting kernels, from the host. Nothing here allocates device memory or waits for the device, so a CUDA
// graph can capture it.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

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

template <class Arguments>
void configure(cudaLaunchConfig_t& config, cudaLaunchAttribute (&attributes)[2], void (*kernel)(Arguments),
               const Launch& l) {
  if (l.shared_bytes > 48 * 1024) {
    // All that the device has, not what this launch needs: another thread may be about to launch with more.
    int device = 0, most = 0;
    check(cudaGetDevice(&device), "current device");
    check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "device attribute");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
          "shared memory of a kernel");
  }
  config = {};
  config.gridDim = dim3(l.blocks);
  config.blockDim = dim3(256);
  config.dynamicSmemBytes = l.shared_bytes;
  config.stream = static_cast<cudaStream_t>(l.stream);
  config.attrs = attributes;
  if (l.cluster > 1) {
    if (l.cluster > 8)
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), "cluster of 16");
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
  cudaLaunchConfig_t config;
  cudaLaunchAttribute attributes[2];
  configure(config, attributes, kernel, l);
  int device = 0, sms = 0, each = 0;
  if (l.cluster > 1) {
    const bool known = cudaOccupancyMaxActiveClusters(&each, kernel, &config) == cudaSuccess;
    cudaGetLastError();
    return known && each >= 1;
  }
  check(cudaGetDevice(&device), "current device");
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device), "device attribute");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, 256, l.shared_bytes), "occupancy");
  return each * sms >= l.blocks;
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
