// The jobs of a discriminator step, in phases. Forward: the hidden layers, one after another; the logits
// beside the first layer of adjoints; further adjoints; the lengths of the input gradients where there is a
// penalty; the totals. Backward: where there is a penalty a layer of tangents at a time, beside the weight
// gradients that need those before; else all at once.
#pragma once
#include "pass.h"
#include "saved.h"
#include "schedule.h"

namespace fusegen::cuda {

namespace {

inline bool whole_words(const void* data, int64_t stride, int64_t width, int number) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * number % 16 == 0 && width * number % 16 == 0;
}

inline Weight weight_of(const MlpStep& p, const Matrix& W, int64_t rows, int64_t columns) {
  const int64_t stride = rows > 1 ? W.stride : columns;
  return {W.data, stride, whole_words(W.data, stride, columns, static_cast<int>(dtype_size(p.dtype)))};
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

inline StepArguments arguments_of(const MlpStep& p, const Saved& saved) {
  StepArguments a{};
  a.split = split_of(p);
  a.samples = samples_of(p);
  a.inputs = width_of(p, 0);
  a.logit = saved.logit;
  a.norm2 = saved.norm2;
  a.s = saved.s;
  a.c = saved.c;
  a.unit = saved.unit;
  a.v = saved.v;
  return a;
}

// From the rows of layer l - 1 (0: the samples) to those of layer l: H_l, or T_l through H_l's mask.
inline LayerArguments layer_of(const MlpStep& p, int l, const Scratch& from, const Scratch& to) {
  const DenseLayer& layer = p.layers[l - 1];
  LayerArguments a{};
  a.a = from;
  a.K = width_of(p, l - 1);
  a.N = width_of(p, l);
  a.W = weight_of(p, layer.W, a.N, a.K);
  a.slope = static_cast<float>(layer.slope);
  a.out = to;
  return a;
}

// H_l of all rows; with the last, the adjoints there.
inline void add_layers(Schedule& schedule, const MlpForwardPass& p, const Saved& saved) {
  for (int l = 1; l < p.depth; ++l) {
    LayerArguments a = layer_of(p, l, l > 1 ? saved.H[l - 2] : Scratch{}, saved.H[l - 1]);
    a.rows = {split_of(p).rows, 0, INT_MAX, 0};
    a.bias = p.layers[l - 1].b;
    a.activate = true;
    if (l == p.depth - 1) {
      a.logit_weights = p.layers[l].W.data;
      a.adjoints = saved.U[l - 1];
    }
    schedule.add(a);
    schedule.next_phase();
  }
}

inline LogitArguments logits_of(const MlpForwardPass& p, const Saved& saved) {
  const int hidden = p.depth - 1;
  const DenseLayer& last = p.layers[hidden];
  LogitArguments a{};
  if (hidden) a.in = saved.H[hidden - 1];
  a.w = last.W.data;
  a.b = last.b;
  a.n = width_of(p, hidden);
  if (!hidden) a.v = saved.v;
  a.groups = input_gradients(p);
  a.out = p.logits;
  return a;
}

// U_l = m_l (U_{l+1} W_{l+1}), and v without a mask.
inline void add_adjoints(Schedule& schedule, const MlpForwardPass& p, const Saved& saved) {
  for (int l = p.depth - 2; l >= 0; --l) {
    const unsigned groups = l ? adjoints(p) : input_gradients(p);
    if (!groups) continue;
    LayerArguments a{};
    a.a = saved.U[l];
    a.rows = rows_of(split_of(p), groups);
    a.K = width_of(p, l + 1);
    a.N = width_of(p, l);
    a.W = weight_of(p, p.layers[l].W, a.K, a.N);
    a.across = true;
    if (l) {
      a.mask = saved.H[l - 1];
      a.slope = static_cast<float>(p.layers[l - 1].slope);
    }
    a.out = l ? saved.U[l - 1] : saved.v;
    schedule.add(a);
    schedule.next_phase();
  }
}

}  // namespace

template <class T, class Fmt>
MlpRun run_mlp_forward(const MlpForwardPass& p) {
  Parts parts(p.saved);
  const Saved saved(p, parts);
  StepArguments a = arguments_of(p, saved);
  a.logits = logits_of(p, saved);
  a.totals = {.loss = p.loss,
              .generator = p.generator,
              .target = static_cast<float>(p.target),
              .r1 = static_cast<float>(p.r1),
              .r2 = static_cast<float>(p.r2),
              .gp = static_cast<float>(p.gp),
              .scalars = p.scalars,
              .loss_out = p.loss_out};
  Schedule schedule;
  add_layers(schedule, p, saved);
  schedule.add_rows(Part::logits, a.split.rows);
  add_adjoints(schedule, p, saved);
  schedule.next_phase();
  if (penalised(p)) {
    a.penalised = rows_of(a.split, penalised(p));
    schedule.add_rows(Part::norms, a.penalised.count);
    schedule.next_phase();
  }
  schedule.add_totals();
  return schedule.run<T, Fmt>(a, p.format, device(p.device), p.stream);
}

namespace {

// The gradients of layer l's weight and bias, of which tangents `t` of layer l - 1 are known (null: none).
inline void add_gradients(Schedule& schedule, const MlpBackwardPass& p, const Saved& saved, int l,
                          const Scratch& t) {
  const Scratch h = l > 1 ? saved.H[l - 2] : Scratch{};
  void *dW = p.dW[l - 1].data, *db = p.db[l - 1];
  if (l == p.depth) {  // whose adjoints are 1: sums of s h + c t, and of s
    if (dW) schedule.add(ColumnSum{h, t, false, width_of(p, l - 1), dW});
    if (db) schedule.add(ColumnSum{{}, {}, true, 1, db});
    return;
  }
  const Scratch u = saved.U[l - 1];
  if (dW) schedule.add(WeightGradient{u, h, t, width_of(p, l), width_of(p, l - 1), dW}, split_of(p).rows);
  if (db) schedule.add(ColumnSum{u, {}, false, width_of(p, l), db});
}

}  // namespace

template <class T, class Fmt>
MlpRun run_mlp_backward(const MlpBackwardPass& p) {
  Parts parts(const_cast<void*>(p.saved));
  const Saved saved(p, parts);
  Parts own(p.workspace);
  const std::vector<Scratch> tangents = tangents_of(p, own);
  StepArguments a = arguments_of(p, saved);
  a.tangents = p.weight_gradients ? penalised(p) : 0u;
  a.scale = p.scale_in;
  for (int i = 0; i < 2; ++i) a.dx[i] = p.dx[i].data;

  Schedule schedule;
  if (a.dx[0] || a.dx[1]) schedule.add_rows(Part::input_gradients, a.split.plain);
  for (int l = 1; p.weight_gradients && l <= p.depth; ++l) {
    const Scratch t = !a.tangents ? Scratch{} : l > 1 ? tangents[l - 2] : saved.v;
    if (a.tangents && l < p.depth) {  // T_l = m_l (T_{l-1} W_l'), with T_0 = v
      LayerArguments layer = layer_of(p, l, t, tangents[l - 1]);
      layer.rows = rows_of(a.split, a.tangents);
      layer.mask = saved.H[l - 1];
      schedule.add(layer);
    }
    add_gradients(schedule, p, saved, l, t);
    if (a.tangents) schedule.next_phase();
  }
  return schedule.run<T, Fmt>(a, p.format, device(p.device), p.stream);
}

}  // namespace fusegen::cuda
