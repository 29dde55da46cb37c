// The three passes of a convolution, on tensors [blocks][pixels][channels][width] (params.h). What lies at
// one pixel of a block is a panel [channels][width] as it is, so each pass is a product over segments, one a
// tap:
//
//   y[pixel]  = sum over taps of W[tap] x[pixel under tap]          panel: x, steps: its channels
//   dx[pixel] = sum over taps of W[tap]^T dy[pixel over tap]        panel: dy, steps: its channels
//   dW[tap]   = sum over pixels of dy[pixel] x[pixel under tap]^T   panel: x, turned; steps: samples
#pragma once
#include <omp.h>

#include "kernels/activations.h"
#include "kernels/cpu/arena.h"
#include "kernels/cpu/isa/vector/pack.h"
#include "kernels/cpu/isa/vector/segments.h"
#include "kernels/cpu/plan.h"

namespace fusegen::FUSEGEN_ISA_NS {

// Of a weight gradient, samples summed at a time: longer sums lose more than torch's of one half of them
// (measured).
constexpr int64_t kSampleBlock = 64;

template <class C>
class ConvPass {
protected:
  using V = Vector<C>;
  static constexpr int L = kLanes<C>;

  // [place * taps + tap] along one dim: what a tap at that place meets on the other side, -1 for nothing.
  using Meets = std::vector<int64_t>;
  // One side of the convolution: its sizes, the channels of a group, and what its pixels meet on the other
  // side.
  struct Side {
    const int64_t* size;
    int64_t channels;
    Meets meets[2];
    int64_t pixels() const { return size[0] * size[1]; }
  };

  const ConvShape& s_;
  const int64_t taps_, Cg_, Og_;  // channels of a group
  Side input_, output_;
  const int threads_;

  explicit ConvPass(const ConvShape& s)
      : s_(s),
        taps_(s.kernel[0] * s.kernel[1]),
        Cg_(s.C / s.groups),
        Og_(s.O / s.groups),
        input_{s.in, Cg_, {}},
        output_{s.out, Og_, {}},
        threads_(cpu::plan_threads(s)) {
    for (int d = 0; d < 2; ++d) {
      input_.meets[d].assign(s.in[d] * s.kernel[d], -1);
      output_.meets[d].assign(s.out[d] * s.kernel[d], -1);
      for (int64_t place = 0; place < s.out[d]; ++place)
        for (int64_t tap = 0; tap < s.kernel[d]; ++tap) {
          const int64_t in = place * s.stride[d] - s.padding[d] + tap * s.dilation[d];
          if (in < 0 || in >= s.in[d]) continue;
          output_.meets[d][place * s.kernel[d] + tap] = in;
          input_.meets[d][in * s.kernel[d] + tap] = place;
        }
    }
  }

  // f(tap, other pixel) for every tap that meets something, of a pixel of this side.
  template <class F>
  FUSEGEN_INLINE void each_tap(const Side& side, const Side& other, int64_t pixel, const F& f) const {
    const int64_t* rows = side.meets[0].data() + pixel / side.size[1] * s_.kernel[0];
    const int64_t* columns = side.meets[1].data() + pixel % side.size[1] * s_.kernel[1];
    for (int64_t i = 0; i < s_.kernel[0]; ++i)
      for (int64_t j = 0; rows[i] >= 0 && j < s_.kernel[1]; ++j)
        if (columns[j] >= 0) f(i * s_.kernel[1] + j, rows[i] * other.size[1] + columns[j]);
  }

  template <class F>
  static void with_vectors(int64_t width, F&& f) {
    switch (width / L) {
      case 1: return f(std::integral_constant<int, 1>{});
      case 2: return f(std::integral_constant<int, 2>{});
      case 3: return f(std::integral_constant<int, 3>{});
      case 4: return f(std::integral_constant<int, 4>{});
    }
  }

  // The weights between a channel and those of the other side: `step` from one of these to the next, the taps
  // at each.
  struct Taps {
    const C* data;
    int64_t step;
  };

  // Every pixel of side `to`: the sums over taps of weights times what x has at the pixels of side `from`
  // that they meet. weights(g, channel): Taps. prepare(at) and finish(at, channel, sums) are told where the
  // pixel's channels, and where a vector of one of them begins.
  template <class Weights, class Prepare, class Finish>
  void sweep(const Side& to, const Side& from, const C* x, const Weights& weights, const Prepare& prepare,
             const Finish& finish) const {
    const int64_t K = taps_ * from.channels, all = s_.groups * to.channels * K;
    cpu::Arena arena(all * sizeof(C));
    C* turned = arena.take<C>(all);
    with_vectors(s_.width, [&](auto nw) {
      constexpr int NW = nw;
#pragma omp parallel num_threads(threads_)
      {
        const int rank = omp_get_thread_num(), size = omp_get_num_threads();
        turn_weights<NW>(to, from, rank, size, weights, turned);
#pragma omp barrier
        std::vector<Segment<C>> segments;
        std::vector<TileSums<C, NW>> sums;
        // Few pixels (a dense layer has one) are cut into ranges of tiles, so that every thread has its
        // share.
        const int64_t pixels = s_.blocks * to.pixels() * s_.groups, tiles = tile_count<NW>(to.channels);
        const int64_t cuts = pixels >= 4 * size ? 1 : std::min(tiles, (4 * size + pixels - 1) / pixels);
        const Range mine = share(pixels * cuts, rank, size);
        for (int64_t part = mine.begin; part < mine.end; ++part) {
          const int64_t i = part / cuts / s_.groups, g = part / cuts % s_.groups;
          const int64_t at = (i * s_.groups + g) * to.channels * s_.width;
          prepare(at);
          segments.clear();
          each_tap(to, from, i % to.pixels(), [&](int64_t tap, int64_t pixel) {
            const C* w =
                x + ((i / to.pixels() * from.pixels() + pixel) * s_.groups + g) * from.channels * s_.width;
            for (int64_t k = 0; k < from.channels; k += kPanelBlockSteps)
              segments.push_back({w + k * s_.width, std::min(kPanelBlockSteps, from.channels - k),
                                  turned + g * to.channels * K, tap * from.channels + k});
          });
          multiply_segments<C, NW>(
              segments, to.channels, share(tiles, static_cast<int>(part % cuts), static_cast<int>(cuts)), K,
              sums, [&](int row, const RowSums<C, NW>& sum) {
                for (int j = 0; j < NW; ++j)
                  finish(at + row * s_.width + j * L, g * to.channels + row, load(sum[j]));
              });
        }
      }
    });
  }

private:
  // [groups][rows turned for tiles of NW vectors] of steps [taps][channels of the other side].
  template <int NW, class Weights>
  void turn_weights(const Side& to, const Side& from, int rank, int size, const Weights& weights,
                    C* out) const {
    const int64_t K = taps_ * from.channels;
    for (int64_t g = 0; g < s_.groups; ++g)
      for_each_tile<NW>(static_cast<int>(to.channels), [&](int tile, int first, int m) {
        if (tile % size != rank) return;
        C* rows = out + (g * to.channels + first) * K;
        for (int i = 0; i < m; ++i) {
          const Taps taps = weights(g, first + i);
          for (int64_t c = 0; c < from.channels; ++c)
            for (int64_t t = 0; t < taps_; ++t)
              rows[(t * from.channels + c) * m + i] = taps.data[c * taps.step + t];
        }
      });
  }
};

template <class C>
class ConvForwardPass : ConvPass<C> {
  using Base = ConvPass<C>;
  using Base::Cg_, Base::Og_, Base::taps_;
  using typename Base::Taps;
  using typename Base::V;
  const ConvForward& p_;

public:
  explicit ConvForwardPass(const ConvForward& p) : Base(p), p_(p) {}

  void run() {
    const C *W = static_cast<const C*>(p_.W), *b = static_cast<const C*>(p_.b);
    const C slope = static_cast<C>(p_.slope);
    this->sweep(
        this->output_, this->input_, static_cast<const C*>(p_.x),
        [&](int64_t g, int64_t o) { return Taps{W + (g * Og_ + o) * Cg_ * taps_, taps_}; }, [](int64_t) {},
        [&](int64_t at, int64_t o, V v) {
          if (b) v += splat(b[o]);
          store(static_cast<C*>(p_.y) + at, activations::activated(v, slope));
        });
  }
};

template <class C>
class ConvInputPass : ConvPass<C> {
  using Base = ConvPass<C>;
  using Base::Cg_, Base::Og_, Base::taps_;
  using typename Base::Taps;
  using typename Base::V;
  const ConvInputGradient& p_;

public:
  explicit ConvInputPass(const ConvInputGradient& p) : Base(p), p_(p) {}

  void run() {
    const C *W = static_cast<const C*>(p_.W), *below = static_cast<const C*>(p_.below);
    const C slope = static_cast<C>(p_.slope);
    this->sweep(
        this->input_, this->output_, static_cast<const C*>(p_.dy),
        [&](int64_t g, int64_t c) { return Taps{W + (g * Og_ * Cg_ + c) * taps_, Cg_ * taps_}; },
        [&](int64_t at) {
          // Written a pass ago: out of every cache by now, and wanted when the sums are ready (a third of the
          // time).
          constexpr int64_t kLine = 64 / sizeof(C);
          for (int64_t n = 0; below && n < Cg_ * p_.width; n += kLine)
            __builtin_prefetch(below + at + n, 0, 2);
        },
        [&](int64_t at, int64_t, V v) {
          if (below) v = activations::activation_gradient(load(below + at), v, slope);
          store(static_cast<C*>(p_.dx) + at, v);
        });
  }
};

// A panel's columns are channels under one tap, or where there are few channels, all of a group under all
// taps.
template <class C>
class ConvWeightPass : ConvPass<C> {
  using Base = ConvPass<C>;
  using Base::Cg_, Base::Og_, Base::taps_, Base::L, Base::input_, Base::output_;
  using typename Base::V;
  const ConvWeightGradient& p_;
  const bool merged_ = 2 * Cg_ <= L;
  const int64_t wide_ = merged_ ? Cg_ * taps_ : Cg_;  // columns of a group
  const int vectors_ = static_cast<int>(std::min<int64_t>(kTileVectors, (wide_ + L - 1) / L));
  const int64_t panels_ = (wide_ + vectors_ * L - 1) / (vectors_ * L);  // of a group
  const int64_t panel_ = p_.width * vectors_ * L;                       // elements of one of a pixel
  // pixels whose samples are one block of steps
  const int64_t chunk_ = std::max<int64_t>(1, kSampleBlock / p_.width);
  // Of all pixels and groups, or of a thread's chunk in one group: panels [panels][width][vectors L] of x,
  // and dy's channels turned, a sample a step.
  C *x_, *dy_;

public:
  explicit ConvWeightPass(const ConvWeightGradient& p) : Base(p), p_(p) {}

  void run() {
    cpu::Arena arena([&](cpu::Arena& a) { lay_out(a); });
    this->with_vectors(vectors_ * L, [&](auto nw) {
#pragma omp parallel num_threads(this->threads_)
      {
        const int rank = omp_get_thread_num(), size = omp_get_num_threads();
        if (merged_) stream<nw>(rank, size);
        else products<nw>(rank, size);
      }
    });
  }

private:
  void lay_out(cpu::Arena& arena) {
    const int64_t chunks = this->threads_ * chunk_;
    x_ = arena.take<C>((merged_ ? chunks : p_.blocks * input_.pixels() * p_.groups) * panels_ * panel_);
    dy_ = arena.take<C>((merged_ ? chunks : p_.blocks * output_.pixels() * p_.groups) * Og_ * p_.width);
  }

  int lanes(int64_t panel, int j) const {
    const int64_t left = wide_ - (panel * vectors_ + j) * L;
    return left <= 0 ? 0 : left < L ? static_cast<int>(left) : L;
  }

  // Where each column's samples lie at pixel i, null for padding.
  void find_columns(int64_t i, int64_t g, std::vector<const C*>& columns) const {
    columns.resize(wide_);
    const C* x = static_cast<const C*>(p_.x) + g * Cg_ * p_.width;
    if (!merged_) {
      for (int64_t c = 0; c < Cg_; ++c) columns[c] = x + (i * p_.C + c) * p_.width;
      return;
    }
    std::fill(columns.begin(), columns.end(), nullptr);
    this->each_tap(output_, input_, i % output_.pixels(), [&](int64_t tap, int64_t in) {
      const C* first = x + (i / output_.pixels() * input_.pixels() + in) * p_.C * p_.width;
      for (int64_t c = 0; c < Cg_; ++c) columns[c * taps_ + tap] = first + c * p_.width;
    });
  }

  // The panels of a pixel whose columns these are.
  void turn_columns(const std::vector<const C*>& columns, C* to) const {
    for (int64_t q = 0; q < panels_; ++q)
      for (int j = 0; j < vectors_; ++j) {
        const int n = lanes(q, j);
        const C* const* from = columns.data() + (q * vectors_ + j) * L;
        for (int64_t s = 0; s < p_.width; s += L) {
          V v[L];
          for (int c = 0; c < L; ++c) v[c] = c < n && from[c] ? load(from[c] + s) : V{};
          transpose<C>(v);
          for (int c = 0; c < L; ++c) store(to + q * panel_ + ((s + c) * vectors_ + j) * L, v[c]);
        }
      }
  }

  // m rows of dy, from where the first lies.
  void turn_rows(const C* from, int m, C* to) const {
    for (int r = 0; r < m; r += L) {
      const int rows = std::min(L, m - r);
      for (int64_t n = 0; n < p_.width; n += L) {
        V v[L];
        for (int k = 0; k < L; ++k) v[k] = k < rows ? load(from + (r + k) * p_.width + n) : V{};
        transpose<C>(v);
        for (int k = 0; k < L; ++k) store(to + (n + k) * m + r, v[k], rows);
      }
    }
  }
  const C* gradient(int64_t i, int64_t g) const {
    return static_cast<const C*>(p_.dy) + (i * p_.O + g * Og_) * p_.width;
  }

  // A row of a panel into dW; from column to column `step` apart.
  template <int NW>
  void write(int64_t g, int64_t o, int64_t panel, int64_t t, int64_t step, const RowSums<C, NW>& row) const {
    C* dW = static_cast<C*>(p_.dW) + (g * Og_ + o) * Cg_ * taps_ + t;
    for (int j = 0; j < NW; ++j) {
      const int64_t first = (panel * NW + j) * L;
      for (int lane = 0, n = lanes(panel, j); lane < n; ++lane) dW[(first + lane) * step] = row[j][lane];
    }
  }

  // Both sides turned as a whole, then a product for each panel and tap.
  template <int NW>
  void products(int rank, int size) const {
    const Range in = share(p_.blocks * input_.pixels(), rank, size),
                out = share(p_.blocks * output_.pixels(), rank, size);
    std::vector<const C*> columns;
    for (int64_t g = 0; g < p_.groups; ++g) {
      for (int64_t i = in.begin; i < in.end; ++i) {
        find_columns(i, g, columns);
        turn_columns(columns, x_ + (i * p_.groups + g) * panels_ * panel_);
      }
      for (int64_t i = out.begin; i < out.end; ++i)
        for_each_tile<NW>(static_cast<int>(Og_), [&](int, int row, int m) {
          turn_rows(gradient(i, g) + row * p_.width, m, dy_ + ((i * p_.groups + g) * Og_ + row) * p_.width);
        });
    }
#pragma omp barrier
    std::vector<Segment<C>> segments;
    std::vector<TileSums<C, NW>> sums;
    const Range mine = share(taps_ * p_.groups * panels_, rank, size);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const int64_t t = i % taps_, q = i / taps_, g = q / panels_;
      segments.clear();
      const int64_t row = t / p_.kernel[1], column = t % p_.kernel[1];
      for (int64_t block = 0; block < p_.blocks; ++block)
        for (int64_t a = 0; a < p_.out[0]; ++a) {
          const int64_t in_a = output_.meets[0][a * p_.kernel[0] + row];
          for (int64_t b = 0; in_a >= 0 && b < p_.out[1]; ++b) {
            const int64_t in_b = output_.meets[1][b * p_.kernel[1] + column];
            if (in_b < 0) continue;
            const int64_t in = block * input_.pixels() + in_a * p_.in[1] + in_b,
                          out = block * output_.pixels() + a * p_.out[1] + b;
            segments.push_back({x_ + (in * p_.groups * panels_ + q) * panel_, p_.width,
                                dy_ + (out * p_.O + g * Og_) * p_.width, 0});
          }
        }
      multiply_segments<C, NW, kSampleBlock>(
          segments, Og_, {0, tile_count<NW>(Og_)}, p_.width, sums,
          [&](int o, const RowSums<C, NW>& row) { write<NW>(g, o, q % panels_, t, taps_, row); });
    }
  }

  // A few pixels turned at a time, in L2, and their part of all sums: these are few. Threads share tiles.
  template <int NW>
  void stream(int rank, int size) const {
    const int64_t tiles = tile_count<NW>(Og_), all = p_.blocks * output_.pixels();
    const Range mine = share(tiles, rank, size);
    if (mine.begin == mine.end) return;
    const auto each_tile = [&](const auto& f) {
      for_each_tile<NW>(static_cast<int>(Og_), [&](int tile, int row, int m) {
        if (tile >= mine.begin && tile < mine.end) f(tile, row, m);
      });
    };
    C *x = x_ + rank * chunk_ * panels_ * panel_, *dy = dy_ + rank * chunk_ * Og_ * p_.width;
    std::vector<Segment<C>> segments;
    std::vector<TileSums<C, NW>> sums(panels_ * tiles);
    std::vector<const C*> columns;
    for (int64_t g = 0; g < p_.groups; ++g) {
      for (int64_t begin = 0; begin < all; begin += chunk_) {
        const int64_t pixels = std::min(chunk_, all - begin);
        for (int64_t i = 0; i < pixels; ++i) {
          find_columns(begin + i, g, columns);
          turn_columns(columns, x + i * panels_ * panel_);
          each_tile([&](int, int row, int m) {
            turn_rows(gradient(begin + i, g) + row * p_.width, m, dy + (i * Og_ + row) * p_.width);
          });
        }
        for (int64_t q = 0; q < panels_; ++q) {
          segments.clear();
          for (int64_t i = 0; i < pixels; ++i)
            segments.push_back({x + (i * panels_ + q) * panel_, p_.width, dy + i * Og_ * p_.width, 0});
          each_tile([&](int tile, int row, int m) {
            tile_segments<C, NW>(m, segments.data(), pixels, row * p_.width, begin > 0,
                                 sums[q * tiles + tile]);
          });
        }
      }
      for (int64_t q = 0; q < panels_; ++q)
        each_tile([&](int tile, int row, int m) {
          for (int r = 0; r < m; ++r) write<NW>(g, row + r, q, 0, 1, sums[q * tiles + tile].value[r]);
        });
    }
  }
};

}  // namespace fusegen::FUSEGEN_ISA_NS
