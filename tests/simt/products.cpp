// Products of rows kept in registers (recurrent/resident.h) beside the same in double.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "emulator.h"
#include "kernels/cuda/recurrent/resident.h"

namespace fusegen::products {
namespace {

using namespace cuda;

struct Arguments {
  const float *rows, *columns;
  float* out;
  int chunks;
};

// A warp's kTiles tiles of 16 rows times 8*NT columns of `chunks` chunks, which lie in shared memory.
template <int kTiles, int kChunks, class Format, int NT>
void kernel(const void* arguments) {
  const auto& a = *static_cast<const Arguments*>(arguments);
  const int K = 16 * a.chunks, t = device::lane() % 4;
  auto* shared = reinterpret_cast<float*>(device::shared_memory());
  for (int i = device::thread(); i < 8 * NT * K; i += device::kThreads) shared[i] = a.columns[i];
  device::sync_block();
  if (device::warp() != 0) return;
  Resident<kTiles, kChunks, Format> resident;
  resident.load([&](int tile, int row, int chunk) {
    return chunk < a.chunks ? device::load16(a.rows + (tile * 16 + row) * K + chunk * 16 + 4 * t)
                            : Word4{0, 0, 0, 0};
  });
  float sums[kTiles][NT][4];
  resident.template product<NT>(sums, a.chunks, SharedColumns(0, 4 * K));
  for_each_sum<kTiles, NT>([&](int tile, int n, int v) {
    a.out[(tile * 16 + device::lane() / 4 + 8 * (v / 2)) * 8 * NT + n * 8 + 2 * t + v % 2] = sums[tile][n][v];
  });
}

template <int kTiles, int kChunks, class Format, int NT>
double error_of(int chunks, float special) {
  const int K = 16 * chunks, N = 8 * NT, M = 16 * kTiles;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> rows(M * K), columns(N * K), out(M * N);
  for (float& v : rows) v = normal(random);
  for (float& v : columns) v = normal(random);
  rows[3] = 0.5f;  // nothing is left of it beside TF32
  if (special != 0) columns[3] = special, columns[K + 5] = -special, columns[K + 9] = special;
  const Arguments a{rows.data(), columns.data(), out.data(), chunks};
  // 2 chunks more than there are may be read.
  simt::run(kernel<kTiles, kChunks, Format, NT>, &a, 1, device::kThreads, 1, true, 4 * N * K + 2 * kChunk);
  double worst = 0;
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) {
      double sum = 0, size = 0;
      for (int k = 0; k < K; ++k) {
        const double product = static_cast<double>(rows[m * K + k]) * columns[n * K + k];
        sum += product;
        size += std::abs(product);
      }
      const float got = out[m * N + n];
      const bool same = std::isnan(sum) ? std::isnan(got) : got == sum;
      if (!std::isfinite(sum) && !same) return std::numeric_limits<double>::infinity();
      if (std::isfinite(sum)) worst = std::max(worst, std::abs(got - sum) / size);
    }
  return worst;
}

}  // namespace

// The largest error as a part of the sum of the products' sizes; infinity where a sum that is not finite is
// another than IEEE's. `special` stands among the columns, both ways round.
double worst_error(const std::string& shape, bool tf32, int chunks, float special) {
  using device::FormatF32, device::FormatTf32;
  if (shape == "lstm")
    return (tf32 ? error_of<2, 8, FormatTf32, 1> : error_of<2, 8, FormatF32, 1>)(chunks, special);
  if (shape == "gru")
    return (tf32 ? error_of<3, 4, FormatTf32, 1> : error_of<3, 4, FormatF32, 1>)(chunks, special);
  if (shape == "rnn")
    return (tf32 ? error_of<1, 16, FormatTf32, 1> : error_of<1, 16, FormatF32, 1>)(chunks, special);
  return (tf32 ? error_of<4, 3, FormatTf32, 2> : error_of<4, 3, FormatF32, 2>)(chunks, special);
}

}  // namespace fusegen::products
