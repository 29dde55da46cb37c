// Streams without Python: a sequence taken as one step and a block is what reference.h makes of the whole,
// and rows whose state is set go on from it.
#include <random>

#include "buffer.h"
#include "compare.h"
#include "draw.h"
#include "ops/cpu/stream.h"
#include "report.h"

namespace fusegen::test {
namespace {

struct Variant {
  const char* name;
  int depth;
  bool bias, project;
  int threads;
};

constexpr Variant kVariants[] = {
    {"one layer", 1, true, false, 1},
    {"three layers, no bias", 3, false, false, 2},
    {"two layers, projected", 2, true, true, 2},
};

class Problem {
public:
  Problem(Cell cell, const Variant& variant, const Sizes& s) : variant_(variant) {
    const int64_t P = variant.project ? (s.H + 1) / 2 : s.H, GH = gate_count(cell) * s.H;
    const double range = 1 / std::sqrt(static_cast<double>(s.H));
    for (int l = 0; l < variant.depth; ++l) {
      Layer layer{cell, s.T, s.B, l ? P : s.I, s.H, P, 1, {}, {}, {}, {}, {}};
      layer.weights.push_back(draw(random_, GH * layer.I, range));
      layer.weights.push_back(draw(random_, GH * P, range));
      for (int bias = 0; bias < 2; ++bias)
        layer.weights.push_back(variant.bias ? draw(random_, GH, range) : Values{});
      if (cell == Cell::lstm)
        layer.weights.push_back(variant.project ? draw(random_, P * s.H, range) : Values{});
      layers_.push_back(layer);
    }
    x_ = draw(random_, s.T * s.B * s.I, 1);
  }

  std::string run(Dtype dtype) const {
    const Layer& first = layers_[0];
    const int64_t T = first.T, B = first.B, I = first.I, P = first.P;
    std::vector<Buffer> held;
    StackStream stream(first.cell, weights(dtype, held), B, variant_.threads);
    held.clear();  // a stream keeps what it needs
    const size_t step = static_cast<size_t>(B * I);
    const Buffer head(dtype, {B, I}, Values(x_.begin(), x_.begin() + step)),
        rest(dtype, {T - 1, B, I}, Values(x_.begin() + step, x_.end()));
    Buffer y_head(dtype, {B, P}), y_rest(dtype, {T - 1, B, P});
    stream.run(head, y_head);
    if (T > 1) stream.run(rest, y_rest);
    Values y = y_head.values();
    const Values after = y_rest.values();
    y.insert(y.end(), after.begin(), after.end());

    std::vector<Layer> stack = layers_;
    const Outputs whole = reference_of(stack, x_);
    const std::string wrong = compare(with_states(stream, dtype, y), whole, tolerance(dtype, false));
    if (!wrong.empty()) return wrong;

    // Row 0 begins anew, the others go on.
    stream.set_states(view_of(std::vector<int64_t>(1, 0), {1}), {}, {});
    stream.run(head, y_head);
    for (size_t l = 0; l < stack.size(); ++l) {
      const auto last = [&](const Values& of_stack, int64_t n) {
        const auto begin = of_stack.begin() + static_cast<int64_t>(l) * B * n;
        Values state(begin, begin + B * n);
        std::fill_n(state.begin(), n, 0);
        return state;
      };
      stack[l].T = 1;
      stack[l].h0 = last(whole.h_n, P);
      stack[l].c0 = last(whole.c_n, first.H);
    }
    const Outputs next = reference_of(stack, Values(x_.begin(), x_.begin() + step));
    return compare("y of a row set anew", y_head.values(), next.y, tolerance(dtype, false), 1);
  }

private:
  std::vector<Views> weights(Dtype dtype, std::vector<Buffer>& held) const {
    std::vector<Views> all;
    for (const Layer& l : layers_) {
      const int64_t GH = gate_count(l.cell) * l.H;
      const std::vector<int64_t> shapes[] = {{GH, l.I}, {GH, l.P}, {GH}, {GH}, {l.P, l.H}};
      Views& views = all.emplace_back();
      for (size_t i = 0; i < l.weights.size(); ++i) {
        held.push_back(l.weights[i].empty() ? Buffer() : Buffer(dtype, shapes[i], l.weights[i]));
        views.push_back(held.back());
      }
    }
    return all;
  }

  // y of the last layer, the states of all.
  static Outputs reference_of(std::vector<Layer>& stack, const Values& x) {
    Outputs all{x, {}, {}};
    for (Layer& l : stack) {
      l.x = all.y;
      const Outputs out = reference(l);
      all.y = out.y;
      all.h_n.insert(all.h_n.end(), out.h_n.begin(), out.h_n.end());
      all.c_n.insert(all.c_n.end(), out.c_n.begin(), out.c_n.end());
    }
    return all;
  }

  Outputs with_states(StackStream& stream, Dtype dtype, const Values& y) const {
    const Layer& l = layers_[0];
    const int64_t depth = variant_.depth;
    std::vector<int64_t> rows(static_cast<size_t>(l.B));
    for (int64_t b = 0; b < l.B; ++b) rows[b] = b;
    Buffer h(dtype, {depth, l.B, l.P}), c;
    if (l.cell == Cell::lstm) c = Buffer(dtype, {depth, l.B, l.H});
    stream.get_states(view_of(rows, {l.B}), h, c);
    return {y, h.values(), l.cell == Cell::lstm ? c.values() : Values{}};
  }

  const Variant& variant_;
  std::vector<Layer> layers_;
  Values x_;
  std::mt19937 random_{4};
};

}  // namespace

void check_streams(Report& report, const Sizes& s) {
  if (s.B == 0) return;  // a stream has a row
  constexpr std::pair<Cell, const char*> cells[] = {
      {Cell::lstm, "lstm"}, {Cell::gru, "gru"}, {Cell::rnn_tanh, "rnn tanh"}, {Cell::rnn_relu, "rnn relu"}};
  for (const auto& [cell, cell_name] : cells)
    for (const Variant& variant : kVariants) {
      if (variant.project && (cell != Cell::lstm || s.H == 1)) continue;
      const Problem problem(cell, variant, s);
      for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16})
        report.run(std::string("stream of ") + cell_name + " I=" + std::to_string(s.I) +
                       " H=" + std::to_string(s.H) + " B=" + std::to_string(s.B) +
                       " T=" + std::to_string(s.T) + ", " + variant.name + ": " + name(dtype),
                   [&] { return problem.run(dtype); });
    }
}

}  // namespace fusegen::test
