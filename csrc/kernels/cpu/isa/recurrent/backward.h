// The recurrence, backward: one direction of one layer, whole sequence.
//
// Chunks of steps, last first. Within a chunk each step forms dh_t = dy_t + dgates_{t+1} R in registers, runs
// the cell's derivative on them and writes dgates_t. Once a chunk's dgates stand in scratch, all threads
// together turn them into the other gradients (weight_gradients.h).
#pragma once
#include <optional>
#include <variant>

#include "recompute.h"
#include "weight_gradients.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S, Cell cell, Step operand>
class Backward : ChunkGradients<S, cell, operand> {
  using Base = ChunkGradients<S, cell, operand>;
  using Base::batches_, Base::bounds_, Base::fresh_, Base::p_, Base::plan_, Base::relu_, Base::project_;
  using Base::fresh_W_, Base::W_, Base::dgates_, Base::dhp_, Base::hidden_, Base::narrow_, Base::zero_row_;
  using Base::G, Base::L, Base::inside_, Base::recurrent_, Base::GH_, Base::ldg_, Base::ldc_, Base::ldp_;
  using Base::kPairs, Base::steps;
  using typename Base::C, typename Base::V, typename Base::Token;
  static constexpr bool kGru = cell == Cell::gru;
  static constexpr bool kSaves = saved_gates(cell) > 0;

  struct TeamScratch {
    C* dc;         // [rows][ldc] LSTM: gradient of c_t from step t+1
    C* dh_direct;  // [rows][ldp] of a GRU and of zoneout: the part of dh that does not pass through R
  };
  // Where a vector of a row's units puts the gradients of its gates: columns of dgates, and of what products
  // read where that is another.
  struct Gates {
    C* wide;
    S* narrow;
    FUSEGEN_INLINE void give(int64_t column, V v, int lanes) const {
      store(wide + column, v, lanes);
      if constexpr (kPairs) store(narrow + column, v, lanes);
    }
  };
  // One step of a team.
  struct TeamStep {
    int k;  // the team
    int64_t step;
    int rows;        // that take part, the first so many
    int64_t first;   // row of dgates where they begin
    int64_t buffer;  // of dgates
    const RowInside* inside;
  };

  // where forward kept no gates
  std::optional<std::conditional_t<kSaves, Recompute<S, cell>, std::monostate>> again_;
  const bool fresh_R_;
  C *R_, *W_hr_;             // packed for products with dgates on the left
  C *dreset_h_, *dreset_c_;  // [B][ldp], [B][ldc] sums over the steps
  std::vector<TeamScratch> scratch_;

public:
  Backward(const RecurrentBackward& p, const cpu::Plan& plan)
      : Base(p, plan), fresh_R_(this->reads_R_once()) {
    if constexpr (kSaves)
      if (p.recompute) again_.emplace(p, batches_, inside_);
  }

  void run() {
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
    std::memset(static_cast<void*>(zero_row_), 0, p_.P * sizeof(S));
    this->clear_narrow();
    if (p_.dreset_h.data) std::fill(dreset_h_, dreset_h_ + p_.B * ldp_, C(0));
    if (p_.dreset_c.data) std::fill(dreset_c_, dreset_c_ + p_.B * ldc_, C(0));
    const int64_t chunks = static_cast<int64_t>(bounds_.size()) - 1;
#pragma omp parallel num_threads(plan_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      pack(rank, size);
      if constexpr (kSaves)
        if (again_) again_->pack(rank, size);
      clear_padding(rank, size);
      const Range sequences = share(p_.B, rank, size);
      for (int64_t b = sequences.begin; b < sequences.end; ++b) inside_.make_dropped(b);
#pragma omp barrier
      std::vector<Token> tokens;
      for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
        this->each_team(rank, size, [&](int k, const Team& team) { run_team(k, team, chunk); });
#pragma omp barrier
        this->list_tokens(chunk, tokens);
        this->chunk_gradients(tokens, chunk % 2, chunk + 1 < chunks, rank, size);
        if (project_) {
#pragma omp barrier
        }
      }
      this->each_team(rank, size, [&](int k, const Team& team) { initial_state(k, team); });
      this->write_gradients(chunks == 0, rank, size);
      if (p_.dreset_h.data || p_.dreset_c.data) {
#pragma omp barrier
        write_reset_gradients(sequences);
      }
    }
  }

private:
  void lay_out(cpu::Arena& arena) {
    R_ = arena.take<C>(fresh_R_ ? 0 : PanelShape{p_.P, 1}.size<C>(steps(GH_)));
    fresh_ = arena.take<C>(fresh_W_ || fresh_R_ ? plan_.threads * kFreshElements<C> : 0);
    W_hr_ = arena.take<C>(project_ ? PanelShape{p_.H, 1}.size<C>(p_.P) : 0);
    this->lay_out_gradients(arena);
    dreset_h_ = arena.take<C>(p_.dreset_h.data ? p_.B * ldp_ : 0);
    dreset_c_ = arena.take<C>(p_.dreset_c.data ? p_.B * ldc_ : 0);
    if constexpr (kSaves)
      if (again_) again_->lay_out(arena, zero_row_);
    scratch_.assign(batches_.size(), {});
    for (size_t k = 0; k < batches_.size(); ++k) {
      const int64_t n = batches_[k].size();
      scratch_[k].dc = arena.take<C>(cell == Cell::lstm ? n * ldc_ : 0);
      scratch_[k].dh_direct = arena.take<C>(kGru || inside_.zones_h() ? n * ldp_ : 0);
    }
  }

  const S* recurrent_row(int64_t k) const { return static_cast<const S*>(p_.R.data) + k * p_.R.stride; }

  void pack(int rank, int size) const {
    if (!fresh_R_) pack_product(p_.P, GH_, R_, rank, size, [&](int64_t k) { return recurrent_row(k); });
    if (p_.dx.data && !fresh_W_)
      pack_product(p_.I, GH_, W_, rank, size, [&](int64_t k) { return this->input_row_of_W(k); });
    if (project_) {
      const S* W_hr = static_cast<const S*>(p_.W_hr.data);
      // dh is not rounded before it is multiplied, so these panels are in the compute type
      pack_product<Step::one>(p_.H, p_.P, W_hr_, rank, size,
                              [&](int64_t k) { return W_hr + k * p_.W_hr.stride; });
    }
  }
  template <Step step = operand, class RowPointer>
  static void pack_product(int64_t N, int64_t K, C* out, int rank, int size, const RowPointer& row) {
    const Range mine = share(PanelShape{N, 1}.template count<C>(), rank, size);
    for (int64_t q = mine.begin; q < mine.end; ++q)
      if constexpr (step == Step::pair)
        pack_row_pairs<S>(row, N, K, Range{0, steps(K)}, q, out + q * steps(K) * kTileColumns<C>);
      else pack_rows<S>(row, N, 0, K, q, out + q * K * kTileColumns<C>);
  }

  void clear_padding(int rank, int size) const {
    if (!p_.lengths) return;
    const Range mine = share(p_.B, rank, size);
    const auto clear = [&]<class E>(E, const Rows& rows, int64_t n) {
      if (!rows.data) return;
      for (int64_t b = mine.begin; b < mine.end; ++b)
        for (int64_t t = p_.lengths[b]; t < p_.T; ++t) std::fill_n(row_of<E>(rows, t, b), n, E{});
    };
    if (!p_.add_dx) clear(S{}, p_.dx, p_.I);
    clear(C{}, p_.dgates, this->columns_.count());
    clear(C{}, p_.dh, p_.P);
  }

  // Row of dgates where team k's rows of `step` begin; chunks keep the teams one after another.
  int64_t first_row(int k, int64_t step, int64_t chunk) const {
    int64_t row = batches_[k].tokens(bounds_[chunk], step);
    for (int j = 0; j < k; ++j) row += batches_[j].tokens(bounds_[chunk], bounds_[chunk + 1]);
    return row;
  }

  // ---- the steps of one chunk -------------------------------------------------------------------------

  void run_team(int k, const Team& team, int64_t chunk) {
    const Batch& batch = batches_[k];
    const int64_t begin = bounds_[chunk], end = std::min(bounds_[chunk + 1], batch.steps());
    const Range units = share(PanelShape{p_.H, 1}.template count<C>(), team);
    const Range states = share(PanelShape{p_.P, 1}.template count<C>(), team);
    std::vector<const C*> next(batch.size()), dhp(batch.size());
    StepInside inside{.units = elements(p_.H, project_ ? units : states), .states = elements(p_.P, states)};
    for (int64_t step = end - 1; step >= begin; --step) {
      if constexpr (kSaves)
        if (again_) again_->reach(k, step, team);
      TeamStep now{k, step, batch.active(step), first_row(k, step, chunk), chunk % 2, nullptr};
      if (inside_) {
        inside_.at_step(batch, step, now.rows, inside);
        now.inside = inside.rows.data();
      }
      const ProductRows<C> after(next.data(), next_rows(k, step, chunk, next), steps(GH_));
      const auto fetch_saved = [&](int row, int64_t panel) {
        const int end = std::min(row + kTileRows<kTileVectors>, now.rows);
        for (int i = row; i < end; ++i) prefetch_saved(batch, step, i, panel);
        return TileAddend<C>{};
      };
      const auto finish = [&](int row, int64_t panel, const auto& sums) {
        if (now.inside) return step_row_inside(now, row, panel, sums);
        step_row<false>(now, row, panel, sums);
      };
      if (!project_) recur(after, now.rows, recurrent_panels(), Sweep{states, step}, fetch_saved, finish);
      else if constexpr (cell == Cell::lstm) {
        recur(after, now.rows, recurrent_panels(), Sweep{states, step}, Nothing<C>{},
              [&](int row, int64_t panel, const auto& sums) { projected_row(now, row, panel, sums); });
        team.barrier();
        for (int i = 0; i < now.rows; ++i) dhp[i] = dhp_ + (now.first + i) * ldp_;
        recur<Step::one>(ProductRows<C>(dhp.data(), now.rows, p_.P), now.rows,
                         PackedPanels<C, kTileVectors>{W_hr_, p_.P}, Sweep{units, step}, fetch_saved, finish);
      }
      team.barrier();
    }
  }

  // The rows of dgates of step + 1, and how many there are.
  int next_rows(int k, int64_t step, int64_t chunk, std::vector<const C*>& next) const {
    const Batch& batch = batches_[k];
    const int n = batch.active(step + 1);
    const int64_t in_chunk = step + 1 < bounds_[chunk + 1] ? chunk : chunk + 1;
    const int64_t row = n ? first_row(k, step + 1, in_chunk) : 0;
    for (int i = 0; i < n; ++i) next[i] = this->product_row(in_chunk % 2, row + i, recurrent_);
    return n;
  }

  // The rows of `a` bring their product with `source`, further ones up to `rows` zero; epilogue(row, panel,
  // sums).
  template <Step step = operand, class Source, class Addend, class Epilogue>
  void recur(const ProductRows<C>& a, int rows, const Source& source, const Sweep& sweep,
             const Addend& addend, const Epilogue& epilogue) const {
    multiply_rows<C, kTileVectors, step>(a, source, sweep, addend, each_row(epilogue));
    static constexpr RowSums<C, kTileVectors> zero{};
    for (int64_t panel = sweep.panels.begin; panel < sweep.panels.end; ++panel)
      for (int row = a.count; row < rows; ++row) epilogue(row, panel, zero);
  }
  PackedPanels<C, kTileVectors> recurrent_panels() const { return {R_, steps(GH_)}; }

  // The units that these plain panels hold.
  static Range elements(int64_t n, const Range& panels) {
    return {panels.begin * kTileColumns<C>, std::min(n, panels.end * kTileColumns<C>)};
  }

  // The gradient that h of the row's step gets from the step after it, from what came through R: of the
  // start, where that step began anew.
  V carried(const TeamStep& now, int row, int64_t u, int lanes, V through_R) {
    const RowInside& in = now.inside[row];
    const Batch& batch = batches_[now.k];
    V dh = inside_.drop_state(in.dropped, u, through_R);
    if ((kGru || inside_.zones_h()) && !batch.last(row, now.step))
      dh += load(scratch_[now.k].dh_direct + row * ldp_ + u);
    if (!in.ends) return dh;
    add_to_start_h(in.b, u, lanes, dh);
    return V{};
  }
  void add_to_start_h(int64_t b, int64_t u, int lanes, V d) const {
    if (p_.dreset_h.data) add_lanes(dreset_h_ + b * ldp_ + u, d, lanes);
  }
  void add_to_start_c(int64_t b, int64_t u, int lanes, V d) const {
    if (p_.dreset_c.data) add_lanes(dreset_c_ + b * ldc_ + u, d, lanes);
  }
  static void add_lanes(C* sum, V d, int lanes) { store(sum, load(sum, lanes) + d, lanes); }

  FUSEGEN_INLINE V incoming(const Batch& batch, int row, int64_t step, int64_t u, int lanes) const {
    const int64_t b = batch.row[row];
    V dh = p_.dy.data ? load(row_of<S>(p_.dy, batch.time(row, step), b) + u, lanes) : V{};
    if (batch.last(row, step) && p_.dh_n.data) dh += load(row_of<S>(p_.dh_n, 0, b) + u, lanes);
    return dh;
  }

  void projected_row(const TeamStep& now, int row, int64_t panel, const RowSums<C, kTileVectors>& sums) {
    const PanelShape shape{p_.P, 1};
    C* dh = dhp_ + (now.first + row) * ldp_;
    for (int j = 0; j < kTileVectors; ++j) {
      const int lanes = shape.lanes<C>(panel, j);
      if (!lanes) break;
      const int64_t u = shape.row<C>(panel, j);
      V d = load(sums[j]);
      if (now.inside) d = carried(now, row, u, lanes, d);
      d += incoming(batches_[now.k], row, now.step, u, lanes);
      if (now.inside) d = fresh_part(now, row, u, d);
      store(dh + u, d, lanes);
    }
  }
  // Of the gradient of h, what the cell gets; zoneout's part waits for the step before.
  V fresh_part(const TeamStep& now, int row, int64_t u, V dh) {
    if (!inside_.zones_h()) return dh;
    const auto parts = inside_.parts_h(now.inside[row], u, dh);
    store(scratch_[now.k].dh_direct + row * ldp_ + u, parts.old);
    return parts.fresh;
  }

  // Apart, so that the plain way is compiled as if there were no other.
  __attribute__((noinline)) void step_row_inside(const TeamStep& now, int row, int64_t panel,
                                                 const RowSums<C, kTileVectors>& sums) {
    step_row<true>(now, row, panel, sums);
  }
  template <bool inside>
  FUSEGEN_INLINE void step_row(const TeamStep& now, int row, int64_t panel,
                               const RowSums<C, kTileVectors>& sums) {
    const Batch& batch = batches_[now.k];
    const PanelShape shape{p_.H, 1};
    const bool last = batch.last(row, now.step);
    const int64_t of_row = (now.first + row) * ldg_;
    for (int j = 0; j < kTileVectors; ++j) {
      const int lanes = shape.lanes<C>(panel, j);
      if (!lanes) break;
      const int64_t u = shape.row<C>(panel, j);
      V dh = load(sums[j]);
      if (!project_) {
        if constexpr (inside) dh = carried(now, row, u, lanes, dh);
        dh += incoming(batch, row, now.step, u, lanes);
        if constexpr (inside) dh = fresh_part(now, row, u, dh);
      }
      Gates dg{dgates_[now.buffer] + of_row + u, nullptr};
      if constexpr (kPairs) dg.narrow = narrow_[now.buffer] + of_row + u;
      if constexpr (cell == Cell::lstm) {
        lstm_unit<inside>(now, row, u, lanes, dh, dg);
      } else if constexpr (kGru) {
        if (!inside && !last) dh += load(scratch_[now.k].dh_direct + row * ldp_ + u);
        gru_unit<inside>(now, row, u, lanes, dh, dg);
      } else {
        const int64_t b = batch.row[row], t = batch.time(row, now.step);
        V h = load(row_of<S>(inside && p_.gates.data ? p_.gates : p_.y, t, b) + u, lanes);
        if constexpr (inside) {
          h = inside_.candidate_of(now.inside[row], h);
          dh = inside_.drop_candidate(now.inside[row], u, dh);
        }
        dg.give(0, cells::rnn_backward(relu_, h, dh), lanes);
      }
    }
  }

  template <bool inside>
  FUSEGEN_INLINE void lstm_unit(const TeamStep& now, int row, int64_t u, int lanes, V dh, const Gates& dg) {
    const Batch& batch = batches_[now.k];
    const int64_t H = p_.H, b = batch.row[row];
    const auto [i, f, g_given, o, c_before, c_after] =
        again_ ? again_->lstm(now.k, row, now.step, u) : lstm_saved(batch, row, now.step, u, lanes);
    V g = g_given, c = c_after;
    C* carry = scratch_[now.k].dc + row * ldc_ + u;
    V dc = !batch.last(row, now.step) ? load(carry)
           : p_.dc_n.data             ? load(row_of<S>(p_.dc_n, 0, b) + u, lanes)
                                      : V{};
    V c_prev = c_before;
    [[maybe_unused]] V dc_old{};
    if constexpr (inside) {
      const RowInside& in = now.inside[row];
      if (in.begins) c_prev = inside_.start_c(b, u, lanes);
      g = inside_.drop_candidate(in, u, g_given);
      if (in.ends) {
        add_to_start_c(b, u, lanes, dc);
        dc = V{};
      }
      if (inside_.zones_c()) {
        c = f * c_prev + i * g;
        const auto parts = inside_.parts_c(in, u, dc);
        dc = parts.fresh;
        dc_old = parts.old;
      }
    }
    auto d = cells::lstm_backward<Math>(i, f, g, o, c_prev, c, dh, dc);
    if constexpr (inside) {
      d.g = inside_.drop_candidate(now.inside[row], u, d.c * i) * (1 - g_given * g_given);
      d.c_prev += dc_old;
    }
    dg.give(0, d.i, lanes);
    dg.give(H, d.f, lanes);
    dg.give(2 * H, d.g, lanes);
    dg.give(3 * H, d.o, lanes);
    store(carry, d.c_prev);
    if (project_) store(hidden_ + (now.first + row) * ldc_ + u, o * Math::tanh(c));
  }

  template <bool inside>
  FUSEGEN_INLINE void gru_unit(const TeamStep& now, int row, int64_t u, int lanes, V dh, const Gates& dg) {
    const Batch& batch = batches_[now.k];
    const int64_t H = p_.H, b = batch.row[row];
    const auto [r, z, n, q] =
        again_ ? again_->gru(now.k, row, now.step, u) : gru_saved(batch, row, now.step, u, lanes);
    C* direct = scratch_[now.k].dh_direct + row * ldp_ + u;
    const V h_prev = inside && now.inside[row].begins ? inside_.start_h(b, u, lanes)
                                                      : state_before(batch, row, now.step, u, lanes);
    auto d = cells::gru_backward(r, z, n, q, h_prev, dh);
    if constexpr (inside) {
      const RowInside& in = now.inside[row];
      if (in.candidate) {
        d.n = inside_.drop_candidate(in, u, dh * (1 - z)) * (1 - n * n);
        d.q = d.n * r;
        d.r = d.n * q * r * (1 - r);
        d.z = dh * (h_prev - inside_.drop_candidate(in, u, n)) * z * (1 - z);
      }
      if (inside_.zones_h()) d.h_prev += load(direct);  // as fresh_part() left it
    }
    dg.give(0, d.n, lanes);
    dg.give(H, d.r, lanes);
    dg.give(2 * H, d.z, lanes);
    dg.give(3 * H, d.q, lanes);
    store(direct, d.h_prev);
  }

  // What step_row will read of a row that forward saved, a line of each where 16-bit types take half of one:
  // written long ago, so it comes from memory while the row's product runs.
  FUSEGEN_INLINE void prefetch_saved(const Batch& batch, int64_t step, int row, int64_t panel) const {
    const int64_t b = batch.row[row], t = batch.time(row, step), u = panel * kTileColumns<C>;
    const auto fetch = [](const auto* p) {
      for (int64_t n = 0; n < kTileColumns<C>; n += 64 / static_cast<int64_t>(sizeof(*p)))
        __builtin_prefetch(p + n, 0, 2);
    };
    for (int64_t g = 0; p_.gates.data && g < saved_gates(cell); ++g)
      fetch(row_of<S>(p_.gates, t, b) + g * p_.H + u);
    if (p_.cells.data && !p_.recompute) fetch(row_of<C>(p_.cells, t, b) + u);
    if (p_.dy.data && !project_) fetch(row_of<S>(p_.dy, t, b) + u);
    if constexpr (saved_gates(cell) == 0) fetch(row_of<S>(p_.y, t, b) + u);
  }

  // What forward saved of a vector of units at a step.
  FUSEGEN_INLINE auto lstm_saved(const Batch& batch, int row, int64_t step, int64_t u, int lanes) const {
    const int64_t H = p_.H, b = batch.row[row], t = batch.time(row, step);
    const S* gates = row_of<S>(p_.gates, t, b) + u;
    return typename Recompute<S, cell>::LstmSaved{load(gates, lanes),
                                                  load(gates + H, lanes),
                                                  load(gates + 2 * H, lanes),
                                                  load(gates + 3 * H, lanes),
                                                  cell_before(batch, row, step, u, lanes),
                                                  load(row_of<C>(p_.cells, t, b) + u, lanes)};
  }
  FUSEGEN_INLINE auto gru_saved(const Batch& batch, int row, int64_t step, int64_t u, int lanes) const {
    const int64_t H = p_.H;
    const S* gates = row_of<S>(p_.gates, batch.time(row, step), batch.row[row]) + u;
    return typename Recompute<S, cell>::GruSaved{load(gates, lanes), load(gates + H, lanes),
                                                 load(gates + 2 * H, lanes), load(gates + 3 * H, lanes)};
  }

  FUSEGEN_INLINE V cell_before(const Batch& batch, int row, int64_t step, int64_t u, int lanes) const {
    const int64_t b = batch.row[row];
    if (step) return load(row_of<C>(p_.cells, batch.time(row, step - 1), b) + u, lanes);
    return p_.c0.data ? load(row_of<S>(p_.c0, 0, b) + u, lanes) : V{};
  }
  FUSEGEN_INLINE V state_before(const Batch& batch, int row, int64_t step, int64_t u, int lanes) const {
    const int64_t b = batch.row[row];
    if (step) return load(row_of<S>(p_.y, batch.time(row, step - 1), b) + u, lanes);
    return p_.h0.data ? load(row_of<S>(p_.h0, 0, b) + u, lanes) : V{};
  }

  // dh_0 and dc_0, or what the starts before the first step get of them.
  void initial_state(int k, const Team& team) {
    const bool wants_h = p_.dh0.data || p_.dreset_h.data, wants_c = p_.dc0.data || p_.dreset_c.data;
    if (!wants_h && !wants_c) return;
    const Batch& batch = batches_[k];
    const int n = batch.size();
    std::vector<const C*> next(n);
    const ProductRows<C> after(next.data(), batch.steps() ? next_rows(k, -1, 0, next) : 0, steps(GH_));
    if (wants_h) {
      const Sweep sweep{share(PanelShape{p_.P, 1}.template count<C>(), team), 1};
      const auto finish = [&](int row, int64_t panel, const auto& sums) { initial_row(k, row, panel, sums); };
      if (fresh_R_)
        recur(after, n, this->fresh_panels(p_.P, team.rank, [this](int64_t r) { return recurrent_row(r); }),
              sweep, Nothing<C>{}, finish);
      else recur(after, n, recurrent_panels(), sweep, Nothing<C>{}, finish);
    }
    if (wants_c) {
      const Range mine = share(n, team);
      for (int64_t i = mine.begin; i < mine.end; ++i) {
        const int64_t b = batch.row[i];
        for (int64_t u = 0; u < p_.H; u += L) {
          const int lanes = lanes_left<C>(p_.H, u);
          const V dc = batch.length[i] ? load(scratch_[k].dc + i * ldc_ + u)
                       : p_.dc_n.data  ? load(row_of<S>(p_.dc_n, 0, b) + u, lanes)
                                       : V{};
          const bool begins = inside_.begins(batch, static_cast<int>(i), 0);
          if (begins) add_to_start_c(b, u, lanes, dc);
          if (p_.dc0.data) store(row_of<S>(p_.dc0, 0, b) + u, begins ? V{} : dc, lanes);
        }
      }
    }
  }
  void initial_row(int k, int row, int64_t panel, const RowSums<C, kTileVectors>& sums) {
    const Batch& batch = batches_[k];
    const PanelShape shape{p_.P, 1};
    const int64_t b = batch.row[row];
    for (int j = 0; j < kTileVectors; ++j) {
      const int lanes = shape.lanes<C>(panel, j);
      if (!lanes) break;
      const int64_t u = shape.row<C>(panel, j);
      V dh = inside_.drop_state(inside_.dropped(b), u, load(sums[j]));
      if (batch.length[row] == 0) {
        if (p_.dh_n.data) dh += load(row_of<S>(p_.dh_n, 0, b) + u, lanes);
      } else if (kGru || inside_.zones_h()) {
        dh += load(scratch_[k].dh_direct + row * ldp_ + u);
      }
      const bool begins = inside_.begins(batch, row, 0);
      if (begins) add_to_start_h(b, u, lanes, dh);
      if (p_.dh0.data) store(row_of<S>(p_.dh0, 0, b) + u, begins ? V{} : dh, lanes);
    }
  }

  void write_reset_gradients(const Range& sequences) const {
    const auto write = [&](const Rows& to, const C* sums, int64_t stride, int64_t n) {
      for (int64_t b = sequences.begin; to.data && b < sequences.end; ++b)
        for (int64_t u = 0; u < n; u += L)
          store(row_of<S>(to, 0, b) + u, load(sums + b * stride + u), lanes_left<C>(n, u));
    };
    write(p_.dreset_h, dreset_h_, ldp_, p_.P);
    write(p_.dreset_c, dreset_c_, ldc_, p_.H);
  }
};

// Sums over fewer units are too short to even out what rounding dgates does to each term, and take no time.
constexpr int64_t kLeastPaired = 64;

template <Cell cell>
void sequence_backward(const RecurrentBackward& p, const cpu::Plan& plan) {
  with_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    if constexpr (kStep<S> == Step::pair)
      if (p.H >= kLeastPaired) return Backward<S, cell, Step::pair>(p, plan).run();
    Backward<S, cell, Step::one>(p, plan).run();
  });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
