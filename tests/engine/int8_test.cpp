// Weights of 8 bits without Python: layers held against reference.h on the numbers that the integers stand
// for; Linear layers of integers, whose sums are exact.
#include <random>

#include "buffer.h"
#include "compare.h"
#include "draw.h"
#include "ops/cpu/int8.h"
#include "report.h"

namespace fusegen::test {
namespace {

// Of 127: half a step of x and one of h at each of T steps, through weights whose rows add up to about 1.
constexpr double kClose = 3e-2;

struct Variant {
  const char* name;
  int64_t D;
  bool bias, project, ragged, states;
  int threads;
};

constexpr Variant kVariants[] = {
    {"plain", 1, true, false, false, true, 1},
    {"bidirectional, ragged, no bias, no states", 2, false, false, true, false, 2},
    {"projected, ragged", 1, true, true, true, true, 2},
};

// A matrix as integers with a scale for each row, and what they stand for.
struct Integers {
  std::vector<int8_t> q;
  std::vector<int64_t> shape;
  Buffer scale;

  Integers(std::mt19937& random, int64_t rows, int64_t columns, double range, Values& meant)
      : q(static_cast<size_t>(rows * columns)), shape{rows, columns} {
    std::uniform_int_distribution<int> pick(-127, 127);
    for (int8_t& e : q) e = static_cast<int8_t>(pick(random));
    Values scales(static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r)
      scales[r] = static_cast<float>(range / 127 * (1 + static_cast<double>(r % 3)) / 3);
    scale = Buffer(Dtype::f32, {rows}, scales);
    meant.resize(q.size());
    for (size_t i = 0; i < q.size(); ++i) meant[i] = q[i] * scales[static_cast<int64_t>(i) / columns];
  }
  View view() const { return view_of(q, shape); }
};

class Problem {
public:
  Problem(Cell cell, const Variant& variant, const Sizes& s) : variant_(variant) {
    const int64_t P = variant.project ? (s.H + 1) / 2 : s.H, GH = gate_count(cell) * s.H, D = variant.D;
    layer_ = {cell, s.T, s.B, s.I, s.H, P, D, {}, {}, {}, {}, {}};
    layer_.x = draw(random_, s.T * s.B * s.I, 1);
    if (variant.states) {
      layer_.h0 = draw(random_, D * s.B * P, 1);
      layer_.c0 = draw(random_, D * s.B * s.H, 1);
    }
    const double range = 1 / std::sqrt(static_cast<double>(s.H));
    const auto integers = [&](int64_t rows, int64_t columns) {
      matrices_.emplace_back(random_, rows, columns, range, layer_.weights.emplace_back());
    };
    for (int64_t d = 0; d < D; ++d) {
      integers(GH, s.I);
      integers(GH, P);
      for (int bias = 0; bias < 2; ++bias)
        layer_.weights.push_back(variant.bias ? draw(random_, GH, range) : Values{});
      if (variant.project) integers(P, s.H);
      else layer_.weights.emplace_back();
    }
    if (variant.ragged)
      for (int64_t b = 0; b < s.B; ++b) layer_.lengths.push_back(static_cast<int64_t>(random_() % (s.T + 1)));
  }

  const Layer& layer() const { return layer_; }

  Outputs run(Dtype dtype, bool weight_only) const {
    const Layer& l = layer_;
    const bool lstm = l.cell == Cell::lstm;
    const Buffer x(dtype, {l.T, l.B, l.I}, l.x);
    Buffer y(dtype, {l.T, l.B, l.D * l.P}), h_n(dtype, {l.D, l.B, l.P}), c_n, h0, c0;
    if (lstm) c_n = Buffer(dtype, {l.D, l.B, l.H});
    if (variant_.states) h0 = Buffer(dtype, {l.D, l.B, l.P}, l.h0);
    if (variant_.states && lstm) c0 = Buffer(dtype, {l.D, l.B, l.H}, l.c0);
    std::vector<std::vector<unsigned char>> blobs;
    Int8Layer call{.cell = l.cell,
                   .x = x,
                   .h0 = h0,
                   .c0 = c0,
                   .packed = {},
                   .hidden = l.H,
                   .output = l.P,
                   .project = variant_.project,
                   .weight_only = weight_only,
                   .lengths = variant_.ragged ? view_of(l.lengths, {l.B}) : View{},
                   .y = y,
                   .h_n = h_n,
                   .c_n = c_n,
                   .threads = variant_.threads};
    for (int64_t d = 0; d < l.D; ++d) {
      blobs.push_back(packed(d, weight_only));
      call.packed.push_back(view_of(blobs.back(), {static_cast<int64_t>(blobs.back().size())}));
    }
    int8_layer(call);
    return {y.values(), h_n.values(), lstm ? c_n.values() : Values{}};
  }

private:
  std::vector<unsigned char> packed(int64_t d, bool weight_only) const {
    const Integers* const m = &matrices_[d * (variant_.project ? 3 : 2)];
    const Values* const w = &layer_.weights[d * 5];
    const Buffer b_ih(Dtype::f32, {static_cast<int64_t>(w[2].size())}, w[2]);
    const Buffer b_hh(Dtype::f32, {static_cast<int64_t>(w[3].size())}, w[3]);
    const Int8WeightViews views{.cell = layer_.cell,
                                .W = m[0].view(),
                                .R = m[1].view(),
                                .W_hr = variant_.project ? m[2].view() : View{},
                                .s_W = m[0].scale,
                                .s_R = m[1].scale,
                                .s_hr = variant_.project ? View(m[2].scale) : View{},
                                .b_ih = variant_.bias ? View(b_ih) : View{},
                                .b_hh = variant_.bias ? View(b_hh) : View{},
                                .weight_only = weight_only};
    std::vector<unsigned char> blob(static_cast<size_t>(int8_packed_bytes(views)));
    int8_pack(views, view_of(blob, {static_cast<int64_t>(blob.size())}));
    return blob;
  }

  const Variant& variant_;
  Layer layer_;
  std::vector<Integers> matrices_;
  std::mt19937 random_{2};
};

// Rows of integers up to 127, whose scale is then 1, times integers: sums that float32 holds. A row with
// infinity gives NaN, and to no other row.
std::string check_linear(int64_t rows, int64_t I, int64_t O, bool weight_only) {
  std::mt19937 random(3);
  std::uniform_int_distribution<int> pick(-127, 127);
  Values x(static_cast<size_t>(rows * I)), want(static_cast<size_t>(rows * O)), bias(static_cast<size_t>(O));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int64_t>(i) % I ? pick(random) : -127;
  for (double& b : bias) b = pick(random);
  std::vector<int8_t> W(static_cast<size_t>(O * I));
  for (int8_t& w : W) w = static_cast<int8_t>(pick(random));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < O; ++o) {
      want[r * O + o] = bias[o];
      for (int64_t i = 0; i < I; ++i) want[r * O + o] += x[r * I + i] * W[o * I + i];
    }
  if (rows > 1) {
    x[0] = HUGE_VAL;
    std::fill_n(want.begin(), O, 0);
  }
  const Buffer input(Dtype::f32, {rows, I}, x), scale(Dtype::f32, {O}, Values(static_cast<size_t>(O), 1)),
      b(Dtype::f32, {O}, bias);
  Buffer y(Dtype::f32, {rows, O});
  const Int8LinearViews views{.W = view_of(W, {O, I}), .s_W = scale, .b = b, .weight_only = weight_only};
  std::vector<unsigned char> blob(static_cast<size_t>(int8_linear_bytes(views)));
  const View packed = view_of(blob, {static_cast<int64_t>(blob.size())});
  int8_linear_pack(views, packed);
  int8_linear(input, packed, weight_only, y, 2);
  Values got = y.values();
  for (int64_t o = 0; o < O && rows > 1; ++o) {
    if (std::isfinite(got[o])) return "a row with infinity gave " + std::to_string(got[o]);
    got[o] = 0;
  }
  return compare("y", got, want, 0, 1);
}

}  // namespace

void check_int8(Report& report, const Sizes& s) {
  constexpr std::pair<Cell, const char*> cells[] = {
      {Cell::lstm, "lstm"}, {Cell::gru, "gru"}, {Cell::rnn_tanh, "rnn tanh"}, {Cell::rnn_relu, "rnn relu"}};
  const std::string sizes = " I=" + std::to_string(s.I) + " H=" + std::to_string(s.H) +
                            " B=" + std::to_string(s.B) + " T=" + std::to_string(s.T) + ", ";
  for (bool weight_only : {false, true}) {
    const std::string kind = weight_only ? "8-bit weights alone, " : "8 bits, ";
    for (const auto& [cell, cell_name] : cells)
      for (const Variant& variant : kVariants) {
        if (variant.project && (cell != Cell::lstm || s.H == 1)) continue;
        const Problem problem(cell, variant, s);
        const Outputs want = reference(problem.layer());
        for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
          report.run(kind + cell_name + sizes + variant.name + ": " + name(dtype), [&] {
            return compare(problem.run(dtype, weight_only), want,
                           weight_only ? tolerance(dtype, false) : kClose);
          });
      }
    report.run(kind + "linear" + sizes, [&] { return check_linear(s.B, s.I, s.H, weight_only); });
  }
}

}  // namespace fusegen::test
