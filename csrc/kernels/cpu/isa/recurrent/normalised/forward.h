// Cells with layer norms or with a recurrent matrix of blocks, forward: one direction of one layer, whole
// sequence.
//
// For a chunk of steps the input product of all rows is made at once and, where the form normalises it apart,
// normalised. Then each step is two parts: the recurrent product of all rows, shared out by columns of R, and
// the rest, by rows of the batch, since a norm wants a whole row of gates before the first of them.
#pragma once
#include "layer.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S, Cell cell>
class NormalisedForwardPass : NormalisedKernel<NormalisedForward, S, cell> {
  using Base = NormalisedKernel<NormalisedForward, S, cell>;
  using Base::apart_, Base::summed_, Base::of_state_, Base::GH_, Base::ldg_, Base::ldh_, Base::blocks_;
  using Base::b_c_, Base::b_hh_, Base::b_ih_, Base::g_c_, Base::g_hh_, Base::g_ih_;
  using Base::batches_, Base::bounds_, Base::fresh_, Base::p_, Base::plan_, Base::relu_;
  using Base::G, Base::L;
  using typename Base::C, typename Base::V;

  // What the threads of one team share.
  struct TeamScratch {
    C* x_part;  // [chunk rows][ldg] W x, normalised where that is done apart
    C* x;       // [chunk rows][ldx] the input, widened
    C* h_part;  // [rows][ldg] R h'
    C* h;       // [rows][ldh] the state as the step reads it
    C* c;       // [rows][ldh]
  };
  // A row at a step.
  struct Token {
    int i;
    int64_t step, t, b;
  };

  const int64_t ldx_, panels_x_, panels_h_;  // the latter of a block
  const bool once_;  // whether this call uses each weight but once: packed as it is used
  C *W_, *R_;
  std::vector<TeamScratch> scratch_;

public:
  NormalisedForwardPass(const NormalisedForward& p, const cpu::Plan& plan)
      : Base(p, plan, plan.chunk_rows * Base::teams(plan)),
        ldx_(padded<C>(p.I)),
        panels_x_(PanelShape{GH_, 1}.template count<C>()),
        panels_h_(PanelShape{blocks_.rows(), 1}.template count<C>()),
        once_(this->reads_R_once()) {}
  static void run(const NormalisedForward& p) {
    NormalisedForwardPass(p, cpu::plan_forward(Base::planned(p))).run();
  }

private:
  void run() {
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
    this->read_vectors();
#pragma omp parallel num_threads(plan_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      if (!once_) pack(rank, size);
#pragma omp barrier
      this->each_team(rank, size, [&](int k, const Team& team) { run_team(k, team); });
    }
  }

  void lay_out(cpu::Arena& arena) {
    fresh_ = arena.take<C>(once_ ? plan_.threads * kFreshElements<C> : 0);
    W_ = arena.take<C>(once_ ? 0 : panels_x_ * p_.I * kTileColumns<C> + cpu::kReadPast);
    R_ =
        arena.take<C>(once_ ? 0 : p_.blocks * panels_h_ * blocks_.units() * kTileColumns<C> + cpu::kReadPast);
    this->take_vectors(arena);
    scratch_.assign(batches_.size(), {});
    for (size_t k = 0; k < batches_.size(); ++k) {
      const int64_t rows = largest_chunk({batches_[k]}, bounds_), n = batches_[k].size();
      TeamScratch& s = scratch_[k];
      s.x_part = arena.take<C>(rows * ldg_);
      s.x = arena.take<C>(sizeof(S) == sizeof(C) ? 0 : rows * ldx_);
      s.h_part = arena.take<C>(n * ldg_);
      s.h = arena.take<C>(n * ldh_);
      s.c = arena.take<C>(cell == Cell::lstm ? n * ldh_ : 0);
    }
  }

  void pack(int rank, int size) const {
    this->pack_right([&](int64_t n) { return row_of_W(n); }, GH_, p_.I, W_, rank, size);
    const int64_t m = blocks_.units();
    Blocks::each(share(p_.blocks * panels_h_, rank, size), panels_h_, [&](int64_t b, const Range& panels) {
      for (int64_t p = panels.begin; p < panels.end; ++p)
        pack_columns<S>([&](int64_t n) { return row_of_R(b, n); }, blocks_.rows(), m, p,
                        R_ + (b * panels_h_ + p) * m * kTileColumns<C>);
    });
  }
  const S* row_of_W(int64_t n) const { return static_cast<const S*>(p_.W.data) + n * p_.W.stride; }
  const S* row_of_R(int64_t block, int64_t n) const {
    return static_cast<const S*>(p_.R.data) + blocks_.row(block, n) * p_.R.stride;
  }

  // f(the panels of a weight [N][K] whose rows are row(n)), which lie at `packed` or are packed when needed.
  template <class RowPointer, class F>
  void with_panels(const RowPointer& row, int64_t N, int64_t K, const C* packed, const Team& team,
                   const F& f) const {
    if (!once_) return f(PackedPanels<C, kTileVectors>{packed, K});
    const auto pack = [&](const PanelBlock& block, C* buffer) {
      pack_columns<S>([&](int64_t n) { return row(n) + block.k0; }, N, block.k1 - block.k0, block.panel,
                      buffer);
    };
    f(FreshPanels{pack, fresh_ + team.rank * kFreshElements<C>});
  }

  void run_team(int k, const Team& team) {
    const Batch& batch = batches_[k];
    const TeamScratch& s = scratch_[k];
    const Range columns = share(p_.blocks * panels_h_, team);
    start(batch, s, team);
    team.barrier();

    std::vector<std::vector<const C*>> h_rows(static_cast<size_t>(p_.blocks));  // of each block
    for (int64_t b = 0; b < p_.blocks; ++b)
      for (int i = 0; i < batch.size(); ++i) h_rows[b].push_back(s.h + i * ldh_ + b * blocks_.units());
    std::vector<Token> tokens;
    for (size_t chunk = 0; chunk + 1 < bounds_.size(); ++chunk) {
      const int64_t begin = bounds_[chunk], end = std::min(bounds_[chunk + 1], batch.steps());
      // teams whose sequences have all ended; only teams of one thread get here early
      if (begin >= end) break;
      list_tokens(batch, {begin, end}, tokens);
      input_part(s, tokens, team);
      int64_t first = 0;
      for (int64_t step = begin; step < end; ++step) {
        const int rows = batch.active(step);
        Blocks::each(columns, panels_h_, [&](int64_t b, const Range& panels) {
          const int64_t m = blocks_.units();
          const auto multiply = [&](const auto& source) {
            multiply_rows<C, kTileVectors>(
                ProductRows<C>(h_rows[b].data(), rows, m), source, Sweep{panels, step}, Nothing<C>{},
                each_row([&](int row, int64_t panel, const auto& sums) {
                  blocks_.template scatter<C>(b, panel, sums, s.h_part + row * ldg_);
                }));
          };
          with_panels([&](int64_t n) { return row_of_R(b, n); }, blocks_.rows(), m,
                      R_ + (once_ ? 0 : b * panels_h_ * m * kTileColumns<C>), team, multiply);
        });
        team.barrier();
        const Range mine = share(rows, team);
        for (int64_t i = mine.begin; i < mine.end; ++i)
          finish_row(batch, s, tokens[first + i], s.x_part + (first + i) * ldg_);
        team.barrier();
        first += rows;
      }
    }
  }

  void start(const Batch& batch, const TeamScratch& s, const Team& team) const {
    const Range mine = share(batch.size(), team);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t b = batch.row[i];
      const bool anew = batch.length[i] > 0 && this->starts_anew(batch, static_cast<int>(i), 0);
      read_state(anew ? p_.resets.h : p_.h0, b, s.h + i * ldh_);
      if (!batch.length[i]) write_state(p_.h_n, b, s.h + i * ldh_);
      if constexpr (cell == Cell::lstm) {
        read_state(anew ? p_.resets.c : p_.c0, b, s.c + i * ldh_);
        if (!batch.length[i]) write_state(p_.c_n, b, s.c + i * ldh_);
      }
      for (int64_t t = batch.length[i]; t < p_.T; ++t) {
        clear<S>(p_.y, t, b, p_.H);
        clear<S>(p_.saved, t, b, normalised_saved(p_.norm, p_.cell) * p_.H);
        clear<C>(p_.cells, t, b, p_.H);
        clear<C>(p_.stats, t, b, kNormStats);
      }
    }
  }
  template <class X>
  static void clear(const Rows& rows, int64_t t, int64_t b, int64_t n) {
    if (rows.data) std::memset(static_cast<void*>(row_of<X>(rows, t, b)), 0, n * sizeof(X));
  }
  void read_state(const Rows& from, int64_t b, C* to) const {
    each_vector<C>(
        p_.H, [&](int64_t u, int lanes) { store(to + u, Base::load_or_zero(from, b, u, lanes), lanes); });
  }
  void write_state(const Rows& to, int64_t b, const C* from) const {
    each_vector<C>(
        p_.H, [&](int64_t u, int lanes) { store(row_of<S>(to, 0, b) + u, load(from + u, lanes), lanes); });
  }

  static void list_tokens(const Batch& batch, const Range& steps_of_chunk, std::vector<Token>& tokens) {
    tokens.clear();
    for (int64_t step = steps_of_chunk.begin; step < steps_of_chunk.end; ++step)
      for (int i = 0, n = batch.active(step); i < n; ++i)
        tokens.push_back({i, step, batch.time(i, step), batch.row[i]});
  }

  // W x of the chunk and, where that is done apart, its norm, or the biases.
  void input_part(const TeamScratch& s, const std::vector<Token>& tokens, const Team& team) const {
    const int64_t n = static_cast<int64_t>(tokens.size());
    const Range mine = share(n, team);
    std::vector<const C*> rows;
    for (int64_t r = 0; r < n; ++r) {
      const S* x = row_of<S>(p_.x, tokens[r].t, tokens[r].b);
      if constexpr (sizeof(S) == sizeof(C)) {
        rows.push_back(x);
      } else {
        C* to = s.x + r * ldx_;
        if (r >= mine.begin && r < mine.end)
          each_vector<C>(p_.I, [&](int64_t k, int lanes) { store(to + k, load(x + k, lanes), lanes); });
        rows.push_back(to);
      }
    }
    if constexpr (sizeof(S) != sizeof(C)) team.barrier();
    const auto multiply = [&](const auto& source) {
      multiply_rows<C, kTileVectors>(ProductRows<C>(rows, p_.I), source, Sweep{share(panels_x_, team)},
                                     Nothing<C>{}, each_row([&](int row, int64_t panel, const auto& sums) {
                                       store_row<C>(GH_, panel, sums, false, s.x_part + row * ldg_);
                                     }));
    };
    with_panels([&](int64_t n) { return row_of_W(n); }, GH_, p_.I, W_, team, multiply);
    team.barrier();
    if (summed_) return;
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      C* row = s.x_part + r * ldg_;
      if (!apart_) {
        add_row(row, b_ih_, GH_);
        continue;
      }
      S* saved = p_.saved.data ? this->saved_x(row_of<S>(p_.saved, tokens[r].t, tokens[r].b)) : nullptr;
      C* stats = p_.stats.data ? row_of<C>(p_.stats, tokens[r].t, tokens[r].b) : nullptr;
      this->each_group([&](int group, int64_t first, int64_t count) {
        const NormStats<C> of = norm_stats(row + first, count, p_.eps);
        if (stats) stats[group] = of.rstd;
        normalise<S>(row + first, count, of, g_ih_ + first, b_ih_ + first, static_cast<const C*>(nullptr),
                     saved ? saved + first : nullptr);
      });
    }
    // Barriers of the first step stand between this and other threads' use of it.
  }

  // Of a row: what R h' becomes, with W x in it where the cell only wants their sum.
  void recurrent_part(C* a, const C* x, S* saved, C* stats) const {
    constexpr bool kGru = cell == Cell::gru;
    const int64_t both = kGru && !summed_ ? 2 * p_.H : GH_;  // n wants the two parts
    if (!summed_ && !apart_) {
      add_row(a, b_hh_, GH_);
      return add_row(a, x, both);
    }
    if (summed_) add_row(a, x, GH_);
    C *const gain = summed_ ? g_ih_ : g_hh_, *const bias = summed_ ? b_ih_ : b_hh_;
    S* hat = saved ? this->saved_h(saved) : nullptr;
    NormStats<C> of[2];
    this->each_group([&](int group, int64_t first, int64_t count) {
      of[group] = norm_stats(a + first, count, p_.eps);
      if (stats) stats[2 + group] = of[group].rstd;
    });
    if (norm_groups(p_.norm, p_.cell) == 1) of[1] = of[0];
    normalise<S>(a, both, of[0], gain, bias, summed_ ? nullptr : x, hat);
    if (both < GH_)
      normalise<S>(a + both, GH_ - both, of[1], gain + both, bias + both, static_cast<const C*>(nullptr),
                   hat ? hat + both : nullptr);
  }

  void finish_row(const Batch& batch, const TeamScratch& s, const Token& token, const C* x) const {
    const int64_t H = p_.H, b = token.b, t = token.t;
    const int i = token.i;
    C *const a = s.h_part + i * ldg_, *const h = s.h + i * ldh_;
    S* const saved = p_.saved.data ? row_of<S>(p_.saved, t, b) : nullptr;
    C* const stats = p_.stats.data ? row_of<C>(p_.stats, t, b) : nullptr;
    S* const y = row_of<S>(p_.y, t, b);
    recurrent_part(a, x, saved, stats);
    if constexpr (cell == Cell::lstm) {
      C* const c = s.c + i * ldh_;
      each_vector<C>(H, [&](int64_t u, int lanes) {
        const auto gates = cells::lstm_gates<Math>(load(a + u, lanes), load(a + H + u, lanes),
                                                   load(a + 2 * H + u, lanes), load(a + 3 * H + u, lanes));
        store(c + u, gates.f * load(c + u, lanes) + gates.i * gates.g, lanes);
        store(a + 3 * H + u, gates.o, lanes);
        if (!saved) return;
        store(saved + u, gates.i, lanes);
        store(saved + H + u, gates.f, lanes);
        store(saved + 2 * H + u, gates.g, lanes);
        store(saved + 3 * H + u, gates.o, lanes);
      });
      output_of_state(a + 3 * H, c, stats, y, h);
      if (p_.cells.data)
        each_vector<C>(H, [&](int64_t u, int lanes) {
          store(row_of<C>(p_.cells, t, b) + u, load(c + u, lanes), lanes);
        });
      if (batch.last(i, token.step)) write_state(p_.c_n, b, c);
      else if (this->starts_anew(batch, i, token.step + 1)) read_state(p_.resets.c, b, c);
    } else if constexpr (cell == Cell::gru) {
      const C sign = static_cast<C>(keep_sign(p_.norm)), shift = static_cast<C>(keep_shift(p_.norm));
      each_vector<C>(H, [&](int64_t u, int lanes) {
        const cells::GruGates<V> gates =
            cells::gru_gates<Math>(load(a + u, lanes), load(a + H + u, lanes) * sign + shift);
        const V q = load(a + 2 * H + u, lanes);
        const V x_n = summed_ ? V{} : load(x + 2 * H + u, lanes);
        const auto state = cells::gru_state<Math>(gates, x_n, q, load(h + u, lanes));
        store(h + u, rounded<S>(state.h), lanes);
        store(y + u, state.h, lanes);
        if (!saved) return;
        store(saved + u, state.r, lanes);
        store(saved + H + u, state.z, lanes);
        store(saved + 2 * H + u, state.n, lanes);
        store(saved + 3 * H + u, q, lanes);
      });
    } else {
      each_vector<C>(H, [&](int64_t u, int lanes) {
        const V out = cells::rnn<Math>(relu_, load(a + u, lanes));
        store(h + u, rounded<S>(out), lanes);
        store(y + u, out, lanes);
      });
    }
    if (batch.last(i, token.step)) write_state(p_.h_n, b, h);
    else if (this->starts_anew(batch, i, token.step + 1)) read_state(p_.resets.h, b, h);
  }

  // h = o tanh(c), of a normalised c where the form says so.
  void output_of_state(const C* o, const C* c, C* stats, S* y, C* h) const {
    NormStats<C> of{0, 1};
    if (of_state_) {
      of = norm_stats(c, p_.H, p_.eps);
      if (stats) stats[1] = of.mean, stats[3] = of.rstd;
    }
    const V mean = splat(of.mean), rstd = splat(of.rstd);
    each_vector<C>(p_.H, [&](int64_t u, int lanes) {
      V v = load(c + u, lanes);
      if (of_state_) v = (v - mean) * rstd * load(g_c_ + u, lanes) + load(b_c_ + u, lanes);
      v = load(o + u, lanes) * Math::tanh(v);
      store(h + u, rounded<S>(v), lanes);
      store(y + u, v, lanes);
    });
  }
};

template <Cell cell>
void normalised_forward_of(const NormalisedForward& p) {
  with_storage(p.dtype, [&](auto s) { NormalisedForwardPass<decltype(s), cell>::run(p); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
