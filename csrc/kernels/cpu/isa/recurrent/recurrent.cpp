#include "recurrent.h"

#include <omp.h>

#include "kernels/cpu/arena.h"
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

}  // namespace

void recurrent_forward(const RecurrentForward& p) {
  const cpu::Plan plan = cpu::plan_forward(p);
  with_cell(p.cell, [&](auto cell) {
    if (plan.small_step && !p.packed) small_step_forward<cell>(p, plan);
    else sequence_forward<cell>(p, plan);
  });
}

void recurrent_backward(const RecurrentBackward& p) {
  const cpu::Plan plan = cpu::plan_backward(p);
  with_cell(p.cell, [&](auto cell) {
    if (plan.small_step && !p.dgates.data) small_step_backward<cell>(p, plan);
    else sequence_backward<cell>(p, plan);
  });
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
