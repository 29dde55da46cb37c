// The discriminator step without Python, for the sanitizers. Its values are checked against autograd by the
// Python tests; here float64 gradients are held against the difference quotient of its own loss, and the
// other dtypes against float64.
#include <random>

#include "buffer.h"
#include "ops/cpu/discriminator.h"
#include "report.h"

namespace fusegen::test {
namespace {

using Values = std::vector<double>;

struct Net {
  int64_t real, fake;
  std::vector<int64_t> widths;  // of the inputs, of each layer
  int threads;
};

const Net kNets[] = {
    {1, 1, {1, 1}, 1},          {5, 3, {7, 1}, 2},           {3, 5, {33, 1, 1}, 2},
    {9, 9, {13, 40, 70, 1}, 2}, {17, 4, {65, 130, 9, 1}, 3}, {40, 33, {200, 129, 1}, 2},
};

constexpr const char* kLosses[] = {"non_saturating", "minimax",     "hinge",
                                   "least_squares",  "wasserstein", "relativistic"};

constexpr const char* kActivations[] = {"gelu", "piecewise_linear", "tanh", "silu", "gelu_tanh",
                                        "elu",  "sigmoid"};

class Problem {
public:
  // `varied`: smooth activations among the others, and dropout before every layer.
  Problem(const Net& net, const char* loss, bool generator, const double (&penalties)[3], bool varied)
      : net_(net),
        loss_(loss),
        generator_(generator),
        varied_(varied),
        penalties_{penalties[0], penalties[1], penalties[2]} {
    const double gp = penalties[2];
    const int64_t n0 = net.widths[0];
    inputs_ = {generator && std::string(loss) != "relativistic" ? Values{} : draw(net.real * n0),
               draw(net.fake * n0)};
    if (gp > 0) mixed_ = draw(net.real * n0);
    for (size_t l = 1; l < net.widths.size(); ++l) {
      inputs_.push_back(draw(net.widths[l] * net.widths[l - 1]));
      inputs_.push_back(l % 2 ? draw(net.widths[l]) : Values{});
    }
  }

  struct Result {
    double loss;
    Values logits;
    std::vector<Values> gradients;  // of real, fake, then each weight and bias; empty: not wanted
  };

  // `without` leaves out the gradient of that input.
  Result run(Dtype dtype, size_t without) const {
    const int64_t n0 = net_.widths[0];
    const auto tensor = [&](size_t i) {
      return inputs_[i].empty() ? Buffer() : Buffer(dtype, shape(i), inputs_[i]);
    };
    std::vector<Buffer> held;
    for (size_t i = 0; i < inputs_.size(); ++i) held.push_back(tensor(i));
    Buffer mixed = mixed_.empty() ? Buffer() : Buffer(dtype, {net_.real, n0}, mixed_);
    MlpCall call{loss_,
                 generator_,
                 1,
                 penalties_[0],
                 penalties_[1],
                 penalties_[2],
                 0,
                 0,
                 0,
                 held[0],
                 held[1],
                 mixed,
                 {},
                 {},
                 {},
                 {},
                 {},
                 {},
                 {},
                 {},
                 {},
                 net_.threads};
    for (size_t i = 2; i < held.size(); i += 2) {
      call.weights.push_back(held[i]);
      call.biases.push_back(held[i + 1]);
      if (i > 2) call.slopes.push_back(i % 4 ? 0.2 : 0);
      if (i > 2 && varied_) call.activations.push_back(kActivations[(i / 2 + net_.widths[0]) % 7]);
      if (varied_) call.dropouts.push_back(0.25);
    }
    const int64_t key = 0x123456789abcdef;
    if (varied_) call.key = key_of(key);
    call.weight_gradients = !generator_;
    call.dx_real = !generator_ && without != 0 && !inputs_[0].empty();
    call.dx_fake = without != 1;

    std::vector<unsigned char> bytes(static_cast<size_t>(mlp_saved_bytes(call)));
    View saved;
    saved.data = bytes.data();
    saved.present = true;
    saved.dtype = ElementType::u8;
    saved.ndim = 1;
    saved.shape[0] = static_cast<int64_t>(bytes.size());
    saved.strides[0] = 1;
    Buffer loss(dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32, {});
    Buffer scalars(Dtype::f64, {kMlpScalars}),
        logits(dtype, {net_.fake + (inputs_[0].empty() ? 0 : net_.real)});
    mlp_forward(call, loss, scalars, logits, saved);

    std::vector<Buffer> out;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const bool wanted = i == 0 ? call.dx_real : i == 1 ? call.dx_fake : !generator_ && i != without;
      out.push_back(wanted && !inputs_[i].empty() ? Buffer(dtype, shape(i)) : Buffer());
    }
    Views dweights, dbiases;
    for (size_t i = 2; i < out.size(); i += 2) {
      dweights.push_back(out[i]);
      dbiases.push_back(out[i + 1]);
    }
    mlp_backward(call, 0.5, saved, {dweights, dbiases, out[0], out[1]});
    Result result{loss.values()[0], logits.values(), {}};
    for (const Buffer& b : out) result.gradients.push_back(View(b).present ? b.values() : Values{});
    return result;
  }

  // Half the loss's derivative along a direction of all inputs whose gradient is wanted, and that direction.
  std::pair<std::vector<Values>, double> directional() {
    std::vector<Values> direction;
    for (size_t i = 0; i < inputs_.size(); ++i)
      direction.push_back(inputs_[i].empty() || (generator_ && i != 1)
                              ? Values{}
                              : draw(static_cast<int64_t>(inputs_[i].size())));
    const std::vector<Values> at = inputs_;
    constexpr double step = 1e-7;  // small: the network has corners
    double loss[2];
    for (int side = 0; side < 2; ++side) {
      for (size_t i = 0; i < inputs_.size(); ++i)
        for (size_t k = 0; k < direction[i].size(); ++k)
          inputs_[i][k] += (side ? -step : step) * direction[i][k];
      loss[side] = run(Dtype::f64, SIZE_MAX).loss;
      inputs_ = at;
    }
    return {direction, (loss[0] - loss[1]) / (4 * step)};
  }

  // Off the grid, so that no unit stands exactly at its corner.
  void jitter() {
    std::normal_distribution<double> noise(0, 1e-3);
    for (Values& values : inputs_)
      for (double& v : values) v += noise(random_);
  }

private:
  static View key_of(const int64_t& key) {
    View v;
    v.data = const_cast<int64_t*>(&key);
    v.present = true;
    v.dtype = ElementType::i64;
    v.device_type = 1;
    return v;
  }
  std::vector<int64_t> shape(size_t i) const {
    if (i < 2) return {i ? net_.fake : net_.real, net_.widths[0]};
    const size_t l = i / 2;
    return i % 2 ? std::vector<int64_t>{net_.widths[l]}
                 : std::vector<int64_t>{net_.widths[l], net_.widths[l - 1]};
  }
  // Exact in every dtype.
  Values draw(int64_t n) {
    std::uniform_int_distribution<int> pick(-32, 32);
    Values v(static_cast<size_t>(n));
    for (double& e : v) e = pick(random_) / 64.0;
    return v;
  }

  const Net& net_;
  const char* loss_;
  bool generator_, varied_;
  double penalties_[3];
  std::vector<Values> inputs_;  // real, fake, W_1, b_1, W_2, ...
  Values mixed_;
  std::mt19937 random_{1};
};

std::string check_gradients(Problem& problem) {
  const auto exact = problem.run(Dtype::f64, SIZE_MAX);
  const auto [direction, derivative] = problem.directional();
  double dot = 0, norm = 0;
  for (size_t i = 0; i < direction.size(); ++i)
    for (size_t k = 0; k < direction[i].size(); ++k) {
      dot += exact.gradients[i][k] * direction[i][k];
      norm += exact.gradients[i][k] * exact.gradients[i][k];
    }
  const double scale = std::max({std::fabs(derivative), std::sqrt(norm), 1.0});
  if (std::fabs(dot - derivative) <= 1e-5 * scale) return "";
  return "along a direction: got " + std::to_string(dot) + ", want " + std::to_string(derivative);
}

std::string check_dtype(const Problem& problem, Dtype dtype, size_t without) {
  const auto want = problem.run(Dtype::f64, SIZE_MAX), got = problem.run(dtype, without);
  const double limit = dtype == Dtype::f32 ? 1e-4 : 5e-2;
  if (!(std::fabs(got.loss - want.loss) <= limit * std::max(1.0, std::fabs(want.loss))))
    return "loss " + std::to_string(got.loss);
  for (size_t i = 0; i < want.gradients.size(); ++i) {
    if (got.gradients[i].empty()) continue;
    double error = 0, scale = 1e-2;
    for (size_t k = 0; k < got.gradients[i].size(); ++k) {
      const double e = got.gradients[i][k] - want.gradients[i][k];
      error += e * e;
      scale += want.gradients[i][k] * want.gradients[i][k];
    }
    if (!(std::sqrt(error / scale) <= limit))
      return "gradient " + std::to_string(i) + " off by " + std::to_string(std::sqrt(error / scale));
  }
  return "";
}

}  // namespace

void check_mlp(Report& report) {
  constexpr double penalties[][3] = {{0, 0, 0}, {10, 0, 0}, {0, 3, 0}, {1, 2, 5}};
  for (const Net& net : kNets)
    for (const char* loss : kLosses)
      for (bool generator : {false, true})
        for (const auto& weights : penalties) {
          const auto& [r1, r2, gp] = weights;
          const bool paired = gp > 0 || std::string(loss) == "relativistic";
          if ((paired && net.real != net.fake) || (generator && r1 + r2 + gp > 0)) continue;
          for (bool varied : {false, true}) {
            // of the losses, which come after all else, two
            if (varied && loss != kLosses[0] && loss != kLosses[5]) continue;
            Problem problem(net, loss, generator, weights, varied);
            const std::string label = std::string(generator ? "generator " : "discriminator ") +
                                      (varied ? "varied " : "") + loss + " r1=" + std::to_string(r1) +
                                      " r2=" + std::to_string(r2) + " gp=" + std::to_string(gp) + ", " +
                                      std::to_string(net.real) + "+" + std::to_string(net.fake) +
                                      " samples of " + std::to_string(net.widths[0]) + ": ";
            for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16})
              for (size_t without : {size_t{0}, size_t{1}, size_t{2}, SIZE_MAX})
                report.run(label + "dtype " + std::to_string(static_cast<int>(dtype)),
                           [&] { return check_dtype(problem, dtype, without); });
            problem.jitter();
            report.run(label + "float64 gradients", [&] { return check_gradients(problem); });
          }
        }
}

}  // namespace fusegen::test
