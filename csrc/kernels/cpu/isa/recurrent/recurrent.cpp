#include "recurrent.h"

#include <omp.h>

#include "group_gradients.h"
#include "kernels/cpu/arena.h"
#include "kernels/cpu/isa/vector/masks.h"
#include "kernels/cpu/isa/vector/rows.h"
#include "kernels/cpu/isa/vector/storage.h"
#include "packed.h"

namespace fusegen::FUSEGEN_ISA_NS {
namespace {

template <class F>
void with_packed(const RecurrentPack& p, const F& f) {
  with_storage(p.dtype, [&](auto s) {
    f(Packed<decltype(s)>(p.cell, p.I, p.H, p.P, p.W_hr.data != nullptr, p.packed));
  });
}

// Single steps of few rows have kernels of their own, that know nothing of resets and masks.
template <class Params>
bool by_small_step(const Params& p, const cpu::Plan& plan) {
  return plan.small_step && !any(p.resets) && !any(p.masks);
}

}  // namespace

void recurrent_forward(const RecurrentForward& p) {
  const cpu::Plan plan = cpu::plan_forward(p);
  with_cell(p.cell, [&](auto cell) {
    if (by_small_step(p, plan) && !p.packed) small_step_forward<cell>(p, plan);
    else sequence_forward<cell>(p, plan);
  });
}

void recurrent_backward(const RecurrentBackward& p) {
  const cpu::Plan plan = cpu::plan_backward(p);
  with_cell(p.cell, [&](auto cell) {
    const bool starts = p.dreset_h.data || p.dreset_c.data;
    if (by_small_step(p, plan) && !p.dgates.data && !starts) small_step_backward<cell>(p, plan);
    else sequence_backward<cell>(p, plan);
  });
}

void group_gradients(const GroupGradients& p) {
  with_cell(p.cell,
            [&](auto cell) { with_storage(p.dtype, [&](auto s) { PerGroup<decltype(s), cell>(p).run(); }); });
}

int64_t recurrent_packed_bytes(const RecurrentPack& p) {
  int64_t bytes = 0;
  with_packed(
      p, [&](const auto& packed) { bytes = packed.elements() * static_cast<int64_t>(sizeof(*packed.W)); });
  return bytes + cpu::kReadPast;
}

void recurrent_pack(const RecurrentPack& p) {
  with_packed(p, [&](const auto& packed) {
#pragma omp parallel num_threads(p.threads)
    packed.pack(p.W, p.R, p.W_hr, omp_get_thread_num(), omp_get_num_threads());
  });
}

void weight_drop(const WeightDrop& p) {
  const MaskRows mask{philox::Mask::weight_drop, p.key, p.place, p.rate, p.columns};
  const int64_t groups = mask_groups(p.columns);
  with_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    using C = Compute<S>;
    const C scale = kept_scale<C>(p.rate);
#pragma omp parallel num_threads(p.threads)
    {
      std::vector<uint64_t> bits(groups);
      const Range mine = share(p.rows, omp_get_thread_num(), omp_get_num_threads());
      for (int64_t row = mine.begin; row < mine.end; ++row) {
        mask.make(row, 0, groups, bits.data());
        const S* R = static_cast<const S*>(p.R) + row * p.columns;
        S* out = static_cast<S*>(p.out) + row * p.columns;
        for (int64_t u = 0; u < p.columns; u += kLanes<C>) {
          const int lanes = lanes_left<C>(p.columns, u);
          store(out + u, choose<C>(bits.data(), u, Vector<C>{}, load(R + u, lanes) * scale), lanes);
        }
      }
    }
  });
}

int64_t stream_bytes(const Stream& p) {
  int64_t bytes = 0;
  with_cell(p.cell, [&](auto cell) { bytes = stream_bytes<cell>(p); });
  return bytes;
}
void stream_begin(const Stream& p) {
  with_cell(p.cell, [&](auto cell) { stream_begin<cell>(p); });
}
void stream_run(const StreamRun& p) {
  with_cell(p.cell, [&](auto cell) { stream_run<cell>(p); });
}
void stream_states(const StreamStates& p) {
  with_cell(p.cell, [&](auto cell) { stream_states<cell>(p); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
