// The practical peak: the larger of a multiply-add loop that stays in registers and this library's own packed
// product.
#include <omp.h>

#include <algorithm>
#include <chrono>

#include "kernels/cpu/arena.h"
#include "kernels/cpu/plan.h"
#include "product.h"

namespace fusegen::FUSEGEN_ISA_NS {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

FUSEGEN_INLINE void keep_in_register(Vector<float>& v) {
#if defined(__AVX512F__)
  __asm__ volatile("" : "+v"(v));
#elif defined(__x86_64__)
  __asm__ volatile("" : "+x"(v));
#else
  __asm__ volatile("" : "+w"(v));
#endif
}

// Twelve independent sums cover the latency of two multiply-add ports on every set.
double register_loop(int64_t rounds) {
  constexpr int kSums = 12;
  Vector<float> sum[kSums] = {};
  Vector<float> a = splat(0.9999f), b = splat(1e-3f);
  for (int64_t n = 0; n < rounds; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sum[i] = sum[i] * a + b;
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) keep_in_register(sum[i]);
  }
  return 2.0 * kSums * kLanes<float> * static_cast<double>(rounds);
}

}  // namespace

double peak_gflops(int threads) {
  cpu::blocks();  // throws where FUSEGEN_CACHES is wrong, which it must not do first among threads
  constexpr int kRows = 96;
  constexpr int64_t K = 512, N = 2048;
  const PanelShape shape{N, 1};
  const int64_t panels = shape.count<float>();
  float *a, *w, *out;
  cpu::Arena arena([&](cpu::Arena& arena) {
    a = arena.take<float>(kRows * (K + 16));
    w = arena.take<float>(shape.size<float>(K));
    out = arena.take<float>(kRows * (N + 16));
  });
  for (int64_t i = 0; i < kRows * (K + 16); ++i) a[i] = 0.01f * static_cast<float>(i % 97 - 48);
  for (int64_t i = 0; i < shape.size<float>(K); ++i) w[i] = 0.01f * static_cast<float>(i % 89 - 44);
  double best = 0;
  for (int repeat = 0; repeat < 12; ++repeat) {
    double flops = 0;
    auto start = Clock::now();
#pragma omp parallel num_threads(threads) reduction(+ : flops)
    flops += register_loop(1000000);
    best = std::max(best, flops / seconds_since(start) / 1e9);

    start = Clock::now();
#pragma omp parallel num_threads(threads)
    {
      const float* rows[kRows];
      for (int i = 0; i < kRows; ++i) rows[i] = a + i * (K + 16);
      const Range mine = share(panels, omp_get_thread_num(), omp_get_num_threads());
      for (int again = 0; again < 4; ++again)
        multiply_rows<float, kTileVectors>(
            ProductRows<float>(rows, kRows, K), PackedPanels<float, kTileVectors>{w, K}, Sweep{mine},
            Nothing<float>{}, each_row([&](int row, int64_t p, const auto& sums) {
              store_row<float>(N, p, sums, false, out + row * (N + 16));
            }));
    }
    best = std::max(best, 4 * 2.0 * kRows * K * N / seconds_since(start) / 1e9);
  }
  return best;
}

}  // namespace fusegen::FUSEGEN_ISA_NS
