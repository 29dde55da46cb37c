// The weights of one direction of a layer in 8 bits, as the kernels read them.
#pragma once
#include "kernels/cpu/arena.h"
#include "kernels/cpu/isa/vector/int8.h"
#include "kernels/cpu/isa/vector/pack.h"

namespace fusegen::FUSEGEN_ISA_NS {

// A matrix in panels: panel_bytes for each, and for each of its vectors' lanes a scale and what its sum
// starts from.
struct Int8Matrix {
  PanelShape shape;
  int64_t K, step;  // numbers of k, and how many a step has

  int8_t* data;
  float* scale;
  int32_t* start;

  int64_t steps() const { return (K + step - 1) / step; }
  int64_t panels() const { return shape.count<float>(); }
  int64_t lanes_of_panel() const { return shape.vectors() * kLanes<float>; }
  int64_t panel_bytes() const { return steps() * step * lanes_of_panel(); }

  void take(cpu::Arena& arena) {
    data = arena.take<int8_t>(panels() * panel_bytes());
    scale = arena.take<float>(panels() * lanes_of_panel());
    start = arena.take<int32_t>(panels() * lanes_of_panel());
  }

  // [panel][pass][step][vector of the pass][lane][of the step]
  void pack(const int8_t* weight, const float* scales) const {
    constexpr int L = kLanes<float>;
    const int V = pass_vectors(shape.vectors());
    std::fill_n(data, panels() * panel_bytes(), int8_t{0});
    for (int64_t p = 0; p < panels(); ++p)
      for (int j = 0; j < shape.vectors(); ++j)
        for (int l = 0; l < L; ++l) {
          const int64_t at = p * lanes_of_panel() + j * L + l, row = shape.row<float>(p, j) + l;
          const bool is_unit = l < shape.lanes<float>(p, j);
          scale[at] = is_unit ? scales[row] : 0.0f;
          int32_t sum = 0;
          int8_t* const to = data + p * panel_bytes() + j / V * steps() * V * L * step;
          for (int64_t k = 0; is_unit && k < K; ++k) {
            const int8_t w = weight[row * K + k];
            to[((k / step * V + j % V) * L + l) * step + k % step] = w;
            sum += w;
          }
          start[at] = -kActivationZero * sum;
        }
  }
};

struct Int8Weights {
  Int8Matrix W, R, W_hr;
  float* bias;    // [panel][vector][lane]: b_ih + b_hh, of GRU's n only b_in
  float* bias_q;  // GRU's b_hn, in the places of n
  int64_t bytes_ = 0;

  Int8Weights(const Int8Pack& p, void* base)
      : W{{p.H, gate_count(p.cell)}, p.I, p.weight_only ? 1 : kInt8Step, nullptr, nullptr, nullptr},
        R{{p.H, gate_count(p.cell)}, p.P, p.weight_only ? 1 : kInt8Step, nullptr, nullptr, nullptr},
        W_hr{{p.project ? p.P : 0, 1}, p.H, p.weight_only ? 1 : kInt8Step, nullptr, nullptr, nullptr} {
    cpu::Arena measure{cpu::Arena::Measure{}}, placed(base);
    cpu::Arena& arena = base ? placed : measure;
    for (Int8Matrix* m : {&W, &R, &W_hr}) m->take(arena);
    bias = arena.take<float>(W.panels() * W.lanes_of_panel());
    bias_q = arena.take<float>(W.panels() * W.lanes_of_panel());
    bytes_ = static_cast<int64_t>(arena.used());
  }
  int64_t bytes() const { return bytes_ + 64; }  // borrowed memory is used from a boundary on

  void pack(const Int8Pack& p) const {
    constexpr int L = kLanes<float>;
    W.pack(p.W, p.s_W);
    R.pack(p.R, p.s_R);
    if (p.project) W_hr.pack(p.W_hr, p.s_hr);
    const PanelShape& shape = W.shape;
    for (int64_t panel = 0; panel < W.panels(); ++panel)
      for (int j = 0; j < shape.vectors(); ++j)
        for (int l = 0; l < L; ++l) {
          const int64_t at = panel * W.lanes_of_panel() + j * L + l, row = shape.row<float>(panel, j) + l;
          const bool is_unit = l < shape.lanes<float>(panel, j), apart = p.cell == Cell::gru && j == 2;
          const float b_ih = is_unit && p.b_ih ? p.b_ih[row] : 0.0f,
                      b_hh = is_unit && p.b_hh ? p.b_hh[row] : 0.0f;
          bias[at] = apart ? b_ih : b_ih + b_hh;
          bias_q[at] = apart ? b_hh : 0.0f;
        }
  }
};

// Of a Linear layer.
struct Int8LinearWeights {
  Int8Matrix W;
  float* bias;  // [panel][vector][lane]
  int64_t bytes_ = 0;

  Int8LinearWeights(int64_t I, int64_t O, bool weight_only, void* base)
      : W{{O, 1}, I, weight_only ? 1 : kInt8Step, nullptr, nullptr, nullptr} {
    cpu::Arena measure{cpu::Arena::Measure{}}, placed(base);
    cpu::Arena& arena = base ? placed : measure;
    W.take(arena);
    bias = arena.take<float>(W.panels() * W.lanes_of_panel());
    bytes_ = static_cast<int64_t>(arena.used());
  }
  int64_t bytes() const { return bytes_ + 64; }

  void pack(const Int8LinearPack& p) const {
    W.pack(p.W, p.s_W);
    for (int64_t row = 0; row < W.panels() * W.lanes_of_panel(); ++row)
      bias[row] = p.b && row < p.O ? p.b[row] : 0.0f;
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
