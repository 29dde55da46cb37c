// One or all steps of a layer, forward. A block owns some units for all rows of its group: it has their rows
// of R (and c, and h) and needs all of h_{t-1}, which the group's blocks hand each other. In a step: gate
// inputs are fetched while h_{t-1} arrives, the product runs on tensor cores, the lanes of k_split 0 do the
// cell's maths on their sums, h_t is published, and only then do y and what backward needs go out to memory.
#pragma once
#include "../cells.h"
#include "wire.h"

namespace fusegen::cuda {

using device::Math;

template <int Gates, class T, class Format, int NT>
FUSEGEN_KERNEL void forward_kernel(FUSEGEN_ARGUMENT ForwardArguments a) {
  using R = Rows<Gates>;
  constexpr int kPairs = R::kPairs, kRows = 8 * NT;
  const ForwardPass& pass = a.pass;
  const Place& place = a.place;
  const Self me = self<Gates>(place, a.operand.chunks);
  unsigned char* shared = device::shared_memory();
  Wire<NT> wire(a.exchange, place, me, pass.error);

  Weights<Gates, T, Format> weights;
  if (place.resident) weights.load(a.operand, me, me.first_chunk, me.chunks);

  const int unit_groups = device::kWarps / place.k_splits, lanes = unit_groups * 32;
  const int lane = device::lane(), d = me.direction, H = pass.H;
  const int T_steps = static_cast<int>(pass.T);
  const bool reverse = d == 1, owner = me.k_split == 0;
  const bool has_c = Gates == 4;
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
  const int64_t carry_size = static_cast<int64_t>(pass.D) * pass.B * H;
  enum { kC, kH };

  for (int i = device::thread(); i < place.slices * kRows; i += device::kThreads) {
    const int b = me.group * place.slices * kRows + i;
    int64_t length = b < pass.B ? (pass.lengths ? pass.lengths[b] : T_steps) : 0;
    if (length < 0 || length > T_steps) {  // -1 from here on: the sequence's outputs are NaN
      length = -1;
      device::store_system(pass.error, kBadLength);
    }
    lengths[i] = static_cast<int>(length);
  }
  if (owner) {
    const bool fresh = a.first <= 0;
#pragma unroll 1
    for (int slice = 0; slice < place.slices; ++slice)
      for (int n = 0; n < NT; ++n)
        for (int pair = 0; pair < kPairs; ++pair) {
          const int unit = unit_of(pair), b = batch_of(slice, row_of(n, pair));
          float c = 0, h = 0;
          if (unit < H && b < pass.B) {
            const int64_t i = state_index(b, unit);
            if (!fresh) {
              c = a.carry[i];
              h = a.carry[carry_size + i];
            } else {
              if (has_c && pass.c0) c = device::widen(static_cast<const T*>(pass.c0)[i]);
              if (pass.h0 && !a.project) h = device::widen(static_cast<const T*>(pass.h0)[i]);
            }
          }
          kept(slice, n, pair, kC) = c;
          kept(slice, n, pair, kH) = h;
        }
  }
  wire.begin();

  const int own_units = unit_groups * R::kUnits, own_bytes = own_units * static_cast<int>(sizeof(T));
  const int segment_bytes = place.blocks * own_bytes;
  const auto put_on_stage = [&](int n, int pair, float value) {
    stage[row_of(n, pair) * own_units + me.unit_group * R::kUnits + R::pair_unit(lane, pair)] =
        device::narrow<T>(value);
  };

  bool stopped = false;
  for (int step = a.first; step <= a.last && !stopped; ++step) {
    const int t = reverse ? T_steps - 1 - step : step;
    for (int slice = 0; slice < place.slices; ++slice) {
      if (step < 0) {  // the first hand-over is h0
        if (owner)
          for (int n = 0; n < NT; ++n)
            for (int pair = 0; pair < kPairs; ++pair) put_on_stage(n, pair, kept(slice, n, pair, kH));
        device::sync_block();
        wire.publish(slice, 0, 1, segment_bytes, own_bytes);
        device::sync_block();
        continue;
      }

      float gx[NT][kPairs][Gates];
      if (owner) {
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
          const int unit = unit_of(pair);
#pragma unroll
          for (int n = 0; n < NT; ++n) {
            const int b = batch_of(slice, row_of(n, pair));
            const bool wanted =
                pass.gx && unit < H && b < pass.B && t < lengths[slice * kRows + row_of(n, pair)];
            const T* from = static_cast<const T*>(pass.gx) +
                            ((static_cast<int64_t>(t) * pass.B + b) * pass.D + d) * Gates * H + unit;
#pragma unroll
            for (int gate = 0; gate < Gates; ++gate)
              gx[n][pair][gate] = wanted ? device::widen(from[gate * H]) : 0.0f;
          }
        }
      }

      const unsigned char* gathered = wire.wait(slice, step);
      float sums[R::kTiles][NT][4];
      product_of_slice<Gates, T, Format, NT>(sums, weights, a.operand, place, me, gathered, wire.stride(),
                                             shared);
      stopped = wire.stopped();
      if (stopped) break;

      float out_h[NT][kPairs], out_c[NT][kPairs], saved[NT][kPairs][4];
      if (owner) {
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
          for (int pair = 0; pair < kPairs; ++pair) {
            const auto sum = [&](int gate) { return sums[R::sum_tile(gate)][n][R::sum_place(gate, pair)]; };
            const int length = lengths[slice * kRows + row_of(n, pair)];
            float c = kept(slice, n, pair, kC), h = kept(slice, n, pair, kH), y = 0;
            float (&s)[4] = saved[n][pair];
            if constexpr (Gates == 4) {
              const auto v = cells::lstm<Math>(gx[n][pair][0] + sum(0), gx[n][pair][1] + sum(1),
                                               gx[n][pair][2] + sum(2), gx[n][pair][3] + sum(3), c);
              s[0] = v.i, s[1] = v.f, s[2] = v.g, s[3] = v.o;
              if (t < length) c = v.c, y = v.h;
            } else if constexpr (Gates == 3) {
              const bool biased = pass.b_hn[d] && unit_of(pair) < H;
              const float q =
                  sum(2) +
                  (biased ? device::widen(static_cast<const T*>(pass.b_hn[d])[unit_of(pair)]) : 0.0f);
              const auto v =
                  cells::gru<Math>(gx[n][pair][0] + sum(0), gx[n][pair][1] + sum(1), gx[n][pair][2], q, h);
              s[0] = v.r, s[1] = v.z, s[2] = v.n, s[3] = q;
              y = v.h;
            } else {
              const float x = gx[n][pair][0] + sum(0);
              y = pass.kind == Kind::identity ? x : cells::rnn<Math>(pass.kind == Kind::rnn_relu, x);
            }
            if (t < length) {
              h = y = device::widen(device::narrow<T>(y));  // as every reader sees it
            } else {
              y = 0;
            }
            if (length < 0) y = c = h = device::not_a_number();
            kept(slice, n, pair, kC) = out_c[n][pair] = c;
            kept(slice, n, pair, kH) = h;
            out_h[n][pair] = y;
            const bool real = unit_of(pair) < H && batch_of(slice, row_of(n, pair)) < pass.B;
            put_on_stage(n, pair, real ? h : 0.0f);
          }
      }
      device::sync_block();
      // Not the last h: nobody waits for it, and a store must not be under way to a block that ends.
      if (a.project || step < T_steps - 1) wire.publish(slice, step + 1, 1, segment_bytes, own_bytes);

      if (owner) {
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
          for (int pair = 0; pair < kPairs; ++pair) {
            const int unit = unit_of(pair), b = batch_of(slice, row_of(n, pair));
            if (unit >= H || b >= pass.B) continue;
            const int64_t row = static_cast<int64_t>(t) * pass.B + b,
                          saved_row = (static_cast<int64_t>(d) * T_steps + t) * pass.B + b;
            if (pass.y)
              static_cast<T*>(pass.y)[(row * pass.D + d) * H + unit] = device::narrow<T>(out_h[n][pair]);
            if (pass.gates) {
              T* to = static_cast<T*>(pass.gates) + saved_row * 4 * H + unit;
#pragma unroll
              for (int gate = 0; gate < 4; ++gate) to[gate * H] = device::narrow<T>(saved[n][pair][gate]);
            }
            if (pass.cells) pass.cells[saved_row * H + unit] = out_c[n][pair];
          }
      }
    }
  }
  wire.end();

  if (!owner) return;
  const bool finished = a.last == T_steps - 1;
#pragma unroll 1
  for (int slice = 0; slice < place.slices; ++slice)
    for (int n = 0; n < NT; ++n)
      for (int pair = 0; pair < kPairs; ++pair) {
        const int unit = unit_of(pair), b = batch_of(slice, row_of(n, pair));
        if (unit >= H || b >= pass.B) continue;
        const int64_t i = state_index(b, unit);
        float c = kept(slice, n, pair, kC), h = kept(slice, n, pair, kH);
        if (stopped) {
          c = h = device::not_a_number();
          if (pass.y)
            for (int t = 0; t < T_steps; ++t)
              static_cast<T*>(pass.y)[((static_cast<int64_t>(t) * pass.B + b) * pass.D + d) * H + unit] =
                  device::narrow<T>(h);
        } else if (!finished) {
          a.carry[i] = c;
          a.carry[carry_size + i] = h;
          continue;
        }
        if (pass.h_n && !a.project) static_cast<T*>(pass.h_n)[i] = device::narrow<T>(h);
        if (has_c && pass.c_n) static_cast<T*>(pass.c_n)[i] = device::narrow<T>(c);
      }
}

}  // namespace fusegen::cuda
