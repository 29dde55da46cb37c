// What a GPU's parts do by themselves, as far as the recurrent kernels depend on them. Prints a line for each
// reading: name,configuration,value,unit. benchmarks/gpu/micro.py builds it (wgmma.h is written there), runs
// it and keeps the rows.
//
// Every figure is of a kernel of many turns between two events, so that the launch is small beside it; the
// median of seven runs.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <device/exchange.h>

#include "multiply.h"

#if !defined(__CUDA_ARCH__) || (__CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1000)
#include "wgmma.h"
#endif

using namespace fusegen::device;

#define CHECK(call)                                                               \
  do {                                                                            \
    const cudaError_t status = (call);                                            \
    if (status != cudaSuccess) {                                                  \
      std::fprintf(stderr, "micro: %s: %s\n", #call, cudaGetErrorString(status)); \
      std::exit(1);                                                               \
    }                                                                             \
  } while (0)

// -- Inside a cluster

// Rank 0 and the last rank send each other 16 bytes in turn.
__global__ void __launch_bounds__(256, 1) ping_pong(int cluster, int turns) {
  __shared__ __align__(16) unsigned char slot[16];
  __shared__ ByteBarrier barrier;
  const int rank = static_cast<int>(blockIdx.x) % cluster, last = cluster - 1;
  if (thread() == 0) {
    start(&barrier);
    arm(&barrier, 16);
  }
  cluster_sync();
  if (thread() == 0 && (rank == 0 || rank == last)) {
    const int peer = rank == 0 ? last : 0;
    for (int turn = 0; turn < turns; ++turn) {
      if (rank == 0) send16(slot, &barrier, peer, {1, 2, 3, 4});
      while (!phase_over(&barrier, turn & 1)) {}
      arm(&barrier, 16);
      if (rank == last) send16(slot, &barrier, peer, {1, 2, 3, 4});
    }
  }
  cluster_sync();
}

// Every block sends `bytes` to every block of its cluster, itself included, and waits for all of them: a
// step's exchange. Two buffers in turn, as the recurrent kernels have.
__global__ void __launch_bounds__(256, 1) all_to_all(int cluster, int turns, int bytes) {
  extern __shared__ __align__(128) unsigned char memory[];
  __shared__ ByteBarrier barrier[2];
  const int rank = static_cast<int>(blockIdx.x) % cluster;
  if (thread() == 0)
    for (auto& b : barrier) {
      start(&b);
      arm(&b, cluster * bytes);
    }
  cluster_sync();
  const int words = bytes / 16;
  for (int turn = 0; turn < turns; ++turn) {
    unsigned char* buffer = memory + (turn & 1) * cluster * bytes + rank * bytes;
    for (int i = thread(); i < words * cluster; i += kThreads)
      send16(buffer + 16 * (i % words), &barrier[turn & 1], i / words, {1, 2, 3, 4});
    while (!phase_over(&barrier[turn & 1], (turn >> 1) & 1)) {}
    __syncthreads();
    if (thread() == 0) arm(&barrier[turn & 1], cluster * bytes);
  }
  cluster_sync();
}

__global__ void __launch_bounds__(256, 1) cluster_barriers(int turns) {
  for (int turn = 0; turn < turns; ++turn) cluster_sync();
}

// -- Through L2

// Each block raises its flag, then one warp waits for those of all: a step's hand-over without its data.
__global__ void __launch_bounds__(256, 1) flags_through_l2(uint32_t* flags, int turns) {
  const int blocks = static_cast<int>(gridDim.x);
  for (uint32_t turn = 1; turn <= static_cast<uint32_t>(turns); ++turn) {
    __syncthreads();
    if (thread() == 0) store_release(flags + blockIdx.x, turn);
    if (warp() == 0)
      for (int other = lane(); other < blocks; other += 32)
        while (load_acquire(flags + other) < turn) {}
    __syncthreads();
  }
}

// -- Products

// A warp's 16 x k by k x N, A kept, as the recurrent kernels multiply: N/8 tiles of 64 bytes of k a turn.
template <class Format, int N>
__global__ void __launch_bounds__(256, 1) warp_products(const uint32_t* in, float* out, int turns) {
  Word4 top, bottom, b;
  for (Word4* w : {&top, &bottom, &b}) {
    const int at = 4 * thread();
    *w = {in[at], in[at + 1], in[at + 2], in[at + 3]};
  }
  float sums[N / 8][4] = {};
  for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
    for (int n = 0; n < N / 8; ++n) fusegen::cuda::add_product(Format{}, sums[n], top, bottom, b);
  }
  float all = 0;
  for (auto& s : sums)
    for (float v : s) all += v;
  out[static_cast<int64_t>(block()) * kThreads + thread()] = all;
}

// Two warpgroups' 64 x 16 by 16 x N in bfloat16, A in registers, B in shared memory.
template <int N>
__global__ void __launch_bounds__(256, 1) warpgroup_products(const uint32_t* in, float* out, int turns) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1000
  __shared__ __align__(1024) uint32_t b[N * 16 / 2];
  for (int i = thread(); i < N * 16 / 2; i += kThreads) b[i] = in[i % 1024];
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  const uint32_t a[4] = {in[thread()], in[thread() + 1], in[thread() + 2], in[thread() + 3]};
  // Rows of 8 times 16 bytes, 128 bytes apart along k and 256 along N, no swizzle.
  const auto address = static_cast<uint64_t>(__cvta_generic_to_shared(b));
  const uint64_t description = (address & 0x3ffff) >> 4 | uint64_t{128 >> 4} << 16 | uint64_t{256 >> 4} << 32;
  float d[N / 2] = {};
  for (int turn = 0; turn < turns; ++turn) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int i = 0; i < 8; ++i) Wgmma<N>::run(d, a, description);
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  float all = 0;
  for (float v : d) all += v;
  out[static_cast<int64_t>(block()) * kThreads + thread()] = all;
#endif
}

// -- Driver

template <class Launch>
double milliseconds(const Launch& launch) {
  cudaEvent_t from, to;
  CHECK(cudaEventCreate(&from));
  CHECK(cudaEventCreate(&to));
  launch();
  std::vector<float> seen(7);
  for (float& ms : seen) {
    CHECK(cudaEventRecord(from));
    launch();
    CHECK(cudaEventRecord(to));
    CHECK(cudaEventSynchronize(to));
    CHECK(cudaEventElapsedTime(&ms, from, to));
  }
  std::sort(seen.begin(), seen.end());
  return seen[3];
}

cudaLaunchConfig_t config_of(int blocks, int cluster, int shared, cudaLaunchAttribute* attribute) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared;
  attribute->id = cudaLaunchAttributeClusterDimension;
  attribute->val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  config.attrs = attribute;
  config.numAttrs = 1;
  return config;
}

template <class Kernel>
void allow(Kernel kernel, int shared) {
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  if (shared > 48 * 1024)
    CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
}

void line(const char* name, const char* configuration, double value, const char* unit) {
  std::printf("%s,%s,%.6g,%s\n", name, configuration, value, unit);
  std::fflush(stdout);
}

void clusters(const cudaDeviceProp& device, int clock_khz) {
  char text[64];
  // static shared memory lies beside it
  const int full = static_cast<int>(device.sharedMemPerBlockOptin) - 4096;
  for (int size : {1, 2, 4, 8, 16}) {
    cudaLaunchAttribute attribute;
    allow(all_to_all, full);
    auto config = config_of(size, size, full, &attribute);
    int resident = 0;
    if (cudaOccupancyMaxActiveClusters(&resident, all_to_all, &config) != cudaSuccess || resident == 0) {
      cudaGetLastError();
      continue;
    }
    std::snprintf(text, sizeof text, "cluster %d", size);
    line("clusters resident at once", text, resident, "clusters");

    allow(cluster_barriers, 0);
    const int turns = 20000;
    auto one = config_of(size, size, 0, &attribute);
    line("cluster barrier", text,
         milliseconds([&] { CHECK(cudaLaunchKernelEx(&one, cluster_barriers, turns)); }) * 1e6 / turns, "ns");
    if (size > 1) {
      allow(ping_pong, 0);
      const double ms = milliseconds([&] { CHECK(cudaLaunchKernelEx(&one, ping_pong, size, turns)); });
      line("st.async one way", text, ms * 1e6 / (2.0 * turns), "ns");
    }
    for (int bytes : {512, 2048, 4096}) {
      if (2 * size * bytes > full) continue;
      for (int count : {1, resident}) {
        auto many = config_of(size * count, size, full, &attribute);
        const double ms =
            milliseconds([&] { CHECK(cudaLaunchKernelEx(&many, all_to_all, size, turns, bytes)); });
        std::snprintf(text, sizeof text, "cluster %d x %d; %d bytes a block", size, count, bytes);
        line("st.async exchange", text, ms * 1e6 / turns, "ns");
        // at the clock that the device may boost to, so at least this
        line("st.async received", text, static_cast<double>(size) * bytes * turns / (ms * clock_khz),
             "bytes/clock/SM");
      }
    }
  }
}

void l2(const cudaDeviceProp& device) {
  uint32_t* flags = nullptr;
  CHECK(cudaMalloc(&flags, 4096));
  for (int blocks : {2, 16, 64, 128}) {
    if (blocks > device.multiProcessorCount) continue;
    int turns = 20000;
    void* arguments[] = {&flags, &turns};
    const double ms = milliseconds([&] {
      CHECK(cudaMemsetAsync(flags, 0, 4096));
      CHECK(cudaLaunchCooperativeKernel(reinterpret_cast<void*>(flags_through_l2), blocks, kThreads,
                                        arguments, 0, nullptr));
    });
    char text[64];
    std::snprintf(text, sizeof text, "%d blocks", blocks);
    line("flags through L2", text, ms * 1e6 / turns, "ns");
  }
  CHECK(cudaFree(flags));
}

struct Products {
  const cudaDeviceProp& device;
  uint32_t* in;
  float* out;

  template <class Format, int N>
  void warps(const char* name, int k) const {
    const int turns = 4'000'000 / N, blocks = device.multiProcessorCount;
    const double ms = milliseconds([&] { warp_products<Format, N><<<blocks, kThreads>>>(in, out, turns); });
    CHECK(cudaGetLastError());
    report(name, N, 2.0 * 16 * N * k * turns * kWarps * blocks, ms);
  }
  template <int N>
  void warpgroups() const {
    const int turns = 1'000'000 / N, blocks = device.multiProcessorCount;
    const double ms = milliseconds([&] { warpgroup_products<N><<<blocks, kThreads>>>(in, out, turns); });
    CHECK(cudaGetLastError());
    report("wgmma bfloat16", N, 2.0 * 64 * N * 16 * 8 * turns * (kWarps / 4) * blocks, ms);
  }
  static void report(const char* name, int n, double flops, double ms) {
    char text[32];
    std::snprintf(text, sizeof text, "N %d", n);
    line(name, text, flops / ms * 1e-9, "TFLOP/s");
  }
  template <int N>
  void all() const {
    warps<FormatBf16, N>("mma.sync bfloat16", 32);
    warps<FormatTf32, N>("mma.sync TF32, rounding included", 16);
    warps<FormatF32, N>("mma.sync float32 as 3 TF32", 16);
    if (device.major == 9) warpgroups<N>();
  }
};

int main() {
  cudaDeviceProp device;
  CHECK(cudaGetDeviceProperties(&device, 0));
  int clock_khz = 0;
  CHECK(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, 0));
  line("clock", "the most", clock_khz * 1e-6, "GHz");
  if (device.major >= 9) clusters(device, clock_khz);
  l2(device);

  std::vector<uint32_t> random(4096);
  std::srand(1);
  // bit patterns of numbers between 0.5 and 1 in every format: the exponent is that of 16-bit halves too
  for (auto& word : random) word = 0x3f003f00u | (static_cast<uint32_t>(std::rand()) & 0x007f007fu);
  Products products{device, nullptr, nullptr};
  CHECK(cudaMalloc(&products.in, random.size() * 4));
  CHECK(cudaMalloc(&products.out, sizeof(float) * kThreads * device.multiProcessorCount));
  CHECK(cudaMemcpy(products.in, random.data(), random.size() * 4, cudaMemcpyHostToDevice));
  products.all<8>();
  products.all<16>();
  products.all<32>();
  products.all<64>();
  products.all<128>();
  products.all<256>();
  CHECK(cudaDeviceSynchronize());
  return 0;
}
