// The launches of a discriminator step. Forward: one a hidden layer, the head, one a layer of adjoints, the
// lengths of the input gradients where there is a penalty, the totals. Backward: one a hidden layer of
// tangents where there is a penalty, and one for all gradients of kLayersOfLaunch layers.
#pragma once
#include <device/launch.h>

#include "gradient.h"
#include "pass.h"
#include "saved.h"

namespace fusegen::cuda {

namespace {

template <class Tile>
int tiles(int m, int n) {
  return ceil_div(m, Tile::kM) * ceil_div(n, Tile::kN);
}

inline Input input_of(const Scratch& o) {
  return {{o.data, nullptr, nullptr}, {o.stride, 0, 0}, {o.first, INT_MAX, INT_MAX}, true};
}

inline bool whole_words(const void* data, int64_t stride, int64_t width, int number) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * number % 16 == 0 && width * number % 16 == 0;
}

inline Input input_of(const MlpStep& p, const Matrix& W, int64_t rows, int64_t columns) {
  const int number = static_cast<int>(dtype_size(p.dtype));
  const int64_t stride = rows > 1 ? W.stride : columns;
  return {{W.data, nullptr, nullptr},
          {stride, 0, 0},
          {0, INT_MAX, INT_MAX},
          whole_words(W.data, stride, columns, number)};
}

inline Input samples_of(const MlpStep& p) {
  const Split split = split_of(p);
  const fusegen::Rows x[] = {p.x_real, p.x_fake, p.x_mixed};
  const int64_t counts[] = {p.real, p.fake, p.mixed};
  Input s{{}, {}, {0, split.real, split.plain}, true};
  for (int i = 0; i < 3; ++i) {
    s.data[i] = x[i].data;
    s.stride[i] = x[i].stride_b;
    const int number = static_cast<int>(dtype_size(p.dtype));
    // The stride of a single row means nothing.
    if (counts[i])
      s.aligned =
          s.aligned && whole_words(x[i].data, counts[i] > 1 ? x[i].stride_b : p.inputs, p.inputs, number);
  }
  return s;
}

template <class T, class Fmt, class Tile>
void launch_layer_as(const LayerArguments& a, bool adjoint, void* stream) {
  const device::Launch l{
      .blocks = tiles<Tile>(a.rows.count, a.N), .shared_bytes = Tile::kSharedBytes, .stream = stream};
  device::launch(adjoint ? layer_kernel<T, Fmt, Tile, true> : layer_kernel<T, Fmt, Tile, false>, l, a);
}

template <class T, class Fmt>
void launch_layer(const LayerArguments& a, bool adjoint, int sms, void* stream) {
  if (tiles<LargeTile<Fmt>>(a.rows.count, a.N) >= sms) {
    launch_layer_as<T, Fmt, LargeTile<Fmt>>(a, adjoint, stream);
  } else {
    launch_layer_as<T, Fmt, SmallTile>(a, adjoint, stream);
  }
}

}  // namespace

namespace {

// A warp a row.
inline device::Launch rows_launch(int rows, void* stream) {
  return {.blocks = ceil_div(rows, device::kWarps), .stream = stream};
}

// H_l of all rows.
template <class T, class Fmt>
void run_layers(const MlpForwardPass& p, const Saved& saved, int sms) {
  for (int l = 1; l < p.depth; ++l) {
    const DenseLayer& layer = p.layers[l - 1];
    LayerArguments a{};
    a.a = l == 1 ? samples_of(p) : input_of(saved.H[l - 2]);
    a.rows = {split_of(p).rows, 0, INT_MAX, 0};
    a.K = width_of(p, l - 1);
    a.N = width_of(p, l);
    a.b = input_of(p, layer.W, a.N, a.K);
    a.bias = layer.b;
    a.activate = true;
    a.slope = static_cast<float>(layer.slope);
    a.out = saved.H[l - 1];
    launch_layer<T, Fmt>(a, false, sms, p.stream);
  }
}

// Logits, and the adjoints behind the last layer.
template <class T, class Fmt>
void run_head(const MlpForwardPass& p, const Saved& saved) {
  const int hidden = p.depth - 1;
  const DenseLayer& last = p.layers[hidden];
  HeadArguments head{};
  head.in = hidden ? input_of(saved.H[hidden - 1]) : samples_of(p);
  head.w = last.W.data;
  head.b = last.b;
  head.n = width_of(p, hidden);
  head.split = split_of(p);
  head.adjoints = hidden ? adjoints(p) : input_gradients(p);
  head.masked = hidden > 0;
  head.slope = hidden ? static_cast<float>(p.layers[hidden - 1].slope) : 1.0f;
  head.out = hidden ? saved.U[hidden - 1] : saved.v;
  head.logit = saved.logit;
  head.logits = p.logits;
  device::launch(head_kernel<T, Fmt>, rows_launch(head.split.rows, p.stream), head);
}

// U_l = m_l (U_{l+1} W_{l+1}), and v without a mask.
template <class T, class Fmt>
void run_adjoints(const MlpForwardPass& p, const Saved& saved, int sms) {
  for (int l = p.depth - 2; l >= 0; --l) {
    const unsigned groups = l ? adjoints(p) : input_gradients(p);
    if (!groups) continue;
    LayerArguments a{};
    a.a = input_of(saved.U[l]);
    a.rows = rows_of(split_of(p), groups);
    a.K = width_of(p, l + 1);
    a.N = width_of(p, l);
    a.b = input_of(p, p.layers[l].W, a.K, a.N);
    if (l) {
      a.mask = saved.H[l - 1];
      a.slope = static_cast<float>(p.layers[l - 1].slope);
    }
    a.out = l ? saved.U[l - 1] : saved.v;
    launch_layer<T, Fmt>(a, true, sms, p.stream);
  }
}

}  // namespace

template <class T, class Fmt>
void run_mlp_forward(const MlpForwardPass& p) {
  const int sms = device(p.device).sms;
  Parts parts(p.saved);
  const Saved saved(p, parts);
  run_layers<T, Fmt>(p, saved, sms);
  run_head<T, Fmt>(p, saved);
  run_adjoints<T, Fmt>(p, saved, sms);
  if (penalised(p)) {
    const RowMap rows = rows_of(split_of(p), penalised(p));
    device::launch(norm_kernel<T, Fmt>, rows_launch(rows.count, p.stream),
                   {.v = saved.v, .inputs = width_of(p, 0), .rows = rows, .norm2 = saved.norm2});
  }
  launch_totals({.split = split_of(p),
                 .loss = p.loss,
                 .generator = p.generator,
                 .target = static_cast<float>(p.target),
                 .r1 = static_cast<float>(p.r1),
                 .r2 = static_cast<float>(p.r2),
                 .gp = static_cast<float>(p.gp),
                 .logit = saved.logit,
                 .norm2 = saved.norm2,
                 .s = saved.s,
                 .c = saved.c,
                 .unit = saved.unit,
                 .scalars = p.scalars,
                 .loss_out = p.loss_out},
                p.stream);
}

namespace {

template <class T, class Fmt, class Tile>
void launch_gradients_as(GradientArguments& a, void* stream) {
  for (int i = 0; i < a.products; ++i) {
    a.product[i].first_block = a.tile_blocks;
    a.tile_blocks += tiles<Tile>(a.product[i].M, a.product[i].N);
  }
  for (int i = 0; i < a.sums; ++i) {
    a.sum[i].first_block = a.sum_blocks;
    a.sum_blocks += ceil_div(a.sum[i].n, 32);
  }
  const int blocks = a.tile_blocks + a.sum_blocks + a.dx_blocks;
  if (blocks)
    device::launch(gradient_kernel<T, Fmt, Tile>,
                   {.blocks = blocks, .shared_bytes = Tile::kSharedBytes, .stream = stream}, a);
}

template <class T, class Fmt>
void launch_gradients(GradientArguments& a, int sms, void* stream) {
  int large = 0;
  for (int i = 0; i < a.products; ++i) large += tiles<LargeTile<Fmt>>(a.product[i].M, a.product[i].N);
  if (large >= sms) {
    launch_gradients_as<T, Fmt, LargeTile<Fmt>>(a, stream);
  } else {
    launch_gradients_as<T, Fmt, SmallTile>(a, stream);
  }
}

// T_l = m_l (T_{l-1} W_l'), with T_0 = v.
template <class T, class Fmt>
void run_tangents(const MlpBackwardPass& p, const Saved& saved, const std::vector<Scratch>& tangents,
                  int sms) {
  for (int l = 1; l < p.depth; ++l) {
    LayerArguments a{};
    a.a = input_of(l == 1 ? saved.v : tangents[l - 2]);
    a.rows = rows_of(split_of(p), penalised(p));
    a.K = width_of(p, l - 1);
    a.N = width_of(p, l);
    a.b = input_of(p, p.layers[l - 1].W, a.N, a.K);
    a.mask = saved.H[l - 1];
    a.slope = static_cast<float>(p.layers[l - 1].slope);
    a.out = tangents[l - 1];
    launch_layer<T, Fmt>(a, false, sms, p.stream);
  }
}

}  // namespace

template <class T, class Fmt>
void run_mlp_backward(const MlpBackwardPass& p) {
  const int sms = device(p.device).sms, hidden = p.depth - 1;
  Parts parts(const_cast<void*>(p.saved));
  const Saved saved(p, parts);
  Parts own(p.workspace);
  const std::vector<Scratch> tangents = tangents_of(p, own);
  const unsigned groups = p.weight_gradients ? penalised(p) : 0u;
  if (groups) run_tangents<T, Fmt>(p, saved, tangents, sms);

  GradientArguments fresh{};
  fresh.split = split_of(p);
  fresh.tangents = groups;
  fresh.samples = samples_of(p);
  fresh.inputs = width_of(p, 0);
  fresh.s = saved.s;
  fresh.c = saved.c;
  fresh.unit = saved.unit;
  fresh.scale = p.scale_in;
  fresh.v = saved.v;
  const auto activations = [&](int l) { return l ? saved.H[l - 1] : Scratch{}; };
  const auto tangents_at = [&](int l) { return !groups ? Scratch{} : l ? tangents[l - 1] : saved.v; };

  GradientArguments a = fresh;
  for (int i = 0; i < 2; ++i) a.dx[i] = p.dx[i].data;
  if (a.dx[0] || a.dx[1]) a.dx_blocks = ceil_div(fresh.split.plain, device::kWarps);
  if (p.weight_gradients) {
    // The last layer is a sum of s h + c t; its bias of s.
    if (p.dW[hidden].data) {
      ColumnSum& last = a.sum[a.sums++];
      last = {.n = width_of(p, hidden), .out = p.dW[hidden].data};
      last.x = activations(hidden);
      last.t = tangents_at(hidden);
    }
    if (p.db[hidden]) a.sum[a.sums++] = {.ones = true, .n = 1, .out = p.db[hidden]};
    for (int l = 1; l <= hidden; ++l) {
      if (p.dW[l - 1].data)
        a.product[a.products++] = {.u = saved.U[l - 1],
                                   .h = activations(l - 1),
                                   .t = tangents_at(l - 1),
                                   .M = width_of(p, l),
                                   .N = width_of(p, l - 1),
                                   .out = p.dW[l - 1].data};
      if (p.db[l - 1]) a.sum[a.sums++] = {.x = saved.U[l - 1], .n = width_of(p, l), .out = p.db[l - 1]};
      if (l % kLayersOfLaunch == 0) {
        launch_gradients<T, Fmt>(a, sms, p.stream);
        a = fresh;
      }
    }
  }
  launch_gradients<T, Fmt>(a, sms, p.stream);
}

}  // namespace fusegen::cuda
