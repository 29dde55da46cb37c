// Where a lane is, and how it waits for its block. The host emulator has a header of this name in
// tests/simt/device.
#pragma once
#include <cstdint>

#define FUSEGEN_DEVICE __device__ __forceinline__
#define FUSEGEN_KERNEL __global__ __launch_bounds__(256, 1)
#define FUSEGEN_ARGUMENT const __grid_constant__

namespace fusegen::device {

constexpr int kThreads = 256;  // of every block
constexpr int kWarps = kThreads / 32;

FUSEGEN_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
FUSEGEN_DEVICE int lane() { return static_cast<int>(threadIdx.x) & 31; }
FUSEGEN_DEVICE int warp() { return static_cast<int>(threadIdx.x) >> 5; }
FUSEGEN_DEVICE int block() { return static_cast<int>(blockIdx.x); }

FUSEGEN_DEVICE void sync_block() { __syncthreads(); }

// The block's dynamic shared memory, 1024-byte aligned: what swapped rows of 128 bytes are laid by.
FUSEGEN_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return memory;
}

FUSEGEN_DEVICE uint64_t nanoseconds() {
  uint64_t t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  return t;
}

// A breath between two looks at a flag.
FUSEGEN_DEVICE void relax() {}

}  // namespace fusegen::device
