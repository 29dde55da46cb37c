// Which products' operands bulk copies can bring, and the tensor maps of a launch. Host.
#pragma once
#include "bulk.h"

namespace fusegen::cuda {

// Rows `stride` numbers apart begin on 16 bytes; they may end anywhere.
inline bool fits_boxes(const void* data, int64_t stride, int64_t width) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0 && stride >= width;
}
// The distance of a single row from the next means nothing.
inline int64_t stride_of(int64_t rows, int64_t stride, int64_t width) {
  return rows > 1 ? stride : (width + 7) / 8 * 8;
}

// Of a piece of the samples, none of which may be there.
inline int rows_of_piece(const StepArguments& a, int piece) {
  const int begin[] = {0, a.split.real, a.split.plain, a.split.rows};
  return begin[piece + 1] - begin[piece];
}
inline int64_t stride_of_piece(const StepArguments& a, int piece) {
  return stride_of(rows_of_piece(a, piece), a.samples.stride[piece], a.inputs);
}

// [rows, width], as it lies in memory.
struct WeightSize {
  int rows, width;
};
inline WeightSize weight_size(const LayerArguments& l) {
  return l.across ? WeightSize{l.K, l.N} : WeightSize{l.N, l.K};
}

// Whether both operands of a layer can come so. Those of our own are padded: they always can.
inline bool comes_in_boxes(const StepArguments& a, const LayerArguments& l) {
  const WeightSize size = weight_size(l);
  if (!fits_boxes(l.W.data, stride_of(size.rows, l.W.stride, size.width), size.width)) return false;
  if (l.a.data) return true;
  for (int piece = 0; piece < 3; ++piece)
    if (rows_of_piece(a, piece) > 0 &&
        !fits_boxes(a.samples.data[piece], stride_of_piece(a, piece), a.inputs))
      return false;
  return true;
}

inline RowBoxes boxes_of(const StepArguments& a, const LayerArguments& l, int m) {
  return boxes_of(l.rows, m, l.a.data ? INT_MAX : a.samples.first[1],
                  l.a.data ? INT_MAX : a.samples.first[2]);
}

// The arguments of a launch, and the maps of its jobs.
inline BulkArguments with_maps(const StepArguments& a) {
  BulkArguments all{};
  static_cast<StepArguments&>(all) = a;
  bool samples = false;
  for (int i = 0; i < a.jobs; ++i) {
    const Job& job = a.job[i];
    if (!job.bulk) continue;
    if (job.part == Part::product) {
      const WeightGradient& g = job.product;
      all.left_maps[i] = device::tensor_map(g.u.data, g.M, a.split.rows, 2 * int64_t{g.u.stride});
      // the left one of its second product: the right one of both, lanes bring
      if (g.r.data)
        all.right_maps[i] = device::tensor_map(g.r.data, g.M, a.penalised.count, 2 * int64_t{g.r.stride});
      continue;
    }
    const LayerArguments& l = job.layer;
    const WeightSize size = weight_size(l);
    all.right_maps[i] =
        device::tensor_map(l.W.data, size.width, size.rows, 2 * stride_of(size.rows, l.W.stride, size.width));
    if (l.a.data) {
      const int rows = l.rows(l.rows.count - 1) + 1 - l.a.first;
      all.left_maps[i] = device::tensor_map(l.a.data, l.K, rows, 2 * int64_t{l.a.stride});
    } else {
      samples = true;
    }
  }
  for (int piece = 0; samples && piece < 3; ++piece)
    if (rows_of_piece(a, piece) > 0)
      all.sample_maps[piece] = device::tensor_map(a.samples.data[piece], a.inputs, rows_of_piece(a, piece),
                                                  2 * stride_of_piece(a, piece));
  return all;
}

}  // namespace fusegen::cuda
