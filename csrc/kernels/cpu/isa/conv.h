// The three passes of a convolution, on tensors [blocks][pixels][channels][width] (params.h). What lies at one pixel of a
// block is a panel [channels][width] as it is, so each pass is a product over segments, one a tap:
//
//   y[pixel]  = sum over taps of W[tap] x[pixel under tap]          panel: x, steps: its channels
//   dx[pixel] = sum over taps of W[tap]^T dy[pixel over tap]        panel: dy, steps: its channels
//   dW[tap]   = sum over pixels of dy[pixel] x[pixel under tap]^T   panel: x, turned; steps: samples
#pragma once
#include <omp.h>

#include "../arena.h"
#include "../plan.h"
#include "segments.h"

namespace fusegen::FUSEGEN_ISA_NS {

template <class C>
class ConvPass {
 protected:
  using V = Vector<C>;
  static constexpr int L = kLanes<C>;

  const ConvShape& s_;
  const int64_t taps_, x_pixels_, y_pixels_, Cg_, Og_;  // channels of a group
  const int threads_;

  explicit ConvPass(const ConvShape& s)
      : s_(s), taps_(s.kernel[0] * s.kernel[1]), x_pixels_(s.in[0] * s.in[1]), y_pixels_(s.out[0] * s.out[1]),
        Cg_(s.C / s.groups), Og_(s.O / s.groups), threads_(cpu::plan_threads(s)) {}

  // The input pixel under this tap of an output pixel, or -1 where it is padding.
  int64_t under(int64_t pixel, int64_t tap) const {
    const int64_t i = pixel / s_.out[1] * s_.stride[0] - s_.padding[0] + tap / s_.kernel[1] * s_.dilation[0];
    const int64_t j = pixel % s_.out[1] * s_.stride[1] - s_.padding[1] + tap % s_.kernel[1] * s_.dilation[1];
    return i >= 0 && i < s_.in[0] && j >= 0 && j < s_.in[1] ? i * s_.in[1] + j : -1;
  }
  // The output pixel that sees an input pixel through this tap, or -1.
  int64_t over(int64_t pixel, int64_t tap) const {
    const int64_t i = pixel / s_.in[1] + s_.padding[0] - tap / s_.kernel[1] * s_.dilation[0];
    const int64_t j = pixel % s_.in[1] + s_.padding[1] - tap % s_.kernel[1] * s_.dilation[1];
    if (i < 0 || j < 0 || i % s_.stride[0] || j % s_.stride[1]) return -1;
    const int64_t a = i / s_.stride[0], b = j / s_.stride[1];
    return a < s_.out[0] && b < s_.out[1] ? a * s_.out[1] + b : -1;
  }

  // Steps from k on of the rows at `a` against the panel at `w`, in pieces of at most a block.
  static void append(std::vector<Segment<C>>& segments, const C* w, int64_t K, const C* a, int64_t k, int64_t width) {
    for (int64_t i = 0; i < K; i += kPanelBlockSteps)
      segments.push_back({w + i * width, std::min(kPanelBlockSteps, K - i), a, k + i});
  }

  // Rows [groups][rows] of steps [taps][inner] for tiles of NW vectors; at(g, row, c): the taps of one pair of channels.
  template <int NW, class At>
  void turn_weights(int64_t rows, int64_t inner, int rank, int size, C* to, const At& at) const {
    const int64_t K = taps_ * inner;
    for (int64_t g = 0; g < s_.groups; ++g)
      for_each_tile<NW>(static_cast<int>(rows), [&](int tile, int first, int m) {
        if (tile % size != rank) return;
        C* out = to + (g * rows + first) * K;
        for (int64_t c = 0; c < inner; ++c)
          for (int i = 0; i < m; ++i) {
            const C* from = at(g, first + i, c);
            for (int64_t t = 0; t < taps_; ++t) out[(t * inner + c) * m + i] = from[t];
          }
      });
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
};

template <class C>
class ConvForwardPass : ConvPass<C> {
  using Base = ConvPass<C>;
  using typename Base::V;
  using Base::Cg_, Base::Og_, Base::taps_, Base::L;
  const ConvForward& p_;
  C* W_;  // of each group: its outputs' weights turned, steps [taps][C / groups]

 public:
  explicit ConvForwardPass(const ConvForward& p) : Base(p), p_(p) {}

  void run() {
    cpu::Arena arena(p_.O * taps_ * Cg_ * sizeof(C));
    W_ = arena.take<C>(p_.O * taps_ * Cg_);
    this->with_vectors(p_.width, [&](auto nw) {
#pragma omp parallel num_threads(this->threads_)
      {
        const int rank = omp_get_thread_num(), size = omp_get_num_threads();
        this->template turn_weights<nw>(Og_, Cg_, rank, size, W_, [&](int64_t g, int64_t o, int64_t c) {
          return static_cast<const C*>(p_.W) + ((g * Og_ + o) * Cg_ + c) * taps_;
        });
#pragma omp barrier
        outputs<nw>(share(p_.blocks * this->y_pixels_, rank, size));
      }
    });
  }

 private:
  template <int NW>
  void outputs(Range mine) const {
    const C *x = static_cast<const C*>(p_.x), *b = static_cast<const C*>(p_.b);
    const C slope = static_cast<C>(p_.slope);
    const int64_t K = taps_ * Cg_;
    std::vector<Segment<C>> segments;
    std::vector<TileSums<C, NW>> sums;
    for (int64_t i = mine.begin; i < mine.end; ++i)
      for (int64_t g = 0; g < p_.groups; ++g) {
        const int64_t block = i / this->y_pixels_, pixel = i % this->y_pixels_;
        segments.clear();
        for (int64_t t = 0; t < taps_; ++t) {
          const int64_t in = this->under(pixel, t);
          if (in < 0) continue;
          const C* w = x + ((block * this->x_pixels_ + in) * p_.C + g * Cg_) * p_.width;
          this->append(segments, w, Cg_, W_ + g * Og_ * K, t * Cg_, p_.width);
        }
        C* y = static_cast<C*>(p_.y) + (i * p_.O + g * Og_) * p_.width;
        multiply_segments<C, NW>(segments, Og_, K, sums, [&](int o, const RowSums<C, NW>& row) {
          for (int j = 0; j < NW; ++j) {
            V v = load(row[j]);
            if (b) v += splat(b[g * Og_ + o]);
            if (slope != 1) v = v < V{} ? (slope == 0 ? V{} : slope * v) : v;
            store(y + o * p_.width + j * L, v);
          }
        });
      }
  }
};

template <class C>
class ConvInputPass : ConvPass<C> {
  using Base = ConvPass<C>;
  using typename Base::V;
  using Base::Cg_, Base::Og_, Base::taps_, Base::L;
  const ConvInputGradient& p_;
  C* W_;  // of each group: its inputs' weights turned, steps [taps][O / groups]

 public:
  explicit ConvInputPass(const ConvInputGradient& p) : Base(p), p_(p) {}

  void run() {
    cpu::Arena arena(p_.C * taps_ * Og_ * sizeof(C));
    W_ = arena.take<C>(p_.C * taps_ * Og_);
    this->with_vectors(p_.width, [&](auto nw) {
#pragma omp parallel num_threads(this->threads_)
      {
        const int rank = omp_get_thread_num(), size = omp_get_num_threads();
        this->template turn_weights<nw>(Cg_, Og_, rank, size, W_, [&](int64_t g, int64_t c, int64_t o) {
          return static_cast<const C*>(p_.W) + ((g * Og_ + o) * Cg_ + c) * taps_;
        });
#pragma omp barrier
        inputs<nw>(share(p_.blocks * this->x_pixels_, rank, size));
      }
    });
  }

 private:
  template <int NW>
  void inputs(Range mine) const {
    const C *dy = static_cast<const C*>(p_.dy), *below = static_cast<const C*>(p_.below);
    const C slope = static_cast<C>(p_.slope);
    const int64_t K = taps_ * Og_;
    std::vector<Segment<C>> segments;
    std::vector<TileSums<C, NW>> sums;
    for (int64_t i = mine.begin; i < mine.end; ++i)
      for (int64_t g = 0; g < p_.groups; ++g) {
        const int64_t block = i / this->x_pixels_, pixel = i % this->x_pixels_;
        segments.clear();
        for (int64_t t = 0; t < taps_; ++t) {
          const int64_t out = this->over(pixel, t);
          if (out < 0) continue;
          const C* w = dy + ((block * this->y_pixels_ + out) * p_.O + g * Og_) * p_.width;
          this->append(segments, w, Og_, W_ + g * Cg_ * K, t * Og_, p_.width);
        }
        const int64_t at = (i * p_.C + g * Cg_) * p_.width;
        // Written a pass ago: out of every cache by now, and wanted when the sums are ready.
        for (int64_t n = 0; below && n < Cg_ * p_.width; n += 64 / static_cast<int64_t>(sizeof(C))) __builtin_prefetch(below + at + n, 0, 2);
        multiply_segments<C, NW>(segments, Cg_, K, sums, [&](int c, const RowSums<C, NW>& row) {
          for (int j = 0; j < NW; ++j) {
            const int64_t to = at + c * p_.width + j * L;
            V v = load(row[j]);
            if (below) v = load(below + to) > V{} ? v : (slope == 0 ? V{} : slope * v);
            store(static_cast<C*>(p_.dx) + to, v);
          }
        });
      }
  }
};

// A panel's columns are channels under one tap, or where there are few channels, all of a group under all taps.
template <class C>
class ConvWeightPass : ConvPass<C> {
  using Base = ConvPass<C>;
  using typename Base::V;
  using Base::Cg_, Base::Og_, Base::taps_, Base::L;
  const ConvWeightGradient& p_;
  const bool merged_ = 2 * Cg_ <= L;
  const int64_t wide_ = merged_ ? Cg_ * taps_ : Cg_;  // columns of a group
  const int vectors_ = static_cast<int>(std::min<int64_t>(kTileVectors, (wide_ + L - 1) / L));
  const int64_t panels_ = (wide_ + vectors_ * L - 1) / (vectors_ * L);  // of a group
  const int64_t panel_ = p_.width * vectors_ * L;                       // elements of one of a pixel
  const int64_t chunk_ = std::max<int64_t>(1, kColumnBlock / p_.width);  // pixels whose samples are one block of steps
  // Of all pixels, or of a thread's chunk: panels [pixels][groups][panels][width][vectors L] of x, and dy's channels turned,
  // a sample a step.
  C *x_, *dy_;

 public:
  explicit ConvWeightPass(const ConvWeightGradient& p) : Base(p), p_(p) {}

  void run() {
    cpu::Arena measure{cpu::Arena::Measure{}};
    lay_out(measure);
    cpu::Arena arena(measure.used());
    lay_out(arena);
    this->with_vectors(vectors_ * L, [&](auto nw) {
#pragma omp parallel num_threads(this->threads_)
      {
        const int rank = omp_get_thread_num(), size = omp_get_num_threads();
        if (merged_)
          stream<nw>(rank, size);
        else
          products<nw>(rank, size);
      }
    });
  }

 private:
  void lay_out(cpu::Arena& arena) {
    const int64_t x_pixels = merged_ ? this->threads_ * chunk_ : p_.blocks * this->x_pixels_;
    const int64_t y_pixels = merged_ ? this->threads_ * chunk_ : p_.blocks * this->y_pixels_;
    x_ = arena.take<C>(x_pixels * p_.groups * panels_ * panel_);
    dy_ = arena.take<C>(y_pixels * p_.O * p_.width);
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
    for (int64_t t = 0; t < taps_; ++t) {
      const int64_t in = this->under(i % this->y_pixels_, t);
      const C* first = in < 0 ? nullptr : x + (i / this->y_pixels_ * this->x_pixels_ + in) * p_.C * p_.width;
      for (int64_t c = 0; c < Cg_; ++c) columns[c * taps_ + t] = first ? first + c * p_.width : nullptr;
    }
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
  const C* gradient(int64_t i, int64_t g) const { return static_cast<const C*>(p_.dy) + (i * p_.O + g * Og_) * p_.width; }

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
    const Range in = share(p_.blocks * this->x_pixels_, rank, size), out = share(p_.blocks * this->y_pixels_, rank, size);
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
      for (int64_t block = 0; block < p_.blocks; ++block)
        for (int64_t pixel = 0; pixel < this->y_pixels_; ++pixel) {
          const int64_t in = this->under(pixel, t);
          if (in < 0) continue;
          segments.push_back({x_ + ((block * this->x_pixels_ + in) * p_.groups * panels_ + q) * panel_, p_.width,
                              dy_ + ((block * this->y_pixels_ + pixel) * p_.O + g * Og_) * p_.width, 0});
        }
      multiply_segments<C, NW, kColumnBlock>(segments, Og_, p_.width, sums, [&](int o, const RowSums<C, NW>& row) {
        write<NW>(g, o, q % panels_, t, taps_, row);
      });
    }
  }

  // A few pixels turned at a time, in L2, and their part of all sums: these are few. Threads share tiles.
  template <int NW>
  void stream(int rank, int size) const {
    const int64_t tiles = (Og_ + kTileRows<NW> - 1) / kTileRows<NW>, all = p_.blocks * this->y_pixels_;
    const Range mine = share(tiles, rank, size);
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
          for (int64_t i = 0; i < pixels; ++i) segments.push_back({x + (i * panels_ + q) * panel_, p_.width, dy + i * Og_ * p_.width, 0});
          each_tile([&](int tile, int row, int m) {
            tile_segments<C, NW>(m, segments.data(), pixels, row * p_.width, begin > 0, sums[q * tiles + tile]);
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
