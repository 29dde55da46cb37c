// Where the discriminator step keeps what: the memory that forward leaves for backward, and backward's own.
#pragma once
#include <vector>

#include "arguments.h"

namespace fusegen::cuda {

inline Split split_of(const MlpStep& p) {
  return {static_cast<int>(p.real), static_cast<int>(p.real + p.fake),
          static_cast<int>(p.real + p.fake + p.mixed)};
}

// The groups of rows that are penalised, whose gradient by the input is wanted, and whose adjoints are.
inline unsigned penalised(const MlpStep& p) {
  return (p.r1 > 0 ? kReal : 0u) | (p.r2 > 0 ? kFake : 0u) | (p.mixed > 0 ? kMixed : 0u);
}
inline unsigned input_gradients(const MlpStep& p) {
  return penalised(p) | (p.dx_real ? kReal : 0u) | (p.dx_fake ? kFake : 0u);
}
inline unsigned adjoints(const MlpStep& p) {
  return p.weight_gradients ? kReal | kFake | kMixed : input_gradients(p);
}

// The last hidden layer, from 1, whose activation is smooth, if its second derivative adds to a gradient that
// is wanted; else 0.
inline int bends_to(const MlpStep& p) {
  const bool of_samples = (p.r1 > 0 && p.dx_real) || (p.r2 > 0 && p.dx_fake);
  if (!penalised(p) || !(p.weight_gradients || of_samples)) return 0;
  int last = 0;
  for (int l = 1; l < p.depth; ++l)
    if (smooth(p.layers[l - 1].activation)) last = l;
  return last;
}

// The rows of these groups, at least one.
inline RowMap rows_of(const Split& s, unsigned groups) {
  const int counts[] = {s.real, s.plain - s.real, s.rows - s.plain}, starts[] = {0, s.real, s.plain};
  RowMap map{0, 0, INT_MAX, 0};
  int end = 0;  // of the rows taken so far
  for (int group = 0; group < 3; ++group) {
    if (!(groups >> group & 1) || counts[group] == 0) continue;
    if (map.count == 0) {
      map.first = starts[group];
    } else if (starts[group] > end) {  // fake rows left out between real and mixed
      map.split = map.count;
      map.jump = starts[group] - end;
    }
    map.count += counts[group];
    end = starts[group] + counts[group];
  }
  return map;
}

inline int width_of(const MlpStep& p, int layer) {
  return static_cast<int>(layer ? p.layers[layer - 1].outputs : p.inputs);
}

// Gives out 256-byte aligned parts of a memory, or measures what they take.
class Parts {
public:
  explicit Parts(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}
  void* take(int64_t bytes) {
    void* at = memory_ ? memory_ + used_ : nullptr;
    used_ += (bytes + 255) / 256 * 256;
    return at;
  }
  int64_t used() const { return used_; }

private:
  unsigned char* memory_;
  int64_t used_ = 0;
};

// [rows begin .. end][width], rows padded to whole words.
inline Scratch take_rows(Parts& parts, const MlpStep& p, int width, int begin, int end) {
  const int number = static_cast<int>(dtype_size(p.dtype)), word = 16 / number;
  const int stride = (width + word - 1) / word * word;
  return {parts.take(static_cast<int64_t>(end - begin) * stride * number), stride, begin};
}
inline Scratch take_rows(Parts& parts, const MlpStep& p, int width, unsigned groups) {
  const Split split = split_of(p);
  if (!groups) return {nullptr, 0, 0};
  const RowMap map = rows_of(split, groups);
  const int last = map.count - 1;
  return take_rows(parts, p, width, map.first, map.first + last + (last >= map.split ? map.jump : 0) + 1);
}

struct Saved {
  std::vector<Scratch> H, U;  // [hidden layers] of all rows; U only where adjoints are wanted
  Scratch v;                  // rows of input_gradients()
  // [hidden layers] of a smooth activation its first derivative, all rows, and where the second is wanted
  // that, rows of penalised(); else null
  std::vector<Scratch> first, second;
  std::vector<uint64_t*> dropped;  // [layers] of what each reads, or null (arguments.h, MaskArguments)
  Scratch x;                       // the samples without what is dropped of them, all rows, or null
  float *logit, *norm2, *s, *c;    // [rows]
  float* unit;

  Saved(const MlpStep& p, Parts& parts) {
    const int rows = split_of(p).rows;
    for (int l = 1; l < p.depth; ++l) {
      H.push_back(take_rows(parts, p, width_of(p, l), 0, rows));
      U.push_back(adjoints(p) ? take_rows(parts, p, width_of(p, l), 0, rows) : Scratch{nullptr, 0, 0});
    }
    v = take_rows(parts, p, width_of(p, 0), input_gradients(p));
    for (int l = 1; l < p.depth; ++l) {
      const bool curved = smooth(p.layers[l - 1].activation);
      first.push_back(curved ? take_rows(parts, p, width_of(p, l), 0, rows) : Scratch{});
      second.push_back(take_rows(parts, p, width_of(p, l), curved && bends_to(p) ? penalised(p) : 0u));
    }
    for (int l = 0; l < p.depth; ++l) {
      const int64_t bytes = 8ll * rows * mask_groups(width_of(p, l));
      dropped.push_back(p.layers[l].dropout > 0 ? static_cast<uint64_t*>(parts.take(bytes)) : nullptr);
    }
    x = p.layers[0].dropout > 0 ? take_rows(parts, p, width_of(p, 0), 0, rows) : Scratch{};
    for (float** vector : {&logit, &norm2, &s, &c}) *vector = static_cast<float*>(parts.take(4ll * rows));
    unit = static_cast<float*>(parts.take(4));
  }
};

// What backward needs beside: T of the hidden layers, rows of penalised(), as far up as they are wanted; and
// R, rows of penalised() one behind the other.
struct Workspace {
  std::vector<Scratch> T, R;

  Workspace(const MlpStep& p, Parts& parts) {
    const int last = p.weight_gradients ? p.depth - 1 : bends_to(p);
    const int count = rows_of(split_of(p), penalised(p)).count;
    for (int l = 1; l < p.depth; ++l) {
      T.push_back(take_rows(parts, p, width_of(p, l), l <= last ? penalised(p) : 0u));
      R.push_back(l <= bends_to(p) ? take_rows(parts, p, width_of(p, l), 0, count) : Scratch{});
    }
  }
};

}  // namespace fusegen::cuda
