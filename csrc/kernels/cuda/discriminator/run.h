// The jobs of a discriminator step, in phases. Forward: the hidden layers, one after another; the logits
// beside the first layer of adjoints; further adjoints; the lengths of the input gradients where there is a
// penalty; the totals. Backward: where there is a penalty a layer of tangents at a time, beside the weight
// gradients that need those before; else all at once. With dropout, forward begins with its masks; with
// smooth activations and a penalty, backward goes down again behind the tangents, a layer of R at a time
// beside the weight gradients that need the one above.
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
  a.penalised = rows_of(a.split, penalised(p));
  a.key = p.key;
  a.own_real = static_cast<int>(own_real(p));
  a.own_fake = static_cast<int>(own_fake(p));
  a.counted = static_cast<int>(p.counted);
  return a;
}

inline float kept_of(const DenseLayer& layer) { return static_cast<float>(1 / (1 - layer.dropout)); }
// Of what layer l + 1 reads.
inline Dropped dropped_of(const MlpStep& p, const Saved& saved, int l) {
  return {saved.dropped[l], kept_of(p.layers[l])};
}
// What stands behind layer l, for whatever passes it again.
inline void set_behind(LayerArguments& a, const MlpStep& p, const Saved& saved, int l) {
  const DenseLayer& layer = p.layers[l - 1];
  a.activation = layer.activation;
  a.slope = static_cast<float>(layer.slope);
  a.mask = smooth(layer.activation) ? saved.first[l - 1] : saved.H[l - 1];
  a.second = saved.second[l - 1];
  a.dropped = dropped_of(p, saved, l);
}

// From the rows of layer l - 1 (0: the samples) to those of layer l: H_l, or T_l through H_l's mask.
inline LayerArguments layer_of(const MlpStep& p, int l, const Scratch& from, const Scratch& to) {
  const DenseLayer& layer = p.layers[l - 1];
  LayerArguments a{};
  a.a = from;
  a.K = width_of(p, l - 1);
  a.N = width_of(p, l);
  a.W = weight_of(p, layer.W, a.N, a.K);
  a.out = to;
  return a;
}
// The other way: from rows of U_{l+1} or R_{l+1} through W_{l+1}.
inline LayerArguments layer_across(const MlpStep& p, int l, const Scratch& from, const Scratch& to) {
  LayerArguments a{};
  a.a = from;
  a.K = width_of(p, l + 1);
  a.N = width_of(p, l);
  a.W = weight_of(p, p.layers[l].W, a.K, a.N);
  a.across = true;
  a.out = to;
  return a;
}

inline void add_masks(Schedule& schedule, const MlpForwardPass& p, const Saved& saved) {
  bool any = false;
  for (int l = 0; l < p.depth; ++l) {
    if (!saved.dropped[l]) continue;
    any = true;
    schedule.add(MaskArguments{.bits = saved.dropped[l],
                               .samples = l ? Scratch{} : saved.x,
                               .n = width_of(p, l),
                               .place = static_cast<uint32_t>(3 * l),
                               .threshold = philox::threshold(p.layers[l].dropout),
                               .kept = kept_of(p.layers[l])},
                 split_of(p).rows);
  }
  if (any) schedule.next_phase();
}

// H_l of all rows; with the last, the adjoints there.
inline void add_layers(Schedule& schedule, const MlpForwardPass& p, const Saved& saved) {
  for (int l = 1; l < p.depth; ++l) {
    LayerArguments a = layer_of(p, l, l > 1 ? saved.H[l - 2] : saved.x, saved.H[l - 1]);
    a.rows = {split_of(p).rows, 0, INT_MAX, 0};
    a.bias = p.layers[l - 1].b;
    set_behind(a, p, saved, l);
    a.result = Result::activations;
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
  a.in = hidden ? saved.H[hidden - 1] : saved.x;
  a.w = last.W.data;
  a.b = last.b;
  a.n = width_of(p, hidden);
  if (!hidden) a.v = saved.v;
  a.groups = input_gradients(p);
  a.out = p.logits;
  a.dropped = dropped_of(p, saved, 0);
  return a;
}

// U_l = m_l (U_{l+1} W_{l+1}), and v without a mask.
inline void add_adjoints(Schedule& schedule, const MlpForwardPass& p, const Saved& saved) {
  for (int l = p.depth - 2; l >= 0; --l) {
    const unsigned groups = l ? adjoints(p) : input_gradients(p);
    if (!groups) continue;
    LayerArguments a = layer_across(p, l, saved.U[l], l ? saved.U[l - 1] : saved.v);
    a.rows = rows_of(split_of(p), groups);
    a.result = l ? Result::adjoints : Result::input_gradient;
    if (l) {
      set_behind(a, p, saved, l);
    } else {
      a.dropped = dropped_of(p, saved, 0);
    }
    schedule.add(a);
    schedule.next_phase();
  }
}

}  // namespace

template <class T, class Fmt, bool plain>
MlpRun run_mlp_forward(const MlpForwardPass& p) {
  Parts parts(p.saved);
  const Saved saved(p, parts);
  StepArguments a = arguments_of(p, saved);
  a.logits = logits_of(p, saved);
  a.tangents = penalised(p);
  a.totals = {.loss = p.loss,
              .generator = p.generator,
              .target = static_cast<float>(p.target),
              .r1 = static_cast<float>(p.r1),
              .r2 = static_cast<float>(p.r2),
              .gp = static_cast<float>(p.gp),
              .scalars = p.scalars,
              .loss_out = p.loss_out,
              .near_real = static_cast<float>(p.near_real),
              .near_fake = static_cast<float>(p.near_fake),
              .tangents_kept = kept_of(p.layers[0])};
  Schedule schedule;
  add_masks(schedule, p, saved);
  add_layers(schedule, p, saved);
  schedule.add_rows(Part::logits, a.split.rows);
  add_adjoints(schedule, p, saved);
  schedule.next_phase();
  if (penalised(p)) {
    schedule.add_rows(Part::norms, a.penalised.count);
    schedule.next_phase();
  }
  schedule.add_totals();
  return schedule.run<T, Fmt, plain>(a, p.format, device(p.device), p.stream);
}

namespace {

// The gradients of layer l's weight and bias, of which tangents `t` of layer l - 1 are known (null: none),
// and R_l (null: none).
inline void add_gradients(Schedule& schedule, const MlpBackwardPass& p, const Saved& saved, int l,
                          const Scratch& t, const Scratch& r) {
  const Scratch h = l > 1 ? saved.H[l - 2] : saved.x;
  void *dW = p.dW[l - 1].data, *db = p.db[l - 1];
  if (l == p.depth) {  // whose adjoints are 1: sums of s h + c t, and of s
    if (dW) schedule.add(ColumnSum{h, t, false, width_of(p, l - 1), dW, {}});
    if (db) schedule.add(ColumnSum{{}, {}, true, 1, db, {}});
    return;
  }
  const Scratch u = saved.U[l - 1];
  const int rows = split_of(p).rows + (r.data ? rows_of(split_of(p), penalised(p)).count : 0);
  if (dW) schedule.add(WeightGradient{u, h, t, width_of(p, l), width_of(p, l - 1), dW, r}, rows);
  if (db) schedule.add(ColumnSum{u, {}, false, width_of(p, l), db, r});
}

// T_l = m_l (T_{l-1} W_l'), with T_0 = v; and the first part of R_l.
inline void add_tangents(Schedule& schedule, const MlpBackwardPass& p, const Saved& saved,
                         const Workspace& own, int l) {
  LayerArguments a = layer_of(p, l, l > 1 ? own.T[l - 2] : saved.v, own.T[l - 1]);
  a.rows = rows_of(split_of(p), penalised(p));
  set_behind(a, p, saved, l);
  a.result = Result::tangents;
  a.bend = own.R[l - 1];
  schedule.add(a);
}

// R_l += m_l (R_{l+1} W_{l+1}).
inline void add_sent_back(Schedule& schedule, const MlpBackwardPass& p, const Saved& saved,
                          const Workspace& own, int l) {
  LayerArguments a = layer_across(p, l, own.R[l], own.R[l - 1]);
  a.rows = {rows_of(split_of(p), penalised(p)).count, 0, INT_MAX, 0};
  a.compact = true;
  set_behind(a, p, saved, l);
  a.result = Result::sent_back;
  schedule.add(a);
}

// Whether a penalty adds to the gradient of these samples, 0 real and 1 fake.
inline bool bends_samples(const MlpStep& p, int half) { return bends_to(p) && (half ? p.r2 : p.r1) > 0; }

// The gradients of such samples.
inline void add_sample_gradients(Schedule& schedule, const MlpBackwardPass& p, const Saved& saved,
                                 const Workspace& own) {
  const Split split = split_of(p);
  const int counts[] = {split.real, split.plain - split.real}, first[] = {0, split.real};
  int number = 0;  // among the penalised rows
  for (int half = 0; half < 2; ++half) {
    if (!bends_samples(p, half)) continue;
    LayerArguments a = layer_across(p, 0, own.R[0], {p.dx[half].data, width_of(p, 0), first[half]});
    a.rows = {counts[half], number, INT_MAX, 0};
    a.compact = true;
    a.dropped = dropped_of(p, saved, 0);
    a.result = Result::sample_gradient;
    if (a.out.data) schedule.add(a);
    number += counts[half];
  }
}

}  // namespace

template <class T, class Fmt, bool plain>
MlpRun run_mlp_backward(const MlpBackwardPass& p) {
  Parts parts(const_cast<void*>(p.saved));
  const Saved saved(p, parts);
  Parts memory(p.workspace);
  const Workspace own(p, memory);
  const int bent = bends_to(p), hidden = p.depth - 1, tangents = p.weight_gradients ? hidden : bent;
  StepArguments a = arguments_of(p, saved);
  a.tangents = p.weight_gradients || bent ? penalised(p) : 0u;
  a.scale = p.scale_in;
  for (int i = 0; i < 2; ++i) a.dx[i] = bends_samples(p, i) ? nullptr : p.dx[i].data;

  Schedule schedule;
  if (a.dx[0] || a.dx[1]) schedule.add_rows(Part::input_gradients, a.split.plain);
  const auto add_weights = [&](int l) {
    if (!p.weight_gradients) return;
    const Scratch t = !a.tangents ? Scratch{} : l > 1 ? own.T[l - 2] : saved.v;
    add_gradients(schedule, p, saved, l, t, l <= bent ? own.R[l - 1] : Scratch{});
  };
  for (int l = 1; l <= p.depth; ++l) {
    if (a.tangents && l <= tangents) add_tangents(schedule, p, saved, own, l);
    if (l > bent) add_weights(l);
    if (a.tangents) schedule.next_phase();
  }
  for (int l = bent; l >= 1; --l) {
    if (l > 1) add_sent_back(schedule, p, saved, own, l - 1);
    add_weights(l);
    if (l == 1) add_sample_gradients(schedule, p, saved, own);
    schedule.next_phase();
  }
  return schedule.run<T, Fmt, plain>(a, p.format, device(p.device), p.stream);
}

}  // namespace fusegen::cuda
