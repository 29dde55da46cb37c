// One or all steps of a layer, backward: the same division of work as forward, with R transposed. A block
// owns some units; the part of dh_t that came through R is its rows of R' times all gates' gradients of step
// t+1, which the group's blocks hand each other in the dtype of the call. dc and the direct part of dh stay
// in float32.
//
// Steps count from the one that ran last: 0 has nothing to multiply yet, T only multiplies, which gives dh0.
#pragma once
#include "../cells.h"
#include "wire.h"

namespace fusegen::cuda {

using device::Math;

// What a pair reads at a step.
template <int Gates>
struct Saved {
  float dy = 0, gate[4] = {}, c = 0, c_prev = 0, h_prev = 0;
};

template <int Gates, class T, class Format, int NT>
FUSEGEN_KERNEL void backward_kernel(FUSEGEN_ARGUMENT BackwardArguments a) {
  using R = Rows<1>;
  constexpr int kPairs = R::kPairs, kRows = 8 * NT, kColumns = Gates == 1 ? 1 : 4;
  const BackwardPass& pass = a.pass;
  const Place& place = a.place;
  const Self me = self<1>(place, a.operand.chunks);
  unsigned char* shared = device::shared_memory();
  Wire<NT> wire(a.exchange, place, me, pass.error);

  Weights<1, T, Format> weights;
  if (place.resident) weights.load(a.operand, me, me.first_chunk, me.chunks);

  const int unit_groups = device::kWarps / place.k_splits, lanes = unit_groups * 32;
  const int lane = device::lane(), d = me.direction, H = pass.H;
  const int T_steps = static_cast<int>(pass.T);
  const bool reverse = d == 1, owner = me.k_split == 0;
  T* stage = reinterpret_cast<T*>(shared + place.shared.stage);
  float* state = reinterpret_cast<float*>(shared + place.shared.state) + me.unit_group * 32 + lane;
  int* lengths = reinterpret_cast<int*>(shared + place.shared.lengths);
  const auto kept = [&](int slice, int n, int pair, int which) -> float& {
    return state[((slice * NT * kPairs + n * kPairs + pair) * kCarried + which) * lanes];
  };
  const auto unit_of = [&](int pair) { return me.first_unit + R::pair_unit(lane, pair); };
  const auto row_of = [&](int n, int pair) { return n * 8 + R::pair_row(lane, pair); };
  const auto batch_of = [&](int slice, int row) { return (me.group * place.slices + slice) * kRows + row; };
  const auto state_index = [&](int b, int unit) { return (static_cast<int64_t>(d) * pass.B + b) * H + unit; };
  const auto read = [&](const void* p, int64_t i) { return device::widen(static_cast<const T*>(p)[i]); };
  const int64_t carry_size = static_cast<int64_t>(pass.D) * pass.B * H;
  enum { kDc, kDh };

  for (int i = device::thread(); i < place.slices * kRows; i += device::kThreads) {
    const int b = me.group * place.slices * kRows + i;
    int64_t length = b < pass.B ? (pass.lengths ? pass.lengths[b] : T_steps) : 0;
    if (length < 0 || length > T_steps) {
      length = -1;
      device::store_system(pass.error, kBadLength);
    }
    lengths[i] = static_cast<int>(length);
  }
  if (owner) {
#pragma unroll 1
    for (int slice = 0; slice < place.slices; ++slice)
      for (int n = 0; n < NT; ++n)
        for (int pair = 0; pair < kPairs; ++pair) {
          const int unit = unit_of(pair), b = batch_of(slice, row_of(n, pair));
          float dc = 0, dh = 0;
          if (unit < H && b < pass.B) {
            const int64_t i = state_index(b, unit);
            if (a.first > 0) {
              dc = a.carry[i];
              dh = a.carry[carry_size + i];
            } else {
              if (Gates == 4 && pass.dc_n) dc = read(pass.dc_n, i);
              if (pass.dh_n && !a.project) dh = read(pass.dh_n, i);
            }
          }
          kept(slice, n, pair, kDc) = dc;
          kept(slice, n, pair, kDh) = dh;
        }
  }
  wire.begin();

  const int own_units = unit_groups * R::kUnits, own_bytes = own_units * static_cast<int>(sizeof(T));
  const int segment_bytes = place.blocks * own_bytes;
  constexpr int kSegments = Gates;

  bool stopped = false;
  for (int step = a.first; step <= a.last && !stopped; ++step) {
    const bool only_dh0 = step == T_steps;
    const int t = reverse ? step : T_steps - 1 - step, before = reverse ? t + 1 : t - 1;
    for (int slice = 0; slice < place.slices; ++slice) {
      Saved<Gates> seen[NT][kPairs];
      if (owner && !only_dh0) {
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
          for (int pair = 0; pair < kPairs; ++pair) {
            const int unit = unit_of(pair), b = batch_of(slice, row_of(n, pair));
            const int length = lengths[slice * kRows + row_of(n, pair)];
            Saved<Gates>& s = seen[n][pair];
            if (unit >= H || b >= pass.B || t >= length) continue;
            const bool first = reverse ? t == length - 1 : t == 0;
            const int64_t at = ((static_cast<int64_t>(t) * pass.B + b) * pass.D + d) * H + unit;
            const int64_t saved = (static_cast<int64_t>(d) * T_steps + t) * pass.B + b;
            const int64_t saved_before = saved + static_cast<int64_t>(before - t) * pass.B;
            if (pass.dy && !a.project) s.dy = read(pass.dy, at);
            if constexpr (Gates > 1) {
#pragma unroll
              for (int gate = 0; gate < 4; ++gate)
                s.gate[gate] = read(pass.gates, saved * 4 * H + gate * H + unit);
            }
            if constexpr (Gates == 4) {
              s.c = pass.cells[saved * H + unit];
              s.c_prev = !first    ? pass.cells[saved_before * H + unit]
                         : pass.c0 ? read(pass.c0, state_index(b, unit))
                                   : 0.0f;
            }
            if constexpr (Gates == 3)
              s.h_prev =
                  !first ? read(pass.y, ((static_cast<int64_t>(before) * pass.B + b) * pass.D + d) * H + unit)
                  : pass.h0 ? read(pass.h0, state_index(b, unit))
                            : 0.0f;
            if constexpr (Gates == 1) s.gate[0] = pass.kind == Kind::identity ? 0.0f : read(pass.y, at);
          }
      }

      float sums[R::kTiles][NT][4];
      if (step > 0 || a.project) {
        const unsigned char* gathered = wire.wait(slice, step - 1);
        product_of_slice<1, T, Format, NT>(sums, weights, a.operand, place, me, gathered, wire.stride(),
                                           shared);
        stopped = wire.stopped();
        if (stopped) break;
      } else {
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[0][n][i] = 0;
        device::sync_block();  // as a product does: the stage is free
      }

      float out[NT][kPairs][kColumns];
      if (owner) {
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
          for (int pair = 0; pair < kPairs; ++pair) {
            const int length = lengths[slice * kRows + row_of(n, pair)];
            float dc = kept(slice, n, pair, kDc), dh = kept(slice, n, pair, kDh) + sums[0][n][pair];
            const Saved<Gates>& s = seen[n][pair];
            float (&g)[kColumns] = out[n][pair];
#pragma unroll
            for (int i = 0; i < kColumns; ++i) g[i] = 0;
            if (!only_dh0 && t < length) {
              dh += s.dy;
              if constexpr (Gates == 4) {
                const auto v = cells::lstm_backward<Math>(s.gate[0], s.gate[1], s.gate[2], s.gate[3],
                                                          s.c_prev, s.c, dh, dc);
                g[0] = v.i, g[1] = v.f, g[2] = v.g, g[3] = v.o;
                dc = v.c_prev;
                dh = 0;
              } else if constexpr (Gates == 3) {
                const auto v = cells::gru_backward(s.gate[0], s.gate[1], s.gate[2], s.gate[3], s.h_prev, dh);
                g[0] = v.n, g[1] = v.r, g[2] = v.z, g[3] = v.q;
                dh = v.h_prev;
              } else {
                g[0] = pass.kind == Kind::identity
                           ? dh
                           : cells::rnn_backward(pass.kind == Kind::rnn_relu, s.gate[0], dh);
                dh = 0;
              }
            }
            if (length < 0) {
              dc = dh = device::not_a_number();
#pragma unroll
              for (int i = 0; i < kColumns; ++i) g[i] = dh;
            }
            if (unit_of(pair) >= H || batch_of(slice, row_of(n, pair)) >= pass.B) {
#pragma unroll
              for (int i = 0; i < kColumns; ++i) g[i] = 0;
            }
            kept(slice, n, pair, kDc) = dc;
            kept(slice, n, pair, kDh) = dh;
            const int at = row_of(n, pair) * kSegments * own_units + me.unit_group * R::kUnits +
                           R::pair_unit(lane, pair);
#pragma unroll
            for (int segment = 0; segment < kSegments; ++segment)
              stage[at + segment * own_units] = device::narrow<T>(g[Gates == 3 ? segment + 1 : segment]);
          }
      }
      device::sync_block();
      if (only_dh0) continue;
      wire.publish(slice, step, kSegments, segment_bytes, own_bytes);

      if (owner) {
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
          for (int pair = 0; pair < kPairs; ++pair) {
            const int unit = unit_of(pair), b = batch_of(slice, row_of(n, pair));
            if (unit >= H || b >= pass.B) continue;
            T* to = static_cast<T*>(pass.dgates) +
                    ((static_cast<int64_t>(t) * pass.B + b) * pass.D + d) * kColumns * H + unit;
#pragma unroll
            for (int i = 0; i < kColumns; ++i)
              to[i * static_cast<int64_t>(H)] = device::narrow<T>(out[n][pair][i]);
          }
      }
    }
  }
  wire.end();

  if (!owner) return;
  const bool finished = a.last == (a.project ? T_steps - 1 : T_steps);
#pragma unroll 1
  for (int slice = 0; slice < place.slices; ++slice)
    for (int n = 0; n < NT; ++n)
      for (int pair = 0; pair < kPairs; ++pair) {
        const int unit = unit_of(pair), b = batch_of(slice, row_of(n, pair));
        if (unit >= H || b >= pass.B) continue;
        const int64_t i = state_index(b, unit);
        float dc = kept(slice, n, pair, kDc), dh = kept(slice, n, pair, kDh);
        if (stopped) {
          dc = dh = device::not_a_number();
          T* to = static_cast<T*>(pass.dgates) + (static_cast<int64_t>(b) * pass.D + d) * kColumns * H + unit;
          for (int t = 0; t < T_steps; ++t)
            for (int column = 0; column < kColumns; ++column)
              to[(static_cast<int64_t>(t) * pass.B * pass.D * kColumns + column) * H] = device::narrow<T>(dh);
        } else if (!finished) {
          a.carry[i] = dc;
          a.carry[carry_size + i] = dh;
          continue;
        }
        if (pass.dh0 && !a.project) static_cast<T*>(pass.dh0)[i] = device::narrow<T>(dh);
        if (Gates == 4 && pass.dc0) static_cast<T*>(pass.dc0)[i] = device::narrow<T>(dc);
      }
}

}  // namespace fusegen::cuda
