// Cells with layer norms or with a recurrent matrix of blocks, backward: one direction of one layer, whole
// sequence.
//
// Chunks of steps, last first. A step is two parts, as forward: by rows of the batch, the gradient of the
// cell and of its norms, which gives those of W x and of R h'; then, by columns, their product with R, which
// is what the step before it receives. Once a chunk's gradients stand in scratch, all threads together turn
// them into dX, dW and dR.
//
// Of W x the columns are gate by gate; of R h' block by block, the gates of a block side by side, as the
// product with R reads them.
#pragma once
#include "layer.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class S, Cell cell>
class NormalisedBackwardPass : NormalisedKernel<NormalisedBackward, S, cell> {
  using Base = NormalisedKernel<NormalisedBackward, S, cell>;
  using Base::apart_, Base::summed_, Base::of_state_, Base::GH_, Base::ldg_, Base::ldh_, Base::blocks_;
  using Base::b_c_, Base::g_c_, Base::g_hh_, Base::g_ih_;
  using Base::batches_, Base::bounds_, Base::p_, Base::plan_, Base::relu_;
  using Base::G, Base::L;
  using typename Base::C, typename Base::V;
  static constexpr bool kGru = cell == Cell::gru;
  // Rows that a thread sums the gradients of gains and biases over before they go to sums in double.
  static constexpr int kVectorRows = 32;

  struct TeamScratch {
    C* dh;                   // [rows][ldh] what the step after sends back through R
    C* direct;               // [rows][ldh] GRU: and beside it
    C* dc;                   // [rows][ldh] LSTM
    C *dreset_h, *dreset_c;  // [rows][ldh] sums; null: not wanted
  };
  // Gradients of the gains and biases, [GH] four times and [H] twice.
  struct VectorSums {
    C *g_ih, *b_ih, *g_hh, *b_hh, *g_c, *b_c;
  };
  struct ThreadScratch {
    C* all;  // VectorSums, one after another
    VectorSums vectors;
    double* sums;          // of `all`
    int rows;              // in `all`
    C *da_x, *da_h, *row;  // [ldg]
  };
  // A row at a step.
  struct Token {
    int32_t b;
    int64_t t;
    bool first, anew;  // its state came from h0, from `reset_to`
  };

  // W x and R h' have one gradient; and their biases have.
  const bool same_, one_bias_;
  const int64_t vectors_;  // elements of VectorSums
  const int64_t panels_x_, panels_h_;
  C *W_, *R_;
  C *dx_part_, *dh_part_;  // [chunk rows][ldg] the gradients of W x and of R h'; one where they are the same
  C *sum_W_, *sum_R_;      // sums of weight gradients where they are stored in 16 bits
  C *x_panels_, *h_panels_;
  S* zero_row_;
  std::vector<TeamScratch> scratch_;
  std::vector<ThreadScratch> threads_;

public:
  NormalisedBackwardPass(const NormalisedBackward& p, const cpu::Plan& plan)
      : Base(p, plan, plan.chunk_rows),
        same_(summed_ || (p.norm == Norm::none && !kGru)),
        one_bias_(summed_ || !kGru),
        vectors_(4 * ldg_ + 2 * ldh_),
        panels_x_(PanelShape{p.I, 1}.template count<C>()),
        panels_h_(PanelShape{blocks_.units(), 1}.template count<C>()) {}
  static void run(const NormalisedBackward& p) {
    NormalisedBackwardPass(p, cpu::plan_backward(Base::planned(p))).run();
  }

private:
  void run() {
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
    this->read_vectors();
    std::memset(static_cast<void*>(zero_row_), 0, p_.H * sizeof(S));
    const int64_t chunks = static_cast<int64_t>(bounds_.size()) - 1;
#pragma omp parallel num_threads(plan_.threads)
    {
      const int rank = omp_get_thread_num(), size = omp_get_num_threads();
      pack(rank, size);
      clear_padding(rank, size);
      std::fill_n(threads_[rank].all, vectors_, C(0));
      std::fill_n(threads_[rank].sums, vectors_, 0.0);
      this->each_team(rank, size, [&](int k, const Team& team) { start(k, team); });
#pragma omp barrier
      std::vector<Token> tokens;
      for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
        this->each_team(rank, size, [&](int k, const Team& team) { run_team(k, team, rank, chunk); });
#pragma omp barrier
        list_tokens(chunk, tokens);
        chunk_gradients(tokens, chunk + 1 < chunks, rank, size);
#pragma omp barrier
      }
      this->each_team(rank, size, [&](int k, const Team& team) { initial_state(k, team); });
      flush(threads_[rank]);
#pragma omp barrier
      write_gradients(chunks == 0, rank, size);
    }
  }

  void lay_out(cpu::Arena& arena) {
    const int64_t rows = std::max<int64_t>(1, largest_chunk(batches_, bounds_)), m = blocks_.units();
    W_ = arena.take<C>(p_.dx.data ? panels_x_ * GH_ * kTileColumns<C> + cpu::kReadPast : 0);
    R_ = arena.take<C>(p_.blocks * panels_h_ * blocks_.rows() * kTileColumns<C> + cpu::kReadPast);
    this->take_vectors(arena);
    dx_part_ = arena.take<C>(rows * ldg_);
    dh_part_ = same_ && p_.blocks == 1 ? dx_part_ : arena.take<C>(rows * ldg_);
    constexpr bool narrow = sizeof(S) != sizeof(C);
    sum_W_ = arena.take<C>(narrow && p_.dW.data ? GH_ * p_.I : 0);
    sum_R_ = arena.take<C>(narrow && p_.dR.data ? GH_ * m : 0);
    x_panels_ = arena.take<C>(p_.dW.data ? panels_x_ * rows * kTileColumns<C> : 0);
    h_panels_ = arena.take<C>(p_.dR.data ? p_.blocks * panels_h_ * rows * kTileColumns<C> : 0);
    zero_row_ = arena.take<S>(ldh_);
    scratch_.assign(batches_.size(), {});
    for (size_t k = 0; k < batches_.size(); ++k) {
      const int64_t n = batches_[k].size() * ldh_;
      TeamScratch& s = scratch_[k];
      s.dh = arena.take<C>(n);
      s.direct = arena.take<C>(kGru ? n : 0);
      s.dc = arena.take<C>(cell == Cell::lstm ? n : 0);
      s.dreset_h = p_.dreset_h.data ? arena.take<C>(n) : nullptr;
      s.dreset_c = p_.dreset_c.data ? arena.take<C>(n) : nullptr;
    }
    threads_.assign(static_cast<size_t>(plan_.threads), {});
    for (ThreadScratch& t : threads_) {
      C* v = t.all = arena.take<C>(vectors_);
      t.vectors = {v, v + ldg_, v + 2 * ldg_, v + 3 * ldg_, v + 4 * ldg_, v + 4 * ldg_ + ldh_};
      t.sums = arena.take<double>(vectors_);
      t.da_x = arena.take<C>(ldg_);
      t.da_h = arena.take<C>(ldg_);
      t.row = arena.take<C>(ldg_);
    }
  }

  const S* recurrent_row(int64_t b, int64_t n) const {
    return static_cast<const S*>(p_.R.data) + blocks_.row(b, n) * p_.R.stride;
  }

  void pack(int rank, int size) const {
    const int64_t rows = blocks_.rows(), m = blocks_.units();
    Blocks::each(share(p_.blocks * panels_h_, rank, size), panels_h_, [&](int64_t b, const Range& panels) {
      for (int64_t q = panels.begin; q < panels.end; ++q)
        pack_rows<S>([&](int64_t n) { return recurrent_row(b, n); }, m, 0, rows, q,
                     R_ + (b * panels_h_ + q) * rows * kTileColumns<C>);
    });
    if (!p_.dx.data) return;
    const S* W = static_cast<const S*>(p_.W.data);
    const Range mine = share(panels_x_, rank, size);
    for (int64_t q = mine.begin; q < mine.end; ++q)
      pack_rows<S>([&](int64_t n) { return W + n * p_.W.stride; }, p_.I, 0, GH_, q,
                   W_ + q * GH_ * kTileColumns<C>);
  }

  void clear_padding(int rank, int size) const {
    if (!p_.lengths || !p_.dx.data || p_.add_dx) return;
    const Range mine = share(p_.B, rank, size);
    for (int64_t b = mine.begin; b < mine.end; ++b)
      for (int64_t t = p_.lengths[b]; t < p_.T; ++t)
        std::memset(static_cast<void*>(row_of<S>(p_.dx, t, b)), 0, p_.I * sizeof(S));
  }

  void start(int k, const Team& team) const {
    const Range mine = share(batches_[k].size(), team);
    for (C* sums : {scratch_[k].dreset_h, scratch_[k].dreset_c})
      if (sums) std::fill(sums + mine.begin * ldh_, sums + mine.end * ldh_, C(0));
  }

  // Row of the chunk where team k's rows of `step` begin; the teams lie one after another.
  int64_t first_row(int k, int64_t step, int64_t chunk) const {
    int64_t row = batches_[k].tokens(bounds_[chunk], step);
    for (int j = 0; j < k; ++j) row += batches_[j].tokens(bounds_[chunk], bounds_[chunk + 1]);
    return row;
  }

  // ---- the steps of one chunk -------------------------------------------------------------------------

  void run_team(int k, const Team& team, int rank, int64_t chunk) {
    const Batch& batch = batches_[k];
    const TeamScratch& s = scratch_[k];
    const int64_t begin = bounds_[chunk], end = std::min(bounds_[chunk + 1], batch.steps());
    const Range columns = share(p_.blocks * panels_h_, team);
    const int64_t rows_of_block = blocks_.rows(), m = blocks_.units();
    std::vector<const C*> parts(batch.size());
    for (int64_t step = end - 1; step >= begin; --step) {
      const int rows = batch.active(step);
      const int64_t first = first_row(k, step, chunk);
      const Range mine = share(rows, team);
      for (int64_t i = mine.begin; i < mine.end; ++i)
        step_row(batch, s, threads_[rank], static_cast<int>(i), step, first + i);
      team.barrier();
      Blocks::each(columns, panels_h_, [&](int64_t b, const Range& panels) {
        for (int i = 0; i < rows; ++i) parts[i] = dh_part_ + (first + i) * ldg_ + b * rows_of_block;
        multiply_rows<C, kTileVectors>(
            ProductRows<C>(parts.data(), rows, rows_of_block),
            PackedPanels<C, kTileVectors>{R_ + b * panels_h_ * rows_of_block * kTileColumns<C>,
                                          rows_of_block},
            Sweep{panels, step}, Nothing<C>{}, each_row([&](int row, int64_t panel, const auto& sums) {
              store_row<C>(m, panel, sums, false, s.dh + row * ldh_ + b * m);
            }));
      });
      team.barrier();
    }
  }

  // Row i at a step, whose gradients of W x and R h' go to row `at` of the chunk.
  void step_row(const Batch& batch, const TeamScratch& s, ThreadScratch& thread, int i, int64_t step,
                int64_t at) {
    const int64_t b = batch.row[i], t = batch.time(i, step), H = p_.H;
    const bool last = batch.last(i, step);
    const S* saved = p_.saved.data ? row_of<S>(p_.saved, t, b) : nullptr;
    const C* stats = p_.stats.data ? row_of<C>(p_.stats, t, b) : nullptr;
    C *const dh = s.dh + i * ldh_, *const dc = s.dc + i * ldh_;
    if (!last && kGru) add_row(dh, s.direct + i * ldh_, H);
    if (!last && this->starts_anew(batch, i, step + 1)) leave(s, i, dh, dc);
    each_vector<C>(H, [&](int64_t u, int lanes) {
      V v = last ? Base::load_or_zero(p_.dh_n, b, u, lanes) : load(dh + u, lanes);
      if (p_.dy.data) v += load(row_of<S>(p_.dy, t, b) + u, lanes);
      store(dh + u, v, lanes);
      if constexpr (cell == Cell::lstm)
        if (last) store(dc + u, Base::load_or_zero(p_.dc_n, b, u, lanes), lanes);
    });

    C *const da_x = thread.da_x, *const da_h = one_bias_ ? da_x : thread.da_h;
    const auto before = source(batch, i, step);
    if constexpr (cell == Cell::lstm) {
      lstm_row(thread, saved, row_of<C>(p_.cells, t, b), before, stats, dh, dc, da_x);
    } else if constexpr (kGru) {
      const C sign = static_cast<C>(keep_sign(p_.norm));
      each_vector<C>(H, [&](int64_t u, int lanes) {
        const auto d = cells::gru_backward(load(saved + u, lanes), load(saved + H + u, lanes),
                                           load(saved + 2 * H + u, lanes), load(saved + 3 * H + u, lanes),
                                           load(before.h + u, lanes), load(dh + u, lanes));
        for (C* to : {da_x, da_h}) {
          store(to + u, d.r, lanes);
          store(to + H + u, d.z * sign, lanes);
        }
        store(da_x + 2 * H + u, d.n, lanes);
        store(da_h + 2 * H + u, d.q, lanes);
        store(s.direct + i * ldh_ + u, d.h_prev, lanes);
      });
    } else {
      const S* y = row_of<S>(p_.y, t, b);
      each_vector<C>(H, [&](int64_t u, int lanes) {
        store(da_x + u, cells::rnn_backward(relu_, load(y + u, lanes), load(dh + u, lanes)), lanes);
      });
    }
    parts_row(thread, da_x, da_h, saved, stats, at);
    if (++thread.rows == kVectorRows) flush(thread);
  }

  // The gradient that reaches a boundary goes to `reset_to`.
  void leave(const TeamScratch& s, int i, C* dh, [[maybe_unused]] C* dc) const {
    if (s.dreset_h) add_row(s.dreset_h + i * ldh_, dh, p_.H);
    std::fill_n(dh, p_.H, C(0));
    if constexpr (cell == Cell::lstm) {
      if (s.dreset_c) add_row(s.dreset_c + i * ldh_, dc, p_.H);
      std::fill_n(dc, p_.H, C(0));
    }
  }

  // The state that a step read: h as it is stored and, of an LSTM, c in one type or the other.
  struct Source {
    const S* h;
    const C* cells;
    const S* c;
    FUSEGEN_INLINE V load_c(int64_t u, int lanes) const {
      return cells ? load(cells + u, lanes) : load(c + u, lanes);
    }
  };
  Source source(const Batch& batch, int i, int64_t step) const {
    const int64_t b = batch.row[i], t = batch.time(i, step) + (batch.reverse ? 1 : -1);
    const auto given = [&](const Rows& rows) {
      return rows.data ? static_cast<const S*>(row_of<S>(rows, 0, b)) : zero_row_;
    };
    if (this->starts_anew(batch, i, step)) return {given(p_.resets.h), nullptr, given(p_.resets.c)};
    if (step == 0) return {given(p_.h0), nullptr, given(p_.c0)};
    return {row_of<S>(p_.y, t, b), p_.cells.data ? row_of<C>(p_.cells, t, b) : nullptr, nullptr};
  }

  // The gradients of an LSTM's gates in `da`, and of c before the step in `dc`.
  void lstm_row(ThreadScratch& thread, const S* saved, const C* c, const Source& before, const C* stats,
                const C* dh, C* dc, C* da) const {
    const int64_t H = p_.H;
    const V mean = splat(of_state_ ? stats[1] : C(0)), rstd = splat(of_state_ ? stats[3] : C(1));
    C* const de = thread.row;  // of what tanh sees, times the gain
    V sum{}, slope{};
    each_vector<C>(H, [&](int64_t u, int lanes) {
      const V o = load(saved + 3 * H + u, lanes), d = load(dh + u, lanes);
      V v = load(c + u, lanes), hat{};
      if (of_state_) {
        hat = (v - mean) * rstd;
        v = hat * load(g_c_ + u, lanes) + load(b_c_ + u, lanes);
      }
      const V tc = Math::tanh(v);
      store(da + 3 * H + u, d * tc * o * (1 - o), lanes);
      V e = d * o * (1 - tc * tc);
      if (of_state_) {
        const VectorSums& sums = thread.vectors;
        store(sums.g_c + u, load(sums.g_c + u, lanes) + e * hat, lanes);
        store(sums.b_c + u, load(sums.b_c + u, lanes) + e, lanes);
        e *= load(g_c_ + u, lanes);
        sum += e;
        slope += e * hat;
      }
      store(de + u, e, lanes);
    });
    const V middle = splat(of_state_ ? sum_lanes<C>(sum) / static_cast<C>(H) : C(0)),
            tilt = splat(of_state_ ? sum_lanes<C>(slope) / static_cast<C>(H) : C(0));
    each_vector<C>(H, [&](int64_t u, int lanes) {
      const V i = load(saved + u, lanes), f = load(saved + H + u, lanes), g = load(saved + 2 * H + u, lanes);
      V d = load(de + u, lanes);
      if (of_state_) d = rstd * (d - middle - (load(c + u, lanes) - mean) * rstd * tilt);
      d += load(dc + u, lanes);
      store(da + u, d * g * i * (1 - i), lanes);
      store(da + H + u, d * before.load_c(u, lanes) * f * (1 - f), lanes);
      store(da + 2 * H + u, d * i * (1 - g * g), lanes);
      store(dc + u, d * f, lanes);
    });
  }

  // From the gradients of what the activations saw to those of W x and of R h'.
  void parts_row(ThreadScratch& thread, const C* da_x, const C* da_h, const S* saved, const C* stats,
                 int64_t at) {
    const VectorSums& sums = thread.vectors;
    C *const of_x = dx_part_ + at * ldg_, *const of_h = dh_part_ + at * ldg_;
    C* const row = p_.blocks == 1 ? of_h : thread.row;  // of R h', gate by gate
    if (summed_) {
      norm_part(da_x, this->saved_h(saved), stats + 2, g_ih_, sums.g_ih, sums.b_ih, of_x);
    } else if (apart_) {
      norm_part(da_x, this->saved_x(saved), stats, g_ih_, sums.g_ih, sums.b_ih, of_x);
      norm_part(da_h, this->saved_h(saved), stats + 2, g_hh_, sums.g_hh, one_bias_ ? nullptr : sums.b_hh,
                row);
    } else {
      std::copy_n(da_x, GH_, of_x);
      add_row(sums.b_ih, da_x, GH_);
      if (!same_) {
        std::copy_n(da_h, GH_, row);
        add_row(sums.b_hh, da_h, GH_);
      }
    }
    if (p_.blocks > 1) blocks_.gather(same_ ? of_x : row, of_h);
  }
  void norm_part(const C* da, const S* hat, const C* rstd, const C* gain, C* sum_gain, C* sum_bias,
                 C* out) const {
    this->each_group([&](int group, int64_t first, int64_t count) {
      norm_backward(da + first, hat + first, rstd[group], gain + first, count, sum_gain + first,
                    sum_bias ? sum_bias + first : nullptr, out + first);
    });
  }

  void flush(ThreadScratch& thread) const {
    for (int64_t i = 0; i < vectors_; ++i) {
      thread.sums[i] += static_cast<double>(thread.all[i]);
      thread.all[i] = 0;
    }
    thread.rows = 0;
  }

  // dh_0, dc_0 and the gradients of `reset_to`.
  void initial_state(int k, const Team& team) const {
    const Batch& batch = batches_[k];
    const TeamScratch& s = scratch_[k];
    const Range mine = share(batch.size(), team);
    for (int i = static_cast<int>(mine.begin); i < mine.end; ++i) {
      const int64_t b = batch.row[i];
      C *const dh = s.dh + i * ldh_, *const dc = s.dc + i * ldh_;
      if (batch.length[i] == 0) {
        each_vector<C>(p_.H, [&](int64_t u, int lanes) {
          store(dh + u, Base::load_or_zero(p_.dh_n, b, u, lanes), lanes);
          if constexpr (cell == Cell::lstm) store(dc + u, Base::load_or_zero(p_.dc_n, b, u, lanes), lanes);
        });
      } else {
        if (kGru) add_row(dh, s.direct + i * ldh_, p_.H);
        if (this->starts_anew(batch, i, 0)) leave(s, i, dh, dc);
      }
      write_state(p_.dh0, b, dh);
      if (s.dreset_h) write_state(p_.dreset_h, b, s.dreset_h + i * ldh_);
      if constexpr (cell == Cell::lstm) {
        write_state(p_.dc0, b, dc);
        if (s.dreset_c) write_state(p_.dreset_c, b, s.dreset_c + i * ldh_);
      }
    }
  }
  void write_state(const Rows& to, int64_t b, const C* from) const {
    if (!to.data) return;
    each_vector<C>(
        p_.H, [&](int64_t u, int lanes) { store(row_of<S>(to, 0, b) + u, load(from + u, lanes), lanes); });
  }

  // ---- gradients of a whole chunk ---------------------------------------------------------------------

  void list_tokens(int64_t chunk, std::vector<Token>& tokens) const {
    tokens.clear();
    for (const Batch& batch : batches_)
      for (int64_t step = bounds_[chunk], end = std::min(bounds_[chunk + 1], batch.steps()); step < end;
           ++step)
        for (int i = 0, n = batch.active(step); i < n; ++i)
          tokens.push_back({batch.row[i], batch.time(i, step), step == 0, this->starts_anew(batch, i, step)});
  }

  // The state that R multiplied.
  const S* state_before(const Token& token) const {
    if (token.anew) return p_.resets.h.data ? row_of<S>(p_.resets.h, 0, token.b) : zero_row_;
    if (token.first) return p_.h0.data ? row_of<S>(p_.h0, 0, token.b) : zero_row_;
    return row_of<S>(p_.y, p_.reverse ? token.t + 1 : token.t - 1, token.b);
  }

  void pack_operands(const std::vector<Token>& tokens, const Range& mine) const {
    const int64_t K = static_cast<int64_t>(tokens.size()), m = blocks_.units();
    for (int64_t q = 0; p_.dW.data && q < panels_x_; ++q)
      pack_rows<S>([&](int64_t k) { return row_of<S>(p_.x, tokens[k].t, tokens[k].b); }, p_.I, mine.begin,
                   mine.end, q, x_panels_ + q * K * kTileColumns<C>);
    for (int64_t b = 0; p_.dR.data && b < p_.blocks; ++b)
      for (int64_t q = 0; q < panels_h_; ++q)
        pack_rows<S>([&](int64_t k) { return state_before(tokens[k]) + b * m; }, m, mine.begin, mine.end, q,
                     h_panels_ + (b * panels_h_ + q) * K * kTileColumns<C>);
  }

  void chunk_gradients(const std::vector<Token>& tokens, bool add, int rank, int size) const {
    const int64_t K = static_cast<int64_t>(tokens.size());
    pack_operands(tokens, share(K, rank, size));
    if (p_.dx.data) input_gradient(tokens, share(K, rank, size));
#pragma omp barrier
    ColumnProduct<C> product{.a = dx_part_,
                             .stride = ldg_,
                             .columns = share(GH_, rank, size, kGradientColumns),
                             .b = x_panels_,
                             .N = p_.I,
                             .K = K,
                             .add = add,
                             .out = in_place(p_.dW, sum_W_),
                             .first = 0,
                             .rows = GH_};
    if (p_.dW.data) multiply_columns(product);
    if (!p_.dR.data) return;
    const int64_t m = blocks_.units();
    product.N = m;
    if (p_.blocks == 1) {
      product.a = dh_part_;
      product.b = h_panels_;
      product.out = in_place(p_.dR, sum_R_);
      return multiply_columns(product);
    }
    const Range mine = share(p_.blocks * G, rank, size);
    for (int64_t part = mine.begin; part < mine.end; ++part) {
      const int64_t b = part / G, g = part % G;
      product.a = dh_part_ + b * blocks_.rows() + g * m;
      product.b = h_panels_ + b * panels_h_ * K * kTileColumns<C>;
      product.columns = {0, m};
      product.out = in_place(p_.dR, sum_R_) + (g * p_.H + b * m) * m;
      product.rows = m;
      multiply_columns(product);
    }
  }

  void input_gradient(const std::vector<Token>& tokens, const Range& mine) const {
    std::vector<const C*> a;
    for (int64_t i = mine.begin; i < mine.end; ++i) a.push_back(dx_part_ + i * ldg_);
    multiply_rows<C, kTileVectors>(
        ProductRows<C>(a, GH_), PackedPanels<C, kTileVectors>{W_, GH_}, Sweep{{0, panels_x_}}, Nothing<C>{},
        each_row([&](int row, int64_t q, const auto& sums) {
          const Token& token = tokens[mine.begin + row];
          store_row<S>(p_.I, q, sums, p_.add_dx, row_of<S>(p_.dx, token.t, token.b));
        }));
  }

  // Where a weight gradient is summed: in the result, or beside it where that has 16 bits.
  static C* in_place(const Matrix& result, C* sums) {
    return sizeof(S) == sizeof(C) ? static_cast<C*>(result.data) : sums;
  }

  void write_gradients(bool none, int rank, int size) const {
    const auto matrix = [&](const Matrix& to, const C* sums, int64_t n) {
      if (!to.data) return;
      const Range mine = share(n, rank, size);
      S* const out = static_cast<S*>(to.data);
      if (none) std::memset(static_cast<void*>(out + mine.begin), 0, (mine.end - mine.begin) * sizeof(S));
      else if (sizeof(S) != sizeof(C))
        for (int64_t i = mine.begin; i < mine.end; ++i) from_float(sums[i], out[i]);
    };
    matrix(p_.dW, sum_W_, GH_ * p_.I);
    matrix(p_.dR, sum_R_, GH_ * blocks_.units());
    const auto vector = [&](void* to, const C* of_first, int64_t n) {
      if (!to) return;
      const int64_t at = of_first - threads_[0].all;
      const Range mine = share(n, rank, size);
      for (int64_t i = mine.begin; i < mine.end; ++i) {
        double sum = 0;
        for (int k = 0; k < size; ++k) sum += threads_[k].sums[at + i];
        from_float(static_cast<C>(sum), static_cast<S*>(to)[i]);
      }
    };
    const VectorSums& v = threads_[0].vectors;
    vector(p_.dg_ih, v.g_ih, GH_);
    vector(p_.db_ih, v.b_ih, GH_);
    vector(p_.dg_hh, v.g_hh, GH_);
    vector(p_.db_hh, one_bias_ ? v.b_ih : v.b_hh, GH_);
    vector(p_.dg_c, v.g_c, p_.H);
    vector(p_.db_c, v.b_c, p_.H);
  }
};

template <Cell cell>
void normalised_backward_of(const NormalisedBackward& p) {
  with_storage(p.dtype, [&](auto s) { NormalisedBackwardPass<decltype(s), cell>::run(p); });
}

}  // namespace fusegen::FUSEGEN_ISA_NS
