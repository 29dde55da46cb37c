// The host's side of csrc/kernels/cuda/device/thread.h.
#pragma once
#include <cstdint>

#include "../emulator.h"

#define FUSEGEN_DEVICE inline
#define FUSEGEN_KERNEL
#define FUSEGEN_ARGUMENT const

namespace fusegen::device {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

inline int thread() { return simt::thread(); }
inline int lane() { return simt::thread() & 31; }
inline int warp() { return simt::thread() >> 5; }
inline int block() { return simt::block(); }
inline void sync_block() { simt::sync_block(); }
inline unsigned char* shared_memory() { return simt::shared_memory(); }
inline uint64_t nanoseconds() { return simt::nanoseconds(); }
inline void relax() { simt::relax(); }

}  // namespace fusegen::device
