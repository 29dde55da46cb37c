// Drives the engine without Python, for the sanitizers: engine_test [THREADS] < SHAPES, one "I H B T" a line,
// as tests/cases.py has them: layers and cells, then 8-bit weights and streams of those sizes (int8_test.cpp,
// stream_test.cpp), then the discriminator step (mlp_test.cpp, conv_test.cpp). Forward is compared with
// reference.h; float64 gradients with directional derivatives of reference.h; the other dtypes with float64.
// All of it in each of THREADS threads, at once. Then 8-bit weights of every instruction set against the
// baseline's (int8_sets_test.cpp). Prints what fails, and last "N passed, N failed".
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "buffer.h"
#include "compare.h"
#include "draw.h"
#include "ops/cpu/cell.h"
#include "report.h"

namespace fusegen::test {
namespace {

struct Variant {
  const char* name;
  int64_t D;
  bool bias, project, ragged, states, dy, batch_first, step;  // step: one step of a cell, without T and D
  int threads;
};

constexpr Variant kVariants[] = {
    {"plain", 1, true, false, false, true, true, false, false, 2},
    {"bidirectional, ragged, batch first", 2, true, false, true, true, true, true, false, 2},
    {"no bias, no states, one thread", 1, false, false, true, false, false, false, false, 1},
    {"projected, bidirectional, ragged", 2, true, true, true, true, true, false, false, 2},
    {"cell", 1, true, false, false, true, true, false, true, 2},
};

enum Wanted { kX = 1, kStates = 2, kWeights = 4, kAll = 7 };
enum class Mode { train, infer, packed };

using Named = std::map<std::string, Values>;

std::string weight_name(size_t i) { return "dweights[" + std::to_string(i) + "]"; }

class Problem {
public:
  Problem(Cell cell, const Variant& variant, int64_t I, int64_t H, int64_t B, int64_t T) : variant_(variant) {
    if (variant.step) T = 1;
    const int64_t P = variant.project ? (H + 1) / 2 : H, GH = gate_count(cell) * H;
    layer_ = {cell, T, B, I, H, P, variant.D, {}, {}, {}, {}, {}};
    layer_.x = draw(T * B * I, 1);
    if (variant.states) {
      layer_.h0 = draw(variant.D * B * P, 1);
      if (cell == Cell::lstm) layer_.c0 = draw(variant.D * B * H, 1);
    }
    const double range = 1 / std::sqrt(static_cast<double>(H));
    for (int64_t d = 0; d < variant.D; ++d) {
      layer_.weights.push_back(draw(GH * I, range));
      layer_.weights.push_back(draw(GH * P, range));
      for (int bias = 0; bias < 2; ++bias)
        layer_.weights.push_back(variant.bias ? draw(GH, range) : Values{});
      if (cell == Cell::lstm) layer_.weights.push_back(variant.project ? draw(P * H, range) : Values{});
    }
    if (variant.ragged) {
      for (int64_t b = 0; b < B; ++b) layer_.lengths.push_back(static_cast<int64_t>(random_() % (T + 1)));
    }
    if (variant.dy) dy_ = draw(T * B * variant.D * P, 1);
    if (!variant.step) dh_n_ = draw(variant.D * B * P, 1);  // a cell's h is its y
    if (cell == Cell::lstm) dc_n_ = draw(variant.D * B * H, 1);
  }

  const Layer& layer() const { return layer_; }

  Outputs forward(Dtype dtype, Mode mode) {
    Run run(*this, dtype, mode);
    return run.forward();
  }

  Named backward(Dtype dtype, int wanted) {
    Run run(*this, dtype, Mode::train);
    run.forward();
    return run.backward(wanted);
  }

  // The derivative of the loss along a random direction of all inputs together, and that direction, by input.
  // Each input by itself would tell more, and take as many evaluations of the reference as there are inputs.
  std::pair<Named, double> directional() {
    Named direction;
    std::map<std::string, Values*> inputs{{"dx", &layer_.x}, {"dh0", &layer_.h0}, {"dc0", &layer_.c0}};
    for (size_t i = 0; i < layer_.weights.size(); ++i) inputs[weight_name(i)] = &layer_.weights[i];
    for (const auto& [input, values] : inputs)
      if (!values->empty()) direction[input] = draw(static_cast<int64_t>(values->size()), 1);
    // A relu layer has no curvature to average out but corners to stay clear of: a smaller step.
    const double step = layer_.cell == Cell::rnn_relu ? 1e-7 : 1e-5;
    const Layer at = layer_;
    double loss[2];
    for (int side = 0; side < 2; ++side) {
      for (const auto& [input, along] : direction)
        for (size_t i = 0; i < along.size(); ++i) (*inputs[input])[i] += (side ? -step : step) * along[i];
      loss[side] = this->loss();
      layer_ = at;
    }
    return {direction, (loss[0] - loss[1]) / (2 * step)};
  }

  // Sets the first element of x, if there is one, and returns what it was.
  double begin_with(double v) { return layer_.x.empty() ? v : std::exchange(layer_.x[0], v); }

  // Off the grid, so that no unit of a relu layer stands exactly at its corner.
  void jitter() {
    std::normal_distribution<double> noise(0, 1e-3);
    for (double& v : layer_.x) v += noise(random_);
    for (Values& w : layer_.weights)
      for (double& v : w) v += noise(random_);
  }

private:
  struct Run {
    Run(const Problem& p, Dtype dtype, Mode mode) : p(p), dtype(dtype), l(p.layer_) {
      const bool first = p.variant_.batch_first;
      const Dtype wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
      x = Buffer(dtype, sequence(l.I), l.x, first);
      if (p.variant_.states) {
        h0 = Buffer(dtype, state(l.P), l.h0);
        if (l.cell == Cell::lstm) c0 = Buffer(dtype, state(l.H), l.c0);
      }
      for (size_t i = 0; i < l.weights.size(); ++i)
        weights.push_back(l.weights[i].empty() ? Buffer() : Buffer(dtype, weight_shape(i), l.weights[i]));
      if (p.variant_.ragged) lengths = view_of(l.lengths, {l.B});
      y = Buffer(dtype, sequence(l.D * l.P), first);
      if (!p.variant_.step) h_n = Buffer(dtype, state(l.P));
      if (l.cell == Cell::lstm) c_n = Buffer(dtype, state(l.H));
      if (mode == Mode::train) {
        if (saved_gates(l.cell)) gates = Buffer(dtype, saved(saved_gates(l.cell) * l.H));
        if (l.cell == Cell::lstm) cells = Buffer(wide, saved(l.H));
      }
      if (mode == Mode::packed) pack();
    }

    using Shape = std::vector<int64_t>;
    Shape sequence(int64_t n) const { return p.variant_.step ? Shape{l.B, n} : Shape{l.T, l.B, n}; }
    Shape state(int64_t n) const { return p.variant_.step ? Shape{l.B, n} : Shape{l.D, l.B, n}; }
    Shape saved(int64_t n) const { return p.variant_.step ? Shape{l.B, n} : Shape{l.D, l.T, l.B, n}; }

    size_t per_direction() const { return l.weights.size() / l.D; }

    Shape weight_shape(size_t i) const {
      const int64_t GH = gate_count(l.cell) * l.H;
      switch (i % per_direction()) {
        case 0: return {GH, l.I};
        case 1: return {GH, l.P};
        case 4: return {l.P, l.H};
        default: return {GH};
      }
    }

    void pack() {
      const int64_t bytes = packed_bytes(l.cell, dtype, l.I, l.H, p.variant_.project ? l.P : 0);
      for (int64_t d = 0; d < l.D; ++d) {
        blobs.emplace_back(bytes);
        const View blob = view_of(blobs.back(), {bytes});
        const auto first = weights.begin() + static_cast<int64_t>(d * per_direction());
        const auto last = first + static_cast<int64_t>(per_direction());
        pack_weights(l.cell, Views(first, last), blob, p.variant_.threads);
        packed.push_back(blob);
      }
    }

    Outputs forward() {
      const Views w(weights.begin(), weights.end());
      const LayerForward call{l.cell,
                              x,
                              h0,
                              c0,
                              w,
                              lengths,
                              y,
                              p.variant_.step ? y : h_n,
                              c_n,
                              gates,
                              cells,
                              packed,
                              p.variant_.threads};
      (p.variant_.step ? cell_forward : layer_forward)(call);
      const Buffer& h = p.variant_.step ? y : h_n;
      return {y.values(), h.values(), l.cell == Cell::lstm ? c_n.values() : Values{}};
    }

    Named backward(int wanted) {
      const bool first = p.variant_.batch_first, lstm = l.cell == Cell::lstm;
      Buffer dy, dh_n, dc_n, dx, dh0, dc0;
      if (p.variant_.dy) dy = Buffer(dtype, sequence(l.D * l.P), p.dy_, first);
      if (!p.variant_.step) dh_n = Buffer(dtype, state(l.P), p.dh_n_);
      if (lstm) dc_n = Buffer(dtype, state(l.H), p.dc_n_);
      if (wanted & kX) dx = Buffer(dtype, sequence(l.I), first);
      if (wanted & kStates && p.variant_.states) {
        dh0 = Buffer(dtype, state(l.P));
        if (lstm) dc0 = Buffer(dtype, state(l.H));
      }
      std::vector<Buffer> dweights(weights.size());
      for (size_t i = 0; i < weights.size() && wanted & kWeights; ++i)
        if (!l.weights[i].empty()) dweights[i] = Buffer(dtype, weight_shape(i));
      const Views w(weights.begin(), weights.end()), dw(dweights.begin(), dweights.end());
      const LayerBackward call{l.cell,
                               dy,
                               dh_n,
                               dc_n,
                               x,
                               h0,
                               c0,
                               w,
                               lengths,
                               y,
                               gates,
                               cells,
                               dx,
                               dh0,
                               dc0,
                               dw,
                               p.variant_.threads};
      (p.variant_.step ? cell_backward : layer_backward)(call);
      Named result;
      const auto keep = [&](const std::string& what, const Buffer& b) {
        if (View(b).present) result[what] = b.values();
      };
      keep("dx", dx);
      keep("dh0", dh0);
      keep("dc0", dc0);
      for (size_t i = 0; i < dweights.size(); ++i) keep(weight_name(i), dweights[i]);
      return result;
    }

    const Problem& p;
    Dtype dtype;
    const Layer& l;
    Buffer x, h0, c0, y, h_n, c_n, gates, cells;
    std::vector<Buffer> weights;
    std::vector<Blob> blobs;
    Views packed;
    View lengths;
  };

  Values draw(int64_t n, double range) { return test::draw(random_, n, range); }

  double loss() const {
    const Outputs out = reference(layer_);
    double sum = 0;
    for (size_t i = 0; i < dy_.size(); ++i) sum += dy_[i] * out.y[i];
    for (size_t i = 0; i < dh_n_.size(); ++i) sum += dh_n_[i] * out.h_n[i];
    for (size_t i = 0; i < dc_n_.size(); ++i) sum += dc_n_[i] * out.c_n[i];
    return sum;
  }

  Variant variant_;
  Layer layer_;
  Values dy_, dh_n_, dc_n_;
  std::mt19937 random_{0};
};

std::string compare_gradients(const Named& got, const Named& want, double limit) {
  for (const auto& [what, values] : got) {
    const std::string wrong = compare(what, values, want.at(what), limit, 1e-3);
    if (!wrong.empty()) return wrong;
  }
  return "";
}

// The same by the root mean square. Rounded to 16 bits, a relu unit near its corner may fall on the other
// side and take single gradients with it.
std::string compare_mean(const Named& got, const Named& want, double limit) {
  for (const auto& [what, values] : got) {
    double error = 0, scale = 1e-6;
    for (size_t i = 0; i < values.size(); ++i) {
      error += (values[i] - want.at(what)[i]) * (values[i] - want.at(what)[i]);
      scale += want.at(what)[i] * want.at(what)[i];
    }
    const double rms = std::sqrt(error / scale);
    if (!(rms <= limit)) return what + ": off by " + std::to_string(rms) + " RMS";
  }
  return "";
}

void check_case(Report& report, const std::string& label, Problem problem) {
  constexpr Dtype dtypes[] = {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16};
  const Outputs want = reference(problem.layer());
  for (Dtype dtype : dtypes) {
    constexpr const char* modes[] = {"training", "inference", "packed inference"};
    for (Mode mode : {Mode::train, Mode::infer, Mode::packed})
      report.run(label + name(dtype) + " " + modes[static_cast<int>(mode)],
                 [&] { return compare(problem.forward(dtype, mode), want, tolerance(dtype, false)); });
  }

  const double first = problem.begin_with(0);
  for (double spoilt : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    problem.begin_with(spoilt);
    const Values y = reference(problem.layer()).y;
    for (Dtype dtype : dtypes)
      report.run(label + name(dtype) + " from " + std::to_string(spoilt), [&] {
        return compare_not_finite(problem.forward(dtype, Mode::infer).y, y, tolerance(dtype, false));
      });
  }
  problem.begin_with(first);

  Named oracle;
  report.run(label + "float64 backward", [&] {
    oracle = problem.backward(Dtype::f64, kAll);
    return std::string();
  });
  for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
    report.run(label + name(dtype) + " backward", [&] {
      const bool mean = problem.layer().cell == Cell::rnn_relu && dtype != Dtype::f32;
      return mean ? compare_mean(problem.backward(dtype, kAll), oracle, 4 * tolerance(dtype, true))
                  : compare_gradients(problem.backward(dtype, kAll), oracle, tolerance(dtype, true));
    });
  for (int wanted : {kX + 0, kStates + 0, kWeights + 0})
    report.run(label + "part of the gradients", [&] {
      return compare_gradients(problem.backward(Dtype::f32, wanted), oracle, tolerance(Dtype::f32, true));
    });

  problem.jitter();
  report.run(label + "float64 gradients", [&] {
    const Named gradients = problem.backward(Dtype::f64, kAll);
    const auto [direction, derivative] = problem.directional();
    double dot = 0, norm = 0;
    for (const auto& [input, along] : direction) {
      const Values& gradient = gradients.at(input);
      for (size_t i = 0; i < gradient.size(); ++i) {
        dot += gradient[i] * along[i];
        norm += gradient[i] * gradient[i];
      }
    }
    // The difference quotient is good to 1e-8 or so; a lost step or element would show in the first digits.
    const double scale = std::max({std::fabs(derivative), std::sqrt(norm), 1.0});
    if (std::fabs(dot - derivative) <= 1e-6 * scale) return std::string();
    return "along a direction: got " + std::to_string(dot) + ", want " + std::to_string(derivative);
  });
}

struct Shape {
  int64_t I, H, B, T;
};

Report check_all(const std::vector<Shape>& shapes) {
  constexpr std::pair<Cell, const char*> cells[] = {
      {Cell::lstm, "lstm"}, {Cell::gru, "gru"}, {Cell::rnn_tanh, "rnn tanh"}, {Cell::rnn_relu, "rnn relu"}};
  Report report;
  for (const auto& [I, H, B, T] : shapes) {
    for (const auto& [cell, cell_name] : cells) {
      for (const Variant& variant : kVariants) {
        if (variant.project && (cell != Cell::lstm || H == 1)) continue;
        char label[160];
        std::snprintf(label, sizeof label, "%s I=%d H=%d B=%d T=%d, %s: ", cell_name, static_cast<int>(I),
                      static_cast<int>(H), static_cast<int>(B), static_cast<int>(T), variant.name);
        check_case(report, label, Problem(cell, variant, I, H, B, T));
      }
    }
    check_int8(report, {T, B, I, H});
    check_streams(report, {T, B, I, H});
  }
  check_mlp(report);
  check_convolutions(report);
  return report;
}

// Each of `threads` threads checks all of it.
int run_all(int threads) {
  std::vector<Shape> shapes;
  for (Shape s; std::cin >> s.I >> s.H >> s.B >> s.T;) shapes.push_back(s);
  std::vector<Report> reports(static_cast<size_t>(threads));
  std::vector<std::thread> others;
  for (size_t i = 1; i < reports.size(); ++i) others.emplace_back([&, i] { reports[i] = check_all(shapes); });
  reports[0] = check_all(shapes);
  for (std::thread& t : others) t.join();
  for (size_t i = 1; i < reports.size(); ++i) reports[0].add(reports[i]);
  check_int8_sets(reports[0]);
  return reports[0].close();
}

}  // namespace
}  // namespace fusegen::test

// engine_test [threads]
int main(int count, char** arguments) {
  return fusegen::test::run_all(count > 1 ? std::max(1, std::atoi(arguments[1])) : 1);
}
