// From a pass to its launches: of every step the product with R, then the rows.
#pragma once
#include <device/launch.h>

#include "backward.h"
#include "product.h"

namespace fusegen::cuda::normalised {

template <class Pass>
using RowKernel = void (*)(RowArguments<Pass>);

template <class T>
RowKernel<NormalisedForwardPass> row_kernel(const NormalisedForwardPass& pass) {
  return pass.cell == Cell::lstm  ? rows_forward_kernel<Lstm, T>
         : pass.cell == Cell::gru ? rows_forward_kernel<Gru, T>
                                  : rows_forward_kernel<Rnn, T>;
}
template <class T>
RowKernel<NormalisedBackwardPass> row_kernel(const NormalisedBackwardPass& pass) {
  return pass.cell == Cell::lstm  ? rows_backward_kernel<Lstm, T>
         : pass.cell == Cell::gru ? rows_backward_kernel<Gru, T>
                                  : rows_backward_kernel<Rnn, T>;
}

// The launches of every step, made once.
template <class T, class Fmt, class Pass>
class Launches {
public:
  static constexpr bool kBackward = std::is_same_v<Pass, NormalisedBackwardPass>;

  explicit Launches(const Pass& pass)
      : memory_(static_cast<unsigned char*>(pass.workspace)),
        w_(workspace(pass.steps, pass, pass.norm)),
        rows_(row_kernel<T>(pass)) {
    device::zero(memory_, w_.gates, pass.stream);
    const auto floats = [&](int64_t at) { return reinterpret_cast<float*>(memory_ + at); };
    const int m = pass.H / pass.blocks, G = gate_count(pass.cell);
    a_.pass = pass;
    a_.places = {G, m, ((uint64_t{1} << 40) + m - 1) / m};
    a_.log_lanes = pass.steps.log_lanes;
    const bool two = norm_groups(pass.norm, pass.cell) == 2;
    a_.of_group[0] = 1.0f / static_cast<float>((two ? 2 : G) * pass.H);
    a_.of_group[1] = a_.of_state = 1.0f / static_cast<float>(pass.H);
    a_.gates = floats(w_.gates);
    a_.read = memory_ + w_.read;
    a_.c = floats(w_.c);
    a_.dh = floats(w_.dh);
    a_.sums = floats(w_.sums);

    const stepwise::Product p = product_of(pass, pass.blocks);
    product_.pass = {pass.D, pass.B, pass.blocks, pass.steps.tiles / pass.blocks,
                     kBackward ? a_.dh : a_.gates};
    product_.tiles = pass.steps.tiles;
    product_.splits = pass.steps.splits;
    product_.groups = pass.steps.groups;
    product_.weight = {{pass.R[0], pass.R[1]}, p.units, p.K, true};
    for (int d = 0; d < pass.D; ++d) product_.weight.aligned &= fits(pass.R[d], kBackward ? p.units : p.K);
    product_.partials = {floats(w_.partials), reinterpret_cast<uint32_t*>(memory_ + w_.arrivals)};
  }

  // vectors(d): row 0 of direction d; `stride` numbers apart, each of all blocks.
  template <class VectorsOf>
  void multiply(int64_t stride, const VectorsOf& vectors) {
    product_.vectors.stride = stride;
    product_.vectors.aligned = fits(nullptr, stride) && fits(nullptr, product_.weight.K);
    for (int d = 0; d < a_.pass.D; ++d) {
      product_.vectors.data[d] = vectors(d);
      product_.vectors.aligned &= fits(vectors(d), 0);
    }
    const Pass& pass = a_.pass;
    device::launch(block_product_kernel<T, Fmt, kBackward>,
                   {.blocks = product_.tiles * product_.splits * product_.groups * pass.D,
                    .shared_bytes = ProductTile::kShared,
                    .stream = pass.stream},
                   product_);
  }

  void rows(int step) {
    const Pass& pass = a_.pass;
    a_.step = step;
    for (int d = 0; d < pass.D; ++d) a_.t[d] = time(d, step);
    const int of_block = device::kThreads >> a_.log_lanes;
    device::launch(
        rows_,
        {.blocks = ceil_div(pass.D * pass.B, of_block), .shared_bytes = kRowShared, .stream = pass.stream},
        a_);
  }

  // A lane for each of n numbers.
  template <class Arguments>
  void each(void (*kernel)(Arguments), int64_t n, const Arguments& arguments) {
    device::launch(kernel, {.blocks = ceil_div(n, device::kThreads), .stream = a_.pass.stream}, arguments);
  }

  // When direction d's step is.
  int time(int d, int step) const {
    return (d == 1) != kBackward ? static_cast<int>(a_.pass.T) - 1 - step : step;
  }
  const RowArguments<Pass>& arguments() const { return a_; }

private:
  static bool fits(const void* p, int64_t numbers) {
    return numbers * sizeof(T) % 16 == 0 && reinterpret_cast<uintptr_t>(p) % 16 == 0;
  }

  unsigned char* memory_;
  Workspace w_;
  RowKernel<Pass> rows_;
  RowArguments<Pass> a_{};
  ProductArguments product_{};
};

template <class T, class Fmt>
void run_forward(const NormalisedForwardPass& pass) {
  Launches<T, Fmt, NormalisedForwardPass> launches(pass);
  const RowArguments<NormalisedForwardPass>& a = launches.arguments();
  const int64_t of_direction = static_cast<int64_t>(pass.B) * pass.H;
  launches.each(start_rows_kernel<T>, pass.D * of_direction, StartArguments{pass, a.read, a.c});
  for (int step = 0; step < pass.T; ++step) {
    launches.multiply(pass.H, [&](int d) { return static_cast<const T*>(a.read) + d * of_direction; });
    launches.rows(step);
  }
}

template <class T, class Fmt>
void run_backward(const NormalisedBackwardPass& pass) {
  Launches<T, Fmt, NormalisedBackwardPass> launches(pass);
  const RowArguments<NormalisedBackwardPass>& a = launches.arguments();
  const int64_t row = static_cast<int64_t>(gate_count(pass.cell)) * pass.H;
  const T* const part = static_cast<const T*>(pass.dh_part ? pass.dh_part : pass.dx_part);
  const bool leaves = pass.dh0 || pass.dc0 || pass.dreset_h || pass.dreset_c;
  for (int step = 0; step < pass.T + leaves; ++step) {
    if (step > 0)
      launches.multiply(pass.D * row, [&](int d) {
        const int64_t t = launches.time(d, step - 1);
        return part + (t * pass.B * pass.D + d) * row;
      });
    launches.rows(step);
  }
  const int64_t all = vector_sums(pass.norm, pass.cell, pass.H).all;
  launches.each(total_rows_kernel<T>, pass.D * all, TotalArguments{pass, a.sums});
}

}  // namespace fusegen::cuda::normalised
