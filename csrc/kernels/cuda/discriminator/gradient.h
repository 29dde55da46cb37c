// The discriminator step backward, in one launch: all weight gradients as products over the samples, the
// gradients of biases and of the last layer as sums over them, and the gradients by the samples. A block does
// one of the three.
#pragma once
#include "gemm.h"
#include "layer.h"

namespace fusegen::cuda {

// s h + c t of a sample and a word of columns.
template <class T>
struct WeightedRows {
  struct Held {
    device::Word4 h, t;
    float s, c;
  };
  const GradientArguments& a;
  const WeightGradient& g;
  int limit;  // of h

  FUSEGEN_DEVICE Held read(int row, int n) const {
    Held held{{0, 0, 0, 0}, {0, 0, 0, 0}, 0.0f, 0.0f};
    if (row < a.split.plain) {
      held.s = a.s[row];
      held.h = g.h.data ? read_word(row_of<const T>(g.h, row), n, g.h.stride, true)
                        : read_word(row_of<T>(a.samples, row), n, limit, a.samples.aligned);
    }
    if (g.t.data && row < a.split.rows && among(a.split, a.tangents, row)) {
      held.c = a.c[row];
      held.t = read_word(row_of<const T>(g.t, row), n, g.t.stride, true);
    }
    return held;
  }
  FUSEGEN_DEVICE device::Word4 word(const Held& held) const {
    uint32_t parts[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t h = part(held.h, i), t = part(held.t, i);
      if constexpr (sizeof(T) == 4) {
        parts[i] = device::as_bits(held.s * device::as_float(h) + held.c * device::as_float(t));
      } else {
        const auto one = [&](int shift) {
          const T x{static_cast<uint16_t>(h >> shift)}, y{static_cast<uint16_t>(t >> shift)};
          return static_cast<uint32_t>(
              device::narrow<T>(held.s * device::widen(x) + held.c * device::widen(y)).bits);
        };
        parts[i] = one(0) | one(16) << 16;
      }
    }
    return {parts[0], parts[1], parts[2], parts[3]};
  }
};

template <class T, class Format, class Tile>
FUSEGEN_DEVICE void weight_gradient(const GradientArguments& a, int block, float factor) {
  int index = 0;
  while (index + 1 < a.products && block >= a.product[index + 1].first_block) ++index;
  const WeightGradient& g = a.product[index];
  const int blocks_m = (g.M + Tile::kM - 1) / Tile::kM, at = block - g.first_block;
  const int first_m = at % blocks_m * Tile::kM, first_n = at / blocks_m * Tile::kN;
  const Input u{{g.u.data, nullptr, nullptr}, {g.u.stride, 0, 0}, {g.u.first, INT_MAX, INT_MAX}, true};
  const Plain<T> U{u, {a.split.rows, 0, INT_MAX, 0}, a.split.rows, g.u.stride};
  NMajor<T, Tile::kM, Tile::kChunks, Plain<T>> left(U, first_m);
  NMajor<T, Tile::kN, Tile::kChunks, WeightedRows<T>> right(WeightedRows<T>{a, g, g.N}, first_n);
  Sums<Tile> sums;
  multiply<T, Format, Tile>(sums, left, right, a.split.rows);
  for_each_pair<Tile>(sums, first_m, first_n, [&](int m, int n, float x, float y) {
    if (m >= g.M) return;
    T* out = static_cast<T*>(g.out) + static_cast<int64_t>(m) * g.N + n;
    if (n < g.N) out[0] = device::narrow<T>(factor * x);
    if (n + 1 < g.N) out[1] = device::narrow<T>(factor * y);
  });
}

// A block sums 32 columns, each warp every eighth row.
template <class T>
FUSEGEN_DEVICE void column_sum(const GradientArguments& a, int block, float factor) {
  int index = 0;
  while (index + 1 < a.sums && block >= a.sum[index + 1].first_block) ++index;
  const ColumnSum& g = a.sum[index];
  const int n = (block - g.first_block) * 32 + device::lane();
  float sum = 0;
  if (n < g.n) {
    for (int row = device::warp(); row < a.split.rows; row += device::kWarps) {
      if (row < a.split.plain) {
        const float x =
            g.ones ? 1.0f
                   : device::widen((g.x.data ? row_of<const T>(g.x, row) : row_of<T>(a.samples, row))[n]);
        sum += a.s[row] * x;
      }
      if (g.t.data && among(a.split, a.tangents, row))
        sum += a.c[row] * device::widen(row_of<const T>(g.t, row)[n]);
    }
  }
  float* partial = reinterpret_cast<float*>(device::shared_memory());
  partial[device::thread()] = sum;
  device::sync_block();
  if (device::warp() > 0 || n >= g.n) return;
  for (int warp = 1; warp < device::kWarps; ++warp) sum += partial[warp * 32 + device::lane()];
  static_cast<T*>(g.out)[n] = device::narrow<T>(factor * sum);
}

// scale s v, a warp a row. The penalties have no gradient by the input: it is piecewise constant there.
template <class T>
FUSEGEN_DEVICE void input_gradient(const GradientArguments& a, int block, float factor) {
  const int row = block * device::kWarps + device::warp();
  if (row >= a.split.plain) return;
  const bool real = row < a.split.real;
  T* out = static_cast<T*>(real ? a.dx[0] : a.dx[1]);
  if (!out) return;
  out += static_cast<int64_t>(real ? row : row - a.split.real) * a.inputs;
  const T* v = row_of<const T>(a.v, row);
  const float s = factor * a.s[row];
  for (int n = device::lane(); n < a.inputs; n += 32) out[n] = device::narrow<T>(s * device::widen(v[n]));
}

template <class T, class Format, class Tile>
FUSEGEN_KERNEL void gradient_kernel(FUSEGEN_ARGUMENT GradientArguments a) {
  const float factor = *a.scale * *a.unit;
  const int block = device::block();
  if (block < a.tile_blocks) {
    weight_gradient<T, Format, Tile>(a, block, factor);
  } else if (block < a.tile_blocks + a.sum_blocks) {
    column_sum<T>(a, block - a.tile_blocks, factor);
  } else {
    input_gradient<T>(a, block - a.tile_blocks - a.sum_blocks, factor);
  }
}

}  // namespace fusegen::cuda
