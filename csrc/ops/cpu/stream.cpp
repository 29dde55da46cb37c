#include "stream.h"

#include "kernels/cpu/recurrent.h"
#include "layer.h"
#include "ops/checks.h"

namespace fusegen {

StackStream::StackStream(Cell cell, const std::vector<Views>& layers, int64_t batch, int threads) {
  check(!layers.empty(), "layers: expected at least one");
  check(batch >= 1, "batch: expected at least 1, got ", batch);
  check(threads >= 1, "threads: expected at least 1, got ", threads);
  for (const Views& weights : layers) {
    check(weights.size() == (cell == Cell::lstm ? 5 : 4),
          "weights: expected 4 tensors, or 5 of an LSTM, got ", weights.size());
    const View &W = required(weights[0], "W"), &R = required(weights[1], "R");
    check(W.ndim == 2 && R.ndim == 2, "W, R: expected matrices, got ", W, " and ", R);
    const bool project = cell == Cell::lstm && weights[4];
    const Stream of_layer{.cell = cell,
                          .dtype = float_dtype(W, "W"),
                          .B = batch,
                          .H = R.shape[0] / gate_count(cell),
                          .P = R.shape[1],
                          .project = project,
                          .layers = nullptr,
                          .depth = static_cast<int64_t>(layers.size()),
                          .memory = nullptr,
                          .taken = 0,
                          .threads = threads};
    if (layers_.empty()) stream_ = of_layer;
    check(of_layer.dtype == stream_.dtype && of_layer.H == stream_.H && of_layer.P == stream_.P &&
              of_layer.project == stream_.project,
          "layers: expected all of one dtype and size");
    check(layers_.empty() || W.shape[1] == stream_.P, "W: expected ", stream_.P, " columns, got ", W);
    const int64_t bytes = packed_bytes(cell, stream_.dtype, W.shape[1], stream_.H, project ? stream_.P : 0);
    memory_.push_back(std::make_unique<cpu::Arena>(bytes));
    void* const packed = memory_.back()->take<unsigned char>(bytes);
    pack_weights(cell, weights,
                 {.data = packed,
                  .present = true,
                  .dtype = ElementType::u8,
                  .ndim = 1,
                  .shape = {bytes},
                  .strides = {1}},
                 threads);
    const ElementType e = element_type(stream_.dtype);
    const int64_t GH = gate_count(cell) * stream_.H;
    layers_.push_back({.I = W.shape[1],
                       .packed = packed,
                       .b_ih = vector(weights[2], "b_ih", GH, e),
                       .b_hh = vector(weights[3], "b_hh", GH, e)});
  }
  stream_.layers = layers_.data();
  const int64_t bytes = cpu::stream_bytes(stream_);
  memory_.push_back(std::make_unique<cpu::Arena>(bytes));
  stream_.memory = memory_.back()->take<unsigned char>(bytes);
  cpu::stream_begin(stream_);
  for (StreamLayer& layer : layers_) layer.b_ih = layer.b_hh = nullptr;  // the caller's, and copied
}

void StackStream::run(const View& x, const View& y) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t B = stream_.B, I = layers_[0].I, P = stream_.P;
  const ElementType e = element_type(stream_.dtype);
  check(x.present && (x.ndim == 2 || x.ndim == 3) && x.shape[x.ndim - 2] == B && x.shape[x.ndim - 1] == I,
        "Stream: expected x of shape [", B, ", ", I, "] or [T, ", B, ", ", I, "], got ", x);
  const int64_t T = x.ndim == 3 ? x.shape[0] : 1;
  const bool block = x.ndim == 3;
  StreamRun run{stream_, T, {}, {}};
  run.x = block ? rows(x, "x", {T, B, I}, e) : rows(x, "x", {B, I}, e);
  run.y = block ? rows(required(y, "y"), "y", {T, B, P}, e) : rows(required(y, "y"), "y", {B, P}, e);
  cpu::stream_run(run);
  stream_.taken += T;
}

void StackStream::get_states(const View& rows, const View& h, const View& c) { states(rows, h, c, false); }
void StackStream::set_states(const View& rows, const View& h, const View& c) { states(rows, h, c, true); }

void StackStream::states(const View& which, const View& h, const View& c, bool set) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check(required(which, "rows").ndim == 1, "rows: expected one dimension, got ", which);
  const int64_t n = which.shape[0];
  check_tensor(which, "rows", {n}, ElementType::i64);
  StreamStates p{stream_, {}, {}, set, static_cast<const int64_t*>(which.data), n};
  for (int64_t i = 0; i < n; ++i)
    check(p.rows[i] >= 0 && p.rows[i] < stream_.B, "rows: expected 0 to ", stream_.B - 1, ", got ",
          p.rows[i]);
  const ElementType e = element_type(stream_.dtype);
  p.h = rows(set ? h : required(h, "h"), "h", {stream_.depth, n, stream_.P}, e);
  if (stream_.cell == Cell::lstm)
    p.c = rows(set ? c : required(c, "c"), "c", {stream_.depth, n, stream_.H}, e);
  cpu::stream_states(p);
}

}  // namespace fusegen
