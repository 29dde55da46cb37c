// Convolutions and batch norms without Python, for the sanitizers, held against loops in double.
#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "buffer.h"
#include "ops/cpu/convolution.h"
#include "report.h"

namespace fusegen::test {
namespace {

using Values = std::vector<double>;

struct Net {
  int64_t blocks, C, O, groups, in[2], kernel[2], stride[2], padding[2], dilation[2];
  int threads;
};

constexpr Net kNets[] = {
    {1, 1, 1, 1, {1, 1}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1},
    {2, 3, 7, 1, {8, 6}, {4, 4}, {2, 2}, {1, 1}, {1, 1}, 2},
    {1, 40, 70, 1, {3, 5}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 2},
    {1, 300, 5, 1, {2, 2}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 3},
    {1, 24, 16, 2, {5, 9}, {2, 3}, {3, 2}, {2, 0}, {1, 2}, 2},
    {2, 9, 1, 1, {4, 4}, {4, 4}, {1, 1}, {0, 0}, {1, 1}, 2},
    {1, 6, 12, 3, {1, 11}, {1, 3}, {1, 1}, {0, 2}, {1, 2}, 1},
    {1, 5, 4, 1, {3, 3}, {5, 5}, {2, 2}, {3, 3}, {1, 1}, 2},
};

class Problem {
public:
  Problem(const Net& net, Dtype dtype, int64_t vectors)
      : net_(net),
        dtype_(dtype),
        width_(vectors * conv_lanes(dtype)),
        g_{{net.in[0], net.in[1]},
           {net.stride[0], net.stride[1]},
           {net.padding[0], net.padding[1]},
           {net.dilation[0], net.dilation[1]},
           net.groups,
           net.threads} {
    for (int i = 0; i < 2; ++i)
      out_[i] =
          (net.in[i] + 2 * net.padding[i] - net.dilation[i] * (net.kernel[i] - 1) - 1) / net.stride[i] + 1;
    x_ = draw(net.blocks * net.in[0] * net.in[1] * net.C * width_);
    W_ = draw(net.O * net.C / net.groups * net.kernel[0] * net.kernel[1]);
    b_ = draw(net.O);
    dy_ = draw(net.blocks * out_[0] * out_[1] * net.O * width_);
  }

  std::string passes() const {
    const Buffer x(dtype_, x_shape(), x_), W(dtype_, w_shape(), W_), b(dtype_, {net_.O}, b_),
        dy(dtype_, y_shape(), dy_);
    Buffer y(dtype_, y_shape()), dx(dtype_, x_shape()), dW(dtype_, w_shape());
    conv_forward(g_, x, W, b, 0.2, y);
    conv_input_gradient(g_, dy, W, x, 0.2, dx);
    conv_weight_gradient(g_, dy, x, dW);
    Values want_y(dy_.size()), want_dx(x_.size()), want_dW(W_.size());
    for (size_t i = 0; i < want_y.size(); ++i) want_y[i] = b_[i / width_ % net_.O];
    for_each_product([&](size_t x_at, size_t w_at, size_t y_at) {
      want_y[y_at] += W_[w_at] * x_[x_at];
      want_dx[x_at] += W_[w_at] * dy_[y_at];
      want_dW[w_at] += dy_[y_at] * x_[x_at];
    });
    for (double& v : want_y) v = v < 0 ? 0.2 * v : v;
    for (size_t i = 0; i < want_dx.size(); ++i) want_dx[i] *= x_[i] > 0 ? 1 : 0.2;
    return differs("y", y, want_y) + differs("dx", dx, want_dx) + differs("dW", dW, want_dW);
  }

  // Of x, the samples past n left out: they are zero in what is written.
  std::string norm(int64_t n) const {
    const int64_t pixels = net_.in[0] * net_.in[1], C = net_.C;
    const BatchNormCall call{n, 1e-3, 0.2, net_.threads};
    const Values weight = draw(C), bias = draw(C), dy = draw(static_cast<int64_t>(x_.size()));
    const std::vector<int64_t> shape{net_.blocks, pixels, C, width_};
    const Buffer x(dtype_, shape, x_), w(dtype_, {C}, weight), b(dtype_, {C}, bias), g(dtype_, shape, dy);
    Buffer y(dtype_, shape), mean(dtype_, {C}), var(dtype_, {C}), dx(dtype_, shape), dw(dtype_, {C}),
        db(dtype_, {C});
    batch_norm_forward(call, {x, w, b, y, mean, var});
    batch_norm_backward(call, {g, y, x, w, mean, var, dx, dw, db});
    Values want_mean(C), want_var(C), want_dx(x_.size()), want_dw(C), want_db(C), h(x_.size()), dz(x_.size());
    const double count = static_cast<double>(n * pixels);
    const auto each = [&](const std::function<void(int64_t, size_t)>& f) {
      for (size_t i = 0; i < x_.size(); ++i)
        if (static_cast<int64_t>(i) / (pixels * C * width_) * width_ + static_cast<int64_t>(i) % width_ < n)
          f(static_cast<int64_t>(i) / width_ % C, i);
    };
    each([&](int64_t c, size_t i) { want_mean[c] += x_[i] / count; });
    each(
        [&](int64_t c, size_t i) { want_var[c] += (x_[i] - want_mean[c]) * (x_[i] - want_mean[c]) / count; });
    each([&](int64_t c, size_t i) {
      h[i] = (x_[i] - want_mean[c]) / std::sqrt(want_var[c] + 1e-3);
      dz[i] = dy[i] * (h[i] * weight[c] + bias[c] > 0 ? 1 : 0.2);
      want_db[c] += dz[i];
      want_dw[c] += dz[i] * h[i];
    });
    each([&](int64_t c, size_t i) {
      want_dx[i] = weight[c] / std::sqrt(want_var[c] + 1e-3) *
                   (dz[i] - want_db[c] / count - h[i] * want_dw[c] / count);
    });
    Values want_y(x_.size());
    each([&](int64_t c, size_t i) {
      const double z = h[i] * weight[c] + bias[c];
      want_y[i] = z < 0 ? 0.2 * z : z;
    });
    return differs("norm's y", y, want_y) + differs("mean", mean, want_mean) + differs("var", var, want_var) +
           differs("norm's dx", dx, want_dx) + differs("dweight", dw, want_dw) +
           differs("dbias", db, want_db);
  }

  int64_t width() const { return width_; }

private:
  std::vector<int64_t> x_shape() const { return {net_.blocks, net_.in[0] * net_.in[1], net_.C, width_}; }
  std::vector<int64_t> y_shape() const { return {net_.blocks, out_[0] * out_[1], net_.O, width_}; }
  std::vector<int64_t> w_shape() const {
    return {net_.O, net_.C / net_.groups, net_.kernel[0], net_.kernel[1]};
  }

  // f(index of x, of W, of y) for every multiplication of the convolution.
  template <class F>
  void for_each_product(const F& f) const {
    const int64_t Cg = net_.C / net_.groups, Og = net_.O / net_.groups;
    for (int64_t block = 0; block < net_.blocks; ++block)
      for (int64_t o = 0; o < net_.O; ++o)
        for (int64_t c = 0; c < Cg; ++c)
          for (int64_t p = 0; p < out_[0] * out_[1]; ++p)
            for (int64_t t = 0; t < net_.kernel[0] * net_.kernel[1]; ++t) {
              const int64_t i =
                  p / out_[1] * net_.stride[0] - net_.padding[0] + t / net_.kernel[1] * net_.dilation[0];
              const int64_t j =
                  p % out_[1] * net_.stride[1] - net_.padding[1] + t % net_.kernel[1] * net_.dilation[1];
              if (i < 0 || j < 0 || i >= net_.in[0] || j >= net_.in[1]) continue;
              for (int64_t n = 0; n < width_; ++n)
                f(((block * net_.in[0] * net_.in[1] + i * net_.in[1] + j) * net_.C + o / Og * Cg + c) *
                          width_ +
                      n,
                  (o * Cg + c) * net_.kernel[0] * net_.kernel[1] + t,
                  ((block * out_[0] * out_[1] + p) * net_.O + o) * width_ + n);
            }
  }

  std::string differs(const char* what, const Buffer& got, const Values& want) const {
    const double limit = dtype_ == Dtype::f64 ? 1e-11 : 2e-5;
    const Values values = got.values();
    double scale = 1e-2, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      scale = std::max(scale, std::fabs(want[i]));
      const double error = std::fabs(values[i] - want[i]);
      worst = error <= worst ? worst : error;
    }
    return worst <= limit * scale ? ""
                                  : std::string(what) + " off by " + std::to_string(worst / scale) + "; ";
  }

  // Exact in float32.
  Values draw(int64_t n) const {
    std::uniform_int_distribution<int> pick(-32, 32);
    Values v(static_cast<size_t>(n));
    for (double& e : v) e = pick(random_) / 64.0 + 1.0 / 256;
    return v;
  }

  const Net& net_;
  const Dtype dtype_;
  const int64_t width_;
  const ConvGeometry g_;
  int64_t out_[2];
  Values x_, W_, b_, dy_;
  mutable std::mt19937 random_{1};
};

}  // namespace

void check_convolutions(Report& report) {
  for (const Net& net : kNets)
    for (Dtype dtype : {Dtype::f32, Dtype::f64})
      for (int64_t vectors = 1; vectors <= 4; ++vectors) {
        const Problem problem(net, dtype, vectors);
        const std::string label = "convolution of " + std::to_string(net.C) + " to " + std::to_string(net.O) +
                                  " channels, dtype " + std::to_string(static_cast<int>(dtype)) + ", " +
                                  std::to_string(vectors) + " vectors: ";
        report.run(label + "passes", [&] { return problem.passes(); });
        const int64_t all = net.blocks * problem.width();
        for (int64_t n : {all, all - 1, all - problem.width() + 1})
          report.run(label + "norm of " + std::to_string(n), [&] { return problem.norm(n); });
      }
}

}  // namespace fusegen::test
