#include "tensor_core.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "emulator.h"

namespace simt {
namespace {

constexpr int kColumns = 8;  // worked on side by side
constexpr int kMostK = 64;
// Exponents of what has none: 0 lies below all, infinity and NaN above all, even beside a 0.
constexpr int kZero = -4096, kInfinite = 12288;

using Exponents = int16_t __attribute__((vector_size(2 * kColumns)));
using Floats = float __attribute__((vector_size(4 * kColumns)));
using Integers = int32_t __attribute__((vector_size(4 * kColumns)));

int16_t exponent(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const int biased = static_cast<int>(bits >> 23) & 255;
  if (biased == 255) return kInfinite;
  if (biased) return static_cast<int16_t>(biased - 127);
  return bits << 1 ? static_cast<int16_t>(std::ilogb(x)) : kZero;
}

// To 24 digits, toward zero.
double cut(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  bits &= ~((uint64_t{1} << 29) - 1);
  std::memcpy(&x, &bits, 8);
  return x;
}

// A block for one sum, with any exponents.
float add_block(float c, const float* a, const float* b, int block, int kept) {
  int largest = exponent(c);
  double sum = 0;
  for (int k = 0; k < block; ++k) {
    largest = std::max(largest, exponent(a[k]) + exponent(b[k * kColumns]));
    sum += static_cast<double>(a[k]) * b[k * kColumns];
  }
  if (!std::isfinite(sum + c)) return static_cast<float>(sum + c);
  if (largest <= kZero / 2) return c;
  const int grid = largest - 23 - kept;
  const auto on_grid = [&](double x) { return std::trunc(std::ldexp(x, -grid)); };
  sum = on_grid(c);
  for (int k = 0; k < block; ++k) sum += on_grid(static_cast<double>(a[k]) * b[k * kColumns]);
  return static_cast<float>(std::ldexp(cut(sum), grid));
}

// The same for kColumns sums side by side where float32 has room for all of it: products of at most 22 digits
// are exact, those below its range lie below the cut. `b`: [k][kColumns].
template <int block>
void add_block(float* d, const float* a, const int16_t* a_exponents, const float* b,
               const Exponents* b_exponents, int kept) {
  Exponents largest;
  Floats c;
  std::memcpy(&c, d, sizeof c);
  for (int n = 0; n < kColumns; ++n) largest[n] = exponent(d[n]);
#pragma GCC unroll 16
  for (int k = 0; k < block; ++k) {
    const Exponents e = b_exponents[k] + a_exponents[k];
    largest = largest > e ? largest : e;
  }
  largest &= largest > int16_t{kZero / 2};  // nothing but zeros: any grid will do
  bool narrow = true;
  for (int n = 0; n < kColumns; ++n) narrow = narrow && largest[n] > -90 && largest[n] < 120;
  if (!narrow) {
    for (int n = 0; n < kColumns; ++n) d[n] = add_block(d[n], a, b + n, block, kept);
    return;
  }
  const Integers grid = __builtin_convertvector(largest, Integers) - (23 + kept);
  const Integers scale_bits = (127 - grid) << 23;
  Floats scale;
  std::memcpy(&scale, &scale_bits, sizeof scale);
  Integers first = __builtin_convertvector(c * scale, Integers), second{};  // of at most 9 numbers below 2^27
#pragma GCC unroll 16
  for (int k = 0; k < block; ++k) {
    Floats column;
    std::memcpy(&column, b + k * kColumns, sizeof column);
    (k < 8 ? first : second) += __builtin_convertvector(column * a[k] * scale, Integers);
  }
  for (int n = 0; n < kColumns; ++n) {
    const uint64_t unit_bits = static_cast<uint64_t>(1023 + grid[n]) << 52;
    double unit;
    std::memcpy(&unit, &unit_bits, 8);
    d[n] = static_cast<float>(cut(static_cast<double>(first[n]) + second[n]) * unit);
  }
}

template <int block>
void multiply_add_in_blocks(float* d, const float* a, const float* b, int M, int N, int K, int kept) {
  for (int n0 = 0; n0 < N; n0 += kColumns) {
    float columns[kMostK * kColumns];
    Exponents column_exponents[kMostK];
    for (int k = 0; k < K; ++k)
      for (int n = 0; n < kColumns; ++n) {
        const float x = columns[k * kColumns + n] = b[(n0 + n) * K + k];
        column_exponents[k][n] = exponent(x);
      }
    for (int m = 0; m < M; ++m) {
      int16_t exponents[kMostK];
      for (int k = 0; k < K; ++k) exponents[k] = exponent(a[m * K + k]);
      for (int k = 0; k < K; k += block)
        add_block<block>(d + m * N + n0, a + m * K + k, exponents + k, columns + k * kColumns,
                         column_exponents + k, kept);
    }
  }
}

}  // namespace

void multiply_add(float* d, const float* a, const float* b, int M, int N, int K, Numbers numbers) {
  const bool tf32 = numbers == Numbers::tf32;
  if (K > kMostK || K % (tf32 ? 8 : 16) || N % kColumns)
    throw std::logic_error("multiply_add: no such instruction");
  if (settings().major >= 9)
    return (tf32 ? multiply_add_in_blocks<8> : multiply_add_in_blocks<16>)(d, a, b, M, N, K, 2);
  (tf32 ? multiply_add_in_blocks<4> : multiply_add_in_blocks<8>)(d, a, b, M, N, K, 1);
}

}  // namespace simt
