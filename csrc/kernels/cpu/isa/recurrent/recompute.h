// What backward makes again where forward kept no gates: those of a block of steps at a time, and an LSTM's
// cells from one that was kept.
//
// h before each of these steps is known (y, h0), so both products of the whole block are made at once,
// without a recurrence; c alone goes step by step, and its units do not wait for each other. The same bits as
// forward's: rows are summed as many k apart as they were there (tile.h), and sums, addends and cells come in
// forward's order. Gates stay in the compute type, where they are rounded as they are read.
#pragma once
#include <array>

#include "inside.h"
#include "packed.h"
#include "sequence.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S, Cell cell>
class Recompute {
  using C = Compute<S>;
  using V = Vector<C>;
  static constexpr int L = kLanes<C>, G = gate_count(cell), NW = G;
  static constexpr bool kGru = cell == Cell::gru;
  static constexpr bool kNarrow = sizeof(S) != sizeof(C);
  static constexpr bool kPairs = kStep<S> == Step::pair;
  static constexpr int kWays = 3;  // of summing: one, two or four k apart
  static_assert(saved_gates(cell) > 0);

  // Rows that a product goes over in tiles of one height.
  struct Group {
    int first, count, tile;
  };
  using Groups = std::array<Group, kWays>;
  // A row of the block. Some come twice, so that tiles are whole.
  struct Slot {
    int32_t row;  // of the team
    int64_t step;
  };

  // What the threads of one team share.
  struct TeamScratch {
    int64_t most;                  // slots of a block
    int64_t begin = 0, end = 0;    // steps of the block
    std::vector<Slot> slots;       // by the way in which R h is summed
    std::vector<int32_t> slot_of;  // [steps][rows]
    std::vector<const C*> h_rows;  // of each slot
    Groups h_groups;
    std::vector<int32_t> x_slots;  // by the way in which W x is summed
    std::vector<const C*> x_rows;
    Groups x_groups;
    C* gates;  // [slot][panel][NW][L] the input product and biases, then the gates: of GRU r, z, n
    C* q;      // [slot][ldc] GRU's
    C* cells;  // [1 + steps][rows][ldc] LSTM: the first before the block
    C *x, *h;  // [slot][ldx], [slot][ldh] where the product does not read them as they lie
  };

  const RecurrentBackward& p_;
  const std::vector<Batch>& batches_;  // backward's teams
  const Inside<S>& inside_;
  const cpu::Plan forward_;
  const std::vector<Batch> forward_batches_;
  const std::vector<int64_t> forward_bounds_;
  std::vector<int32_t> place_;  // of a row of the batch in its team, forward
  const PanelShape shape_;
  const int64_t width_, ldx_, ldh_, ldc_;
  int64_t steps_;  // of a block
  C *weights_, *bias_, *bias_q_;
  const S* zero_row_;
  std::vector<TeamScratch> scratch_;

public:
  Recompute(const RecurrentBackward& p, const std::vector<Batch>& batches, const Inside<S>& inside)
      : p_(p),
        batches_(batches),
        inside_(inside),
        forward_(cpu::plan_forward(of_forward(p))),
        forward_batches_(make_batches(p, forward_.over_rows ? forward_.threads : 1)),
        forward_bounds_(make_chunks(forward_batches_, forward_.chunk_rows * forward_batches_.size())),
        place_(p.B),
        shape_{p.H, G},
        width_(shape_.count<C>() * NW * L),
        ldx_(padded<C>(steps<S>(p.I))),
        ldh_(padded<C>(steps<S>(p.P))),
        ldc_(padded<C>(p.H)) {
    int64_t rows = 1;
    for (const Batch& batch : batches) rows = std::max<int64_t>(rows, batch.size());
    for (const Batch& batch : forward_batches_)
      for (int i = 0; i < batch.size(); ++i) place_[batch.row[i]] = i;
    // Whole numbers of k, of as many rows as make the weights' way worth while. GRU has nothing to start from
    // but h, which is there at every step.
    const int64_t every = kGru ? 1 : p.recompute;
    steps_ = std::min(p.T, every * std::max<int64_t>(1, forward_.chunk_rows / (every * rows)));
  }

  void lay_out(cpu::Arena& arena, const S* zero_row) {
    zero_row_ = zero_row;
    weights_ = arena.take<C>(packed(nullptr).elements() + cpu::kReadPast / sizeof(C));
    bias_ = arena.take<C>(width_);
    bias_q_ = arena.take<C>(kGru ? shape_.count<C>() * L : 0);
    scratch_.resize(batches_.size());
    for (size_t k = 0; k < batches_.size(); ++k) {
      const int64_t n = batches_[k].size();
      TeamScratch& s = scratch_[k];
      s.most = steps_ * n + kWays * kTileRows<NW>;
      s.gates = arena.take<C>(s.most * width_);
      s.q = arena.take<C>(kGru ? s.most * ldc_ : 0);
      s.cells = arena.take<C>(kGru ? 0 : (steps_ + 1) * n * ldc_);
      s.x = arena.take<C>(kNarrow ? s.most * ldx_ : 0);
      s.h = arena.take<C>(copies_h() ? s.most * ldh_ : 0);
    }
  }

  void pack(int rank, int size) const {
    packed(weights_).pack(p_.W, p_.R, {}, rank, size);
    fill_biases<S, cell>(shape_, {p_.b_ih, p_.b_hh}, bias_, bias_q_, rank, size);
  }

  // Steps of team k come last first: makes the block that ends with `step` where one does.
  void reach(int k, int64_t step, const Team& team) {
    const int64_t begin = step / steps_ * steps_;
    if (step + 1 == std::min(begin + steps_, batches_[k].steps())) block(k, begin, step + 1, team);
  }

  struct LstmSaved {
    V i, f, g, o, c_prev, c;
  };
  FUSEGEN_INLINE LstmSaved lstm(int k, int row, int64_t step, int64_t u) const {
    const TeamScratch& s = scratch_[k];
    const C* a = gates_of(s, slot(k, row, step), u / L);
    const int64_t n = batches_[k].size(), plane = step - s.begin;
    const C* c = s.cells + (plane * n + row) * ldc_ + u;
    return {rounded<S>(load(a)),
            rounded<S>(load(a + L)),
            rounded<S>(load(a + 2 * L)),
            rounded<S>(load(a + 3 * L)),
            load(c),
            load(c + n * ldc_)};
  }
  struct GruSaved {
    V r, z, n, q;
  };
  FUSEGEN_INLINE GruSaved gru(int k, int row, int64_t step, int64_t u) const {
    const TeamScratch& s = scratch_[k];
    const int64_t at = slot(k, row, step);
    const C* a = gates_of(s, at, u / L);
    return {rounded<S>(load(a)), rounded<S>(load(a + L)), rounded<S>(load(a + 2 * L)),
            rounded<S>(load(s.q + at * ldc_ + u))};
  }

private:
  static RecurrentSizes of_forward(const RecurrentBackward& p) {
    RecurrentSizes s = p;
    s.threads = p.forward_threads;
    return s;
  }
  Packed<S> packed(void* base) const { return {cell, p_.I, p_.H, p_.P, false, base}; }

  int64_t slot(int k, int row, int64_t step) const {
    const TeamScratch& s = scratch_[k];
    return s.slot_of[(step - s.begin) * batches_[k].size() + row];
  }
  C* gates_of(const TeamScratch& s, int64_t slot, int64_t panel) const {
    return s.gates + slot * width_ + panel * NW * L;
  }

  void block(int k, int64_t begin, int64_t end, const Team& team) {
    TeamScratch& s = scratch_[k];
    if (team.rank == 0) list(k, begin, end);
    team.barrier();
    if (copies_h()) {
      copy_operands(k, team);
      team.barrier();
    }
    const Range panels = share(shape_.count<C>(), team);
    input_product(s, panels);
    recurrent_product(s, panels);
    if constexpr (cell == Cell::lstm) step_cells(k, panels);
    team.barrier();
  }

  // ---- which rows the block has, and how forward summed them --------------------------------------------

  void list(int k, int64_t begin, int64_t end) {
    const Batch& batch = batches_[k];
    TeamScratch& s = scratch_[k];
    s.begin = begin;
    s.end = end;
    std::array<std::vector<Slot>, kWays> by_h;
    std::array<std::vector<Slot>, kWays> by_x;
    for (int64_t step = begin; step < end; ++step) {
      const int n = batch.active(step);
      if (n == 0) break;
      const ForwardStep forward(*this, k, step);
      for (int i = 0; i < n; ++i) {
        const int at = place_[batch.row[i]];
        by_h[way(forward.rows, at)].push_back({i, step});
        by_x[way(forward.chunk_rows, forward.first + at)].push_back({i, step});
      }
    }
    s.slots.clear();
    s.slot_of.resize(steps_ * batch.size());
    s.h_groups = group(by_h, s.slots);
    for (size_t i = s.slots.size(); i-- > 0;) s.slot_of[of_block(s, k, s.slots[i])] = static_cast<int32_t>(i);
    std::vector<Slot> of_x;
    s.x_groups = group(by_x, of_x);
    s.x_slots.clear();
    for (const Slot& slot : of_x) s.x_slots.push_back(s.slot_of[of_block(s, k, slot)]);
    s.h_rows.clear();
    s.x_rows.clear();
    for (size_t i = 0; i < s.slots.size(); ++i)
      s.h_rows.push_back(copies_h() ? s.h + i * ldh_
                                    : reinterpret_cast<const C*>(state_before(k, s.slots[i])));
    for (size_t i = 0; i < of_x.size(); ++i)
      s.x_rows.push_back(kNarrow ? s.x + i * ldx_ : reinterpret_cast<const C*>(input(k, of_x[i])));
  }
  int64_t of_block(const TeamScratch& s, int k, const Slot& slot) const {
    return (slot.step - s.begin) * batches_[k].size() + slot.row;
  }

  // Of a step of a team, how many rows forward multiplied at once: by R, and by W, where the step's own begin
  // at `first`.
  struct ForwardStep {
    int rows;
    int64_t chunk_rows, first;

    ForwardStep(const Recompute& r, int k, int64_t step) {
      // there is but one team where a thread ran the direction by itself
      const Batch& batch = r.forward_batches_[r.forward_batches_.size() == 1 ? 0 : k];
      const auto& bounds = r.forward_bounds_;
      const auto next = std::upper_bound(bounds.begin(), bounds.end(), step);
      rows = batch.active(step);
      first = batch.tokens(*(next - 1), step);
      chunk_rows = batch.tokens(*(next - 1), *next);
    }
  };

  // The number of the way in which row r of n was summed. Many rows come in tall tiles, whose sums are one.
  static int way(int64_t n, int64_t r) {
    constexpr int kMany = 4 * kTileRows<NW>;
    if (n >= kMany) return 0;
    return sums_apart<NW>(tile_height<NW>(static_cast<int>(n), static_cast<int>(r))) / 2;
  }
  // The tallest tile of that way.
  static int tile_of(int way) {
    int rows = kTileRows<NW>;
    while (rows > 1 && sums_apart<NW>(rows) / 2 != way) --rows;
    return rows;
  }
  // Puts those of each way one after another, each filled up to whole tiles.
  static Groups group(const std::array<std::vector<Slot>, kWays>& by_way, std::vector<Slot>& all) {
    Groups groups{};
    for (int way = 0; way < kWays; ++way) {
      const auto& these = by_way[way];
      if (these.empty()) continue;
      const int tile = tile_of(way), first = static_cast<int>(all.size());
      const int count = (static_cast<int>(these.size()) + tile - 1) / tile * tile;
      all.insert(all.end(), these.begin(), these.end());
      all.resize(first + count, these.back());
      groups[way] = {first, count, tile};
    }
    return groups;
  }

  const S* input(int k, const Slot& slot) const {
    const Batch& batch = batches_[k];
    return row_of<S>(p_.x, batch.time(slot.row, slot.step), batch.row[slot.row]);
  }
  const S* state_before(int k, const Slot& slot) const {
    const Batch& batch = batches_[k];
    const int64_t b = batch.row[slot.row];
    if (inside_.begins(batch, slot.row, slot.step)) {
      const S* start = inside_.start_h(b);
      return start ? start : zero_row_;
    }
    if (slot.step) return row_of<S>(p_.y, batch.time(slot.row, slot.step - 1), b);
    return p_.h0.data ? row_of<S>(p_.h0, 0, b) : zero_row_;
  }

  // ---- the products and what follows ---------------------------------------------------------------------

  // Whether products read h from copies: in the compute type, and with its mask.
  bool copies_h() const { return kNarrow || inside_.drops_state(); }

  // This thread's part of the rows of x and h as the products read them.
  void copy_operands(int k, const Team& team) const {
    const TeamScratch& s = scratch_[k];
    const auto copy = [&](const S* from, int64_t n, C* to) {
      for (int64_t i = 0, K = steps<S>(n); i < K; i += L)
        store(to + i, load_steps(from, n, i, lanes_left<C>(K, i)));
    };
    const Range of_h = share(static_cast<int64_t>(s.slots.size()), team);
    for (int64_t i = of_h.begin; i < of_h.end; ++i) {
      const S* h = state_before(k, s.slots[i]);
      if (inside_.drops_state()) copy_masked(h, batches_[k].row[s.slots[i].row], s.h + i * ldh_);
      else copy(h, p_.P, s.h + i * ldh_);
    }
    if constexpr (kNarrow) {
      const Range of_x = share(static_cast<int64_t>(s.x_slots.size()), team);
      for (int64_t i = of_x.begin; i < of_x.end; ++i)
        copy(input(k, s.slots[s.x_slots[i]]), p_.I, s.x + i * ldx_);
    }
  }
  void copy_masked(const S* h, int64_t b, C* to) const {
    for (int64_t u = 0; u < p_.P; u += L) {
      const V masked = inside_.drop_state(inside_.dropped(b), u, load(h + u, lanes_left<C>(p_.P, u)));
      if constexpr (kPairs) store(reinterpret_cast<S*>(to) + u, masked);
      else store(to + u, masked);
    }
  }

  void input_product(const TeamScratch& s, const Range& panels) const {
    for (const Group& group : s.x_groups)
      multiply_rows<C, NW, kStep<S>>(
          ProductRows<C>(s.x_rows.data() + group.first, group.count, steps<S>(p_.I), group.tile),
          PackedPanels<C, NW>{packed(weights_).W, steps<S>(p_.I)}, Sweep{panels}, Nothing<C>{},
          each_row([&](int row, int64_t panel, const auto& sums) {
            C* out = gates_of(s, s.x_slots[group.first + row], panel);
            const C* b = bias_ + panel * NW * L;
#pragma GCC unroll 4
            for (int j = 0; j < NW; ++j) store(out + j * L, load(sums[j]) + load(b + j * L));
          }));
  }

  void recurrent_product(const TeamScratch& s, const Range& panels) const {
    for (const Group& group : s.h_groups)
      multiply_rows<C, NW, kStep<S>>(
          ProductRows<C>(s.h_rows.data() + group.first, group.count, steps<S>(p_.P), group.tile),
          PackedPanels<C, NW>{packed(weights_).R, steps<S>(p_.P)}, Sweep{panels},
          [&](int row, int64_t panel) {
            return TileAddend<C>{gates_of(s, group.first + row, panel), width_,
                                 kGru ? bias_q_ + panel * L : nullptr};
          },
          each_row([&](int row, int64_t panel, const auto& sums) {
            keep_gates(s, group.first + row, panel, sums);
          }));
  }

  void keep_gates(const TeamScratch& s, int64_t slot, int64_t panel, const RowSums<C, NW>& a) const {
    C* to = gates_of(s, slot, panel);
    if constexpr (cell == Cell::lstm) {
      const auto gates = cells::lstm_gates<Math>(load(a[0]), load(a[1]), load(a[2]), load(a[3]));
      store(to, gates.i);
      store(to + L, gates.f);
      store(to + 2 * L, gates.g);
      store(to + 3 * L, gates.o);
    } else {
      const auto gates = cells::gru_gates<Math>(load(a[0]), load(a[1]));
      const V q = load(a[2]);
      store(to, gates.r);
      store(to + L, gates.z);
      store(to + 2 * L, cells::gru_state<Math>(gates, load(to + 2 * L), q, V{}).n);
      store(s.q + slot * ldc_ + panel * L, q);
    }
  }

  void step_cells(int k, const Range& panels) const {
    const Batch& batch = batches_[k];
    const TeamScratch& s = scratch_[k];
    const Range units{panels.begin * L, std::min(p_.H, panels.end * L)};
    for (int i = 0, alive = batch.active(s.begin); i < alive; ++i)
      for (int64_t u = units.begin; u < units.end; u += L)
        store(s.cells + i * ldc_ + u, cell_before(k, s.begin, i, u));
    StepInside inside{.units = units, .states = {0, 0}};
    for (int64_t step = s.begin; step < s.end; ++step) {
      const int alive = batch.active(step);
      if (inside_) inside_.at_step(batch, step, alive, inside);
      for (int i = 0; i < alive; ++i) {
        if (inside_) step_row<true>(k, step, i, panels, inside.rows[i]);
        else step_row<false>(k, step, i, panels, {});
      }
    }
  }
  template <bool inside>
  void step_row(int k, int64_t step, int row, const Range& panels, const RowInside& in) const {
    const TeamScratch& s = scratch_[k];
    const int64_t n = batches_[k].size();
    const C* before = s.cells + ((step - s.begin) * n + row) * ldc_;
    C* after = s.cells + ((step - s.begin + 1) * n + row) * ldc_;
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const int64_t u = panel * L;
      const C* a = gates_of(s, slot(k, row, step), panel);
      cells::LstmGates<V> gates{load(a), load(a + L), load(a + 2 * L), load(a + 3 * L)};
      V c = load(before + u);
      if constexpr (inside) {
        if (in.begins) c = inside_.start_c(in.b, u, lanes_left<C>(p_.H, u));
        gates.g = inside_.drop_candidate(in, u, gates.g);
        store(after + u, inside_.zone_c(in, u, c, cells::lstm_state<Math>(gates, c).c));
      } else {
        store(after + u, cells::lstm_state<Math>(gates, c).c);
      }
    }
  }
  V cell_before(int k, int64_t step, int row, int64_t u) const {
    const int64_t b = batches_[k].row[row];
    const int lanes = lanes_left<C>(p_.H, u);
    if (step) return load(row_of<C>(p_.cells, step / p_.recompute - 1, b) + u, lanes);
    return p_.c0.data ? load(row_of<S>(p_.c0, 0, b) + u, lanes) : V{};
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
