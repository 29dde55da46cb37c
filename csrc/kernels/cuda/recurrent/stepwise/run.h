// From a pass to its launches, one or with a projection two a step.
#pragma once
#include <device/launch.h>

#include "backward.h"
#include "forward.h"
#include "pass.h"

namespace fusegen::cuda::stepwise {

template <class Format>
constexpr bool kSplit = std::is_same_v<Format, device::FormatF32>;

template <class Pass>
using Kernel = void (*)(Arguments<Pass>);

template <class C, class T, class Fmt>
Kernel<ForwardPass> kernel_with(const ForwardPass&, int rows) {
  return rows == kSmallRows ? step_forward_kernel<C, T, Fmt, kSmallRows>
                            : step_forward_kernel<C, T, Fmt, large_rows(C::kGates, kSplit<Fmt>)>;
}
template <class C, class T, class Fmt>
Kernel<BackwardPass> kernel_with(const BackwardPass&, int rows) {
  return rows == kSmallRows ? step_backward_kernel<C, T, Fmt, kSmallRows>
                            : step_backward_kernel<C, T, Fmt, large_rows(1, kSplit<Fmt>)>;
}

template <class Pass>
struct Cells;
template <>
struct Cells<ForwardPass> {
  using L = Lstm;
  using G = Gru;
  using R = Rnn;
};
template <>
struct Cells<BackwardPass> {
  using L = LstmGradient;
  using G = GruGradient;
  using R = RnnGradient;
};

template <class T, class Fmt, class Pass>
Kernel<Pass> kernel_of(const Pass& pass, Half half, int rows) {
  using C = Cells<Pass>;
  if (half == Half::projection) return kernel_with<typename C::R, T, Fmt>(pass, rows);
  switch (pass.cell) {
    case Cell::lstm: return kernel_with<typename C::L, T, Fmt>(pass, rows);
    case Cell::gru: return kernel_with<typename C::G, T, Fmt>(pass, rows);
    case Cell::rnn_tanh:
    case Cell::rnn_relu: break;
  }
  return kernel_with<typename C::R, T, Fmt>(pass, rows);
}

// A launch of every step, made once: what moves from step to step are pointers into tensors.
template <class T, class Fmt, class Pass>
class Launches {
public:
  Launches(const Pass& pass, Half half, const Product& product, const void* const (&weight)[2]) {
    const Plan plan = choose(cuda::device(pass.device), product);
    const Workspace w = workspace(cuda::device(pass.device), pass);
    auto* memory = static_cast<unsigned char*>(pass.workspace);
    a_.pass = pass;
    a_.half = half;
    a_.tiles = plan.blocks;
    a_.splits = plan.k_splits;
    a_.groups = plan.groups;
    a_.weight = {{weight[0], weight[1]}, product.units, product.K, true};
    for (int d = 0; d < pass.D; ++d)
      a_.weight.aligned &= fits(weight[d], pass.backward ? product.units : product.K);
    a_.partials = {reinterpret_cast<float*>(memory + w.partials),
                   reinterpret_cast<uint32_t*>(memory + w.arrivals)};
    a_.carry = reinterpret_cast<float*>(memory + w.carry);
    a_.carry_h = reinterpret_cast<float*>(memory + w.masked);
    kernel_ = kernel_of<T, Fmt>(pass, half, 8 * plan.tiles);
    launch_ = {.blocks = plan.blocks * plan.k_splits * plan.groups * pass.D,
               .shared_bytes = plan.shared_bytes,
               .stream = pass.stream};
  }

  // What the steps multiply, as rows of [.., D, row] that lie `stride` numbers apart; `starts`: and h0.
  void multiply(int64_t stride, bool starts = false) {
    const Pass& pass = a_.pass;
    a_.vectors.stride = stride;
    a_.vectors.starts = starts;
    a_.vectors.first_stride = a_.weight.K;
    a_.vectors.aligned = stride * sizeof(T) % 16 == 0;
    for (int d = 0; d < pass.D && starts && pass.h0; ++d) {
      a_.vectors.first[d] = static_cast<const T*>(pass.h0) + static_cast<int64_t>(d) * pass.B * a_.weight.K;
      a_.vectors.aligned &= fits(a_.vectors.first[d], a_.weight.K);
    }
    if (starts && pass.boundaries.h) a_.vectors.aligned &= fits(pass.boundaries.h, a_.weight.K);
  }

  // from(d, t): rows of direction d at step t, which is one of the sequence's, or null.
  template <class From, class To>
  void start(int step, int step_of_vectors, const From& from, const To& to) {
    const int T_ = static_cast<int>(a_.pass.T);
    Arguments<Pass> now = a_;
    now.step = step;
    for (int d = 0; d < a_.pass.D; ++d) {
      const auto time = [&](int s) { return (d == 1) != a_.pass.backward ? T_ - 1 - s : s; };
      now.t[d] = time(step);
      const bool there = step_of_vectors >= 0;
      now.vectors.data[d] = there ? from(d, time(step_of_vectors)) : nullptr;
      now.vectors.aligned &= !there || fits(now.vectors.data[d], a_.weight.K);
      now.out[d] = to(d, now.t[d]);
    }
    if (step_of_vectors < 0 && !a_.vectors.starts) now.weight.K = 0;  // nothing to multiply yet
    device::launch(kernel_, launch_, now);
  }
  Arguments<Pass>& arguments() { return a_; }

private:
  static bool fits(const void* p, int64_t numbers) {
    return numbers * sizeof(T) % 16 == 0 && reinterpret_cast<uintptr_t>(p) % 16 == 0;
  }

  Arguments<Pass> a_{};
  Kernel<Pass> kernel_;
  device::Launch launch_;
};

// Row 0 of direction d at step t of [T,B,D,numbers].
template <class T>
T* rows_at(void* tensor, const Recurrence& pass, int d, int t, int64_t numbers) {
  return static_cast<T*>(tensor) + (static_cast<int64_t>(t) * pass.B * pass.D + d) * numbers;
}

template <class T, class Fmt>
void run_steps(const ForwardPass& pass, unsigned char* memory, const Workspace& w) {
  const Products products = products_of(pass);
  const bool projected = products.projected;
  const int64_t rows = static_cast<int64_t>(pass.D) * pass.P;
  const auto y_at = [&](int d, int t) { return rows_at<T>(pass.y, pass, d, t, pass.P); };
  const auto between = [&](int d, int) {
    return reinterpret_cast<T*>(memory + w.between) + static_cast<int64_t>(d) * pass.B * pass.H;
  };
  Launches<T, Fmt, ForwardPass> cell(pass, projected ? Half::cell : Half::both, products.cell, pass.R);
  const bool drops = pass.masked && pass.masks.state_dropout > 0;
  // Of h as R reads it, two copies by turns.
  T* const copies = reinterpret_cast<T*>(memory + w.masked);
  const auto copy_of = [&](int step) { return copies + step % 2 * (rows * pass.B); };
  const auto start = [&](auto& launches, int step, const auto& to) {
    if (!drops) return launches.start(step, step - 1, y_at, to);
    const auto read_at = [&](int d, int) {
      return copy_of(step) + static_cast<int64_t>(d) * pass.B * pass.P;
    };
    launches.start(step, step, read_at, to);
  };
  if (drops) {
    const int64_t blocks = (rows * pass.B + device::kThreads - 1) / device::kThreads;
    device::launch(start_masked_kernel<T>, {.blocks = static_cast<int>(blocks), .stream = pass.stream},
                   StartMasked{pass, copies});
    cell.multiply(pass.P);
  } else {
    cell.multiply(rows, true);
  }
  if (!projected) {
    cell.arguments().out_stride = rows;
    for (int step = 0; step < pass.T; ++step) {
      if (drops) cell.arguments().read_next = copy_of(step + 1);
      start(cell, step, y_at);
    }
    return;
  }
  ForwardPass second = pass;
  second.gx = nullptr;
  Launches<T, Fmt, ForwardPass> projection(second, Half::projection, products.projection, pass.W_hr);
  cell.arguments().out_stride = pass.H;
  projection.multiply(pass.H);
  projection.arguments().out_stride = rows;
  for (int step = 0; step < pass.T; ++step) {
    if (drops) projection.arguments().read_next = copy_of(step + 1);
    start(cell, step, between);
    projection.start(step, step, between, y_at);
  }
}

template <class T, class Fmt>
void run_steps(const BackwardPass& pass, unsigned char*, const Workspace&) {
  const Products products = products_of(pass);
  const int columns = saved_gates(pass.cell) ? 4 : 1;
  const int64_t row = static_cast<int64_t>(columns) * pass.H;
  const int skipped = pass.cell == Cell::gru ? pass.H : 0;  // n_x, which R has no part in
  const auto dgates_at = [&](int d, int t) { return rows_at<T>(pass.dgates, pass, d, t, row) + skipped; };
  const auto dh_at = [&](int d, int t) { return rows_at<T>(pass.dh, pass, d, t, pass.P); };
  const auto nowhere = [](int, int) { return static_cast<void*>(nullptr); };
  const int last = static_cast<int>(pass.T) - (!pass.dh0 && !pass.dreset_h);
  if (!products.projected) {
    Launches<T, Fmt, BackwardPass> whole(pass, Half::both, products.cell, pass.R);
    whole.multiply(pass.D * row);
    for (int step = 0; step <= last; ++step) whole.start(step, step - 1, dgates_at, nowhere);
    return;
  }
  Launches<T, Fmt, BackwardPass> projection(pass, Half::projection, products.projection, pass.R),
      cell(pass, Half::cell, products.cell, pass.W_hr);
  projection.multiply(pass.D * row);
  cell.multiply(static_cast<int64_t>(pass.D) * pass.P);
  for (int step = 0; step <= last; ++step) {
    projection.start(step, step - 1, dgates_at, nowhere);
    if (step < pass.T) cell.start(step, step, dh_at, nowhere);
  }
}

template <class T, class Fmt, class Pass>
void run(const Pass& pass) {
  auto* memory = static_cast<unsigned char*>(pass.workspace);
  const Workspace w = workspace(cuda::device(pass.device), pass);
  device::zero(memory + w.arrivals, w.carry - w.arrivals, pass.stream);
  run_steps<T, Fmt>(pass, memory, w);
}

}  // namespace fusegen::cuda::stepwise
