// What forward and backward share: how a call is cut into teams of rows and chunks of steps, and what each
// thread runs of it.
#pragma once
#include "batch.h"
#include "kernel.h"
#include "kernels/cpu/isa/vector/product.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class Params, class S, Cell cell>
class Sequence : protected RecurrentKernel<Params, S, cell> {
protected:
  using Base = RecurrentKernel<Params, S, cell>;
  using Base::p_, Base::plan_;
  using typename Base::C;

  const bool project_;
  const std::vector<Batch> batches_;   // a team's rows each
  const std::vector<int64_t> bounds_;  // of the chunks
  C* fresh_;                           // [threads][kFreshElements] weights packed block by block, when needed

  // Chunks are of `chunk_rows` rows over all teams.
  Sequence(const Params& p, const cpu::Plan& plan, int64_t chunk_rows)
      : Base(p, plan),
        project_(p.project),
        batches_(make_batches(p, teams(plan))),
        bounds_(make_chunks(batches_, chunk_rows)) {}

  static int teams(const cpu::Plan& plan) { return plan.over_rows ? plan.threads : 1; }

  // Whether this call uses each weight of the input product, or of the recurrence, but once.
  bool reads_W_once() const { return !plan_.over_rows && bounds_.size() == 2; }
  bool reads_R_once() const { return !plan_.over_rows && p_.T == 1; }

  // f(number, team) for what this thread runs: teams of its own, or its part of the one that all are.
  template <class F>
  void each_team(int rank, int size, const F& f) const {
    if (!plan_.over_rows) return f(0, Team{rank, size});
    for (int k = rank; k < static_cast<int>(batches_.size()); k += size) f(k, Team{0, 1});
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
