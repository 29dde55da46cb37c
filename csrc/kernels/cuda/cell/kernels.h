// One step of a cell. Forward: the products of W with x and R with h and the cell's maths on the sums, in one
// launch; or the maths alone on products that torch made. Backward: the maths alone, since the rest are plain
// products.
#pragma once
#include "../../cells.h"
#include "../access.h"
#include "../multiply.h"
#include "../operand.h"
#include "../sigmoid_tanh.h"

namespace fusegen::cuda {

// `a`: W x + R h of a unit in a row; LSTM i, f, g, o; GRU r, z, then x's part of n and h's.
template <int Gates, class T>
FUSEGEN_DEVICE void step_of_unit(const CellForwardPass& p, int b, int unit, const float (&a)[4]) {
  const int H = p.H;
  const int64_t i = static_cast<int64_t>(b) * H + unit, gate = static_cast<int64_t>(b) * 4 * H + unit;
  const auto b_ih = [&](int g) { return read_or_zero<T>(p.b_ih, g * H + unit); };
  const auto b_hh = [&](int g) { return read_or_zero<T>(p.b_hh, g * H + unit); };
  const auto save = [&](float s0, float s1, float s2, float s3) {
    write_if_wanted<T>(p.gates, gate, s0);
    write_if_wanted<T>(p.gates, gate + H, s1);
    write_if_wanted<T>(p.gates, gate + 2 * H, s2);
    write_if_wanted<T>(p.gates, gate + 3 * H, s3);
  };
  if constexpr (Gates == 4) {
    const auto sum = [&](int g) { return a[g] + (b_ih(g) + b_hh(g)); };
    const auto s = cells::lstm<Math>(sum(0), sum(1), sum(2), sum(3), read_or_zero<T>(p.c, i));
    save(s.i, s.f, s.g, s.o);
    if (p.cells) p.cells[i] = s.c;
    write_if_wanted<T>(p.c_out, i, s.c);
    write_if_wanted<T>(p.h_out, i, s.h);
  } else if constexpr (Gates == 3) {
    const auto sum = [&](int g) { return a[g] + (b_ih(g) + b_hh(g)); };
    const float q = a[3] + b_hh(2);
    const auto s = cells::gru<Math>(sum(0), sum(1), a[2] + b_ih(2), q, read_or_zero<T>(p.h, i));
    save(s.r, s.z, s.n, q);
    write_if_wanted<T>(p.h_out, i, s.h);
  } else {
    const float x = a[0] + (b_ih(0) + b_hh(0));
    write_if_wanted<T>(p.h_out, i, cells::rnn<Math>(p.cell == Cell::rnn_relu, x));
  }
}

struct CellArguments {
  CellForwardPass pass;
  Operand x, W, h, R;  // x and h: rows of the batch in place of units
};

// sums += the warp's rows of `weights` times rows of `rows`, chunks first .. last of both. `kTo` is where the
// last tile's sum goes: GRU's n.
template <int Gates, class T, class Format, int NT, int kTo>
FUSEGEN_DEVICE void multiply(float (&sums)[sums_of_cell(Gates)][NT][4], const Operand& weights,
                             const Operand& rows, int first_unit, int first_row, int first, int last) {
  using R = WarpRows<Gates>;
  const int g = device::lane() / 4, t = device::lane() % 4;
  constexpr int kNumbers = kChunk / static_cast<int>(sizeof(T));
#pragma unroll 2
  for (int chunk = first; chunk < last; ++chunk) {
    const int k = chunk * kNumbers + t * (kNumbers / 4);
    device::Word4 b[NT];
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const int row = first_row + 8 * n + g;
      b[n] = load_numbers<T>(rows, 0, row < rows.units ? row : -1, k);
    }
#pragma unroll
    for (int tile = 0; tile < R::kTiles; ++tile) {
      const auto row_of = [&](int r) {
        const int unit = first_unit + R::unit(tile, r);
        return unit < weights.units ? R::gate(tile, r) * weights.units + unit : -1;
      };
      const device::Word4 top = load_numbers<T>(weights, 0, row_of(g), k),
                          bottom = load_numbers<T>(weights, 0, row_of(g + 8), k);
#pragma unroll
      for (int n = 0; n < NT; ++n)
        add_product(Format{}, sums[tile == R::kTiles - 1 ? kTo : tile][n], top, bottom, b[n]);
    }
  }
}

template <int Gates, class T, class Format, int NT>
FUSEGEN_KERNEL void cell_kernel(FUSEGEN_ARGUMENT CellArguments a) {
  using R = WarpRows<Gates>;
  constexpr int kSums = sums_of_cell(Gates);
  const CellForwardPass& pass = a.pass;
  const int k_splits = pass.plan.k_splits, unit_groups = device::kWarps / k_splits;
  const int k_split = device::warp() / unit_groups, unit_group = device::warp() % unit_groups,
            lane = device::lane();
  const int first_unit = (device::block() % pass.plan.blocks * unit_groups + unit_group) * R::kUnits;
  const int first_row = device::block() / pass.plan.blocks * 8 * NT;

  float sums[kSums][NT][4];
  set_zero(sums);
  const auto share = [&](int chunks, int split) {
    return static_cast<int>(static_cast<int64_t>(chunks) * split / k_splits);
  };
  multiply<Gates, T, Format, NT, R::kTiles - 1>(sums, a.W, a.x, first_unit, first_row,
                                                share(a.W.chunks, k_split), share(a.W.chunks, k_split + 1));
  if (pass.h)
    multiply<Gates, T, Format, NT, kSums - 1>(sums, a.R, a.h, first_unit, first_row,
                                              share(a.R.chunks, k_split), share(a.R.chunks, k_split + 1));
  add_up(sums, k_split, unit_group, k_splits, reinterpret_cast<float*>(device::shared_memory()));
  if (k_split > 0) return;

#pragma unroll
  for (int n = 0; n < NT; ++n)
#pragma unroll
    for (int pair = 0; pair < R::kPairs; ++pair) {
      const int unit = first_unit + R::pair_unit(lane, pair),
                row = first_row + 8 * n + R::pair_row(lane, pair);
      if (unit >= pass.H || row >= pass.B) continue;
      float v[4] = {};
#pragma unroll
      for (int g = 0; g < (Gates == 3 ? 4 : Gates); ++g)
        v[g] = sums[R::sum_tile(g)][n][R::sum_place(g, pair)];
      step_of_unit<Gates, T>(pass, row, unit, v);
    }
}

template <int Gates, class T>
FUSEGEN_KERNEL void cell_step_kernel(FUSEGEN_ARGUMENT CellForwardPass p) {
  const int64_t i = static_cast<int64_t>(device::block()) * device::kThreads + device::thread();
  if (i >= static_cast<int64_t>(p.B) * p.H) return;
  const int b = static_cast<int>(i / p.H), unit = static_cast<int>(i % p.H);
  const int64_t at = static_cast<int64_t>(b) * Gates * p.H + unit;
  float v[4] = {};
#pragma unroll
  for (int g = 0; g < Gates; ++g) {
    v[g] = read_or_zero<T>(p.x_gates, at + g * p.H);
    (Gates == 3 && g == 2 ? v[3] : v[g]) += read_or_zero<T>(p.h_gates, at + g * p.H);
  }
  step_of_unit<Gates, T>(p, b, unit, v);
}

template <int Gates, class T>
FUSEGEN_KERNEL void cell_backward_kernel(FUSEGEN_ARGUMENT CellBackwardPass p) {
  const int64_t i = static_cast<int64_t>(device::block()) * device::kThreads + device::thread();
  if (i >= static_cast<int64_t>(p.B) * p.H) return;
  const int H = p.H;
  const int64_t b = i / H, unit = i % H, at = b * Gates * H + unit;
  const float dh = read_or_zero<T>(p.dh, i);
  const auto gate = [&](int g) { return read_or_zero<T>(p.gates, b * 4 * H + g * H + unit); };
  if constexpr (Gates == 4) {
    const auto d = cells::lstm_backward<Math>(gate(0), gate(1), gate(2), gate(3), read_or_zero<T>(p.c, i),
                                              p.cells[i], dh, read_or_zero<T>(p.dc, i));
    write_if_wanted<T>(p.dx_gates, at, d.i);
    write_if_wanted<T>(p.dx_gates, at + H, d.f);
    write_if_wanted<T>(p.dx_gates, at + 2 * H, d.g);
    write_if_wanted<T>(p.dx_gates, at + 3 * H, d.o);
    write_if_wanted<T>(p.dc_in, i, d.c_prev);
  } else if constexpr (Gates == 3) {
    const auto d = cells::gru_backward(gate(0), gate(1), gate(2), gate(3), read_or_zero<T>(p.h, i), dh);
    for (void* to : {p.dx_gates, p.dh_gates}) {
      write_if_wanted<T>(to, at, d.r);
      write_if_wanted<T>(to, at + H, d.z);
    }
    write_if_wanted<T>(p.dx_gates, at + 2 * H, d.n);
    write_if_wanted<T>(p.dh_gates, at + 2 * H, d.q);
    write_if_wanted<T>(p.dh_direct, i, d.h_prev);
  } else {
    const float h = read_or_zero<T>(p.h_out, i);
    write_if_wanted<T>(p.dx_gates, at, cells::rnn_backward(p.cell == Cell::rnn_relu, h, dh));
  }
}

}  // namespace fusegen::cuda
