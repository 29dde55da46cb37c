// LSTM's recurrence forward, from the first kernel that one would write to the idea of csrc/kernels/cuda:
// each version one idea, checked against a plain loop before it is timed. docs/kernels.md tells the same
// ladder in words.
//
//   nvcc -std=c++20 -O3 --expt-relaxed-constexpr -arch=native -I csrc -I csrc/kernels/cuda -o lstm_forward
//     benchmarks/gpu/lstm_forward.cu && ./lstm_forward
//
// prints a line a version: its number, idea, worst error and microseconds a step. Without a GPU the tests run
// the same source on the emulator of tests/simt (test_ladder.py).
//
// All versions compute the same: gates = gx[t] + R h_{t-1}, from h = c = 0. gx [T,B,4H] float32; R [4H,H] and
// y [T,B,H] bfloat16; sums and c float32. H is 128 or 256, B a multiple of 8.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <device/copy.h>
#include <device/exchange.h>
#include <device/launch.h>
#include <device/mma.h>

#include "kernels/cells.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/multiply.h"
#include "kernels/cuda/sigmoid_tanh.h"

namespace fusegen::ladder {
namespace {

using namespace fusegen::device;

struct Layer {
  int T, B;
  const float* gx;
  const Bf16* R;
  Bf16* y;
  float* c;         // [B,H], where versions with a launch a step keep it
  uint32_t* flags;  // [B/8][H/64], zero at first
  int t;            // of versions with a launch a step
};

constexpr int kRows = 8;                    // of the batch, in a block from version 2 on
constexpr int kUnits = 64;                  // of a block from version 3 on
constexpr int kNumbers = cuda::kChunk / 2;  // of a chunk along K

// The cell's maths on four sums, and what it gives to memory.
template <int H>
FUSEGEN_DEVICE float finish(const Layer& a, int t, int b, int unit, const float (&sums)[4], float& c) {
  const float* x = a.gx + (static_cast<int64_t>(t) * a.B + b) * 4 * H + unit;
  const auto s =
      cells::lstm<cuda::Math>(x[0] + sums[0], x[H] + sums[1], x[2 * H] + sums[2], x[3 * H] + sums[3], c);
  c = s.c;
  return s.h;
}

template <int H>
FUSEGEN_DEVICE Bf16* h_of(const Layer& a, int t, int b) {
  return a.y + (static_cast<int64_t>(t) * a.B + b) * H;
}

// -- 1. A thread a unit and row of the batch, a launch a step. Every thread reads four rows of R and one of
// h, number
//       by number: 8 H bytes of R for 8 H operations. --

template <int H>
FUSEGEN_KERNEL void a_thread_a_unit(FUSEGEN_ARGUMENT Layer a) {
  const int i = block() * kThreads + thread();
  if (i >= a.B * H) return;
  const int b = i / H, unit = i % H;
  float sums[4] = {};
  for (int k = 0; a.t > 0 && k < H; ++k) {
    const float h = widen(h_of<H>(a, a.t - 1, b)[k]);
    for (int gate = 0; gate < 4; ++gate)
      sums[gate] += widen(a.R[(static_cast<int64_t>(gate) * H + unit) * H + k]) * h;
  }
  float c = a.t > 0 ? a.c[i] : 0.0f;
  h_of<H>(a, a.t, b)[unit] = narrow<Bf16>(finish<H>(a, a.t, b, unit, sums, c));
  a.c[i] = c;
}

// -- 2. Tensor cores: a warp multiplies 16 rows of R with 8 rows of the batch, 64 bytes of each at a time, so
// that R is
//       read once for 8 rows and by 16 bytes. A gate's sums lie in other lanes than the next gate's: they
//       meet in shared memory. --

template <int H>
FUSEGEN_KERNEL void tensor_cores(FUSEGEN_ARGUMENT Layer a) {
  constexpr int kOfBlock = 32;  // units: 8 tiles of 16 rows
  const int first_row = block() / (H / kOfBlock) * kRows, first_unit = block() % (H / kOfBlock) * kOfBlock;
  const int gate = warp() / 2, half = warp() % 2 * 16, g = lane() / 4, t = lane() % 4;
  float d[4] = {};
  for (int chunk = 0; a.t > 0 && chunk < H / kNumbers; ++chunk) {
    const Bf16* R =
        a.R + (static_cast<int64_t>(gate) * H + first_unit + half + g) * H + chunk * kNumbers + 8 * t;
    const Word4 top = load16(R), bottom = load16(R + 8 * H);
    cuda::add_product(FormatBf16{}, d, top, bottom,
                      load16(h_of<H>(a, a.t - 1, first_row + g) + chunk * kNumbers + 8 * t));
  }
  auto* sums = reinterpret_cast<float*>(shared_memory());  // [4][32 units][8 rows]
  for (int i = 0; i < 4; ++i) sums[(gate * kOfBlock + half + g + 8 * (i / 2)) * kRows + 2 * t + i % 2] = d[i];
  sync_block();
  const int own = thread() / kRows, unit = first_unit + own, row = thread() % kRows, b = first_row + row;
  float of_unit[4];
  for (int i = 0; i < 4; ++i) of_unit[i] = sums[(i * kOfBlock + own) * kRows + row];
  float c = a.t > 0 ? a.c[b * H + unit] : 0.0f;
  h_of<H>(a, a.t, b)[unit] = narrow<Bf16>(finish<H>(a, a.t, b, unit, of_unit, c));
  a.c[b * H + unit] = c;
}

// -- 3. Rows dealt so that a lane gets all gates of a unit: tile 0 of a warp is i over f of 8 units, tile 1 g
// over o
//       (layout.h). No shared memory, no barrier. --

using Dealt = cuda::WarpRows<4>;

// The warp's rows g and g+8 of a tile, from number k on.
template <int H>
FUSEGEN_DEVICE const Bf16* row_of_R(const Layer& a, int first_unit, int tile, int r, int k) {
  return a.R + (static_cast<int64_t>(Dealt::gate(tile, r)) * H + first_unit + Dealt::unit(tile, r)) * H + k;
}

FUSEGEN_DEVICE void gates_of_pair(float (&gates)[4], const float (&sums)[2][4], int pair) {
#pragma unroll
  for (int gate = 0; gate < 4; ++gate)
    gates[gate] = sums[Dealt::sum_tile(gate)][Dealt::sum_place(gate, pair)];
}

template <int H>
FUSEGEN_KERNEL void dealt_rows(FUSEGEN_ARGUMENT Layer a) {
  const int first_row = block() / (H / kUnits) * kRows;
  const int first_unit = block() % (H / kUnits) * kUnits + warp() * Dealt::kUnits, g = lane() / 4,
            t = lane() % 4;
  float sums[2][4] = {};
  for (int chunk = 0; a.t > 0 && chunk < H / kNumbers; ++chunk) {
    const int k = chunk * kNumbers + 8 * t;
    const Word4 h = load16(h_of<H>(a, a.t - 1, first_row + g) + k);
#pragma unroll
    for (int tile = 0; tile < 2; ++tile)
      cuda::add_product(FormatBf16{}, sums[tile], load16(row_of_R<H>(a, first_unit, tile, g, k)),
                        load16(row_of_R<H>(a, first_unit, tile, g + 8, k)), h);
  }
#pragma unroll
  for (int pair = 0; pair < Dealt::kPairs; ++pair) {
    const int unit = first_unit + Dealt::pair_unit(lane(), pair),
              b = first_row + Dealt::pair_row(lane(), pair);
    float gates[4];
    gates_of_pair(gates, sums, pair);
    float c = a.t > 0 ? a.c[b * H + unit] : 0.0f;
    h_of<H>(a, a.t, b)[unit] = narrow<Bf16>(finish<H>(a, a.t, b, unit, gates, c));
    a.c[b * H + unit] = c;
  }
}

// -- 4. R stays in registers for the whole sequence, and c with it: one launch, whose blocks hand h on
// through L2, with
//       a flag a block that counts its steps. R is read once, not T times. --

// A warp's rows of R, 128 registers at H 256.
template <int H>
struct Resident {
  static constexpr int kChunks = H / kNumbers;
  Word4 top[2][kChunks], bottom[2][kChunks];

  FUSEGEN_DEVICE Resident(const Layer& a, int first_unit) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk)
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        const int g = lane() / 4, k = chunk * kNumbers + 8 * (lane() % 4);
        top[tile][chunk] = load16(row_of_R<H>(a, first_unit, tile, g, k));
        bottom[tile][chunk] = load16(row_of_R<H>(a, first_unit, tile, g + 8, k));
      }
  }
  // `h`: 8 rows in shared memory, kStride bytes apart, so that their 16-byte reads fall on different banks.
  static constexpr int kStride = cuda::kChunk + 2 * H;
  FUSEGEN_DEVICE void multiply(float (&sums)[2][4], const unsigned char* h) const {
    const unsigned char* from = h + lane() / 4 * kStride + lane() % 4 * 16;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const Word4 column = load16(from + chunk * cuda::kChunk);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile)
        cuda::add_product(FormatBf16{}, sums[tile], top[tile][chunk], bottom[tile][chunk], column);
    }
  }
};

template <int H>
FUSEGEN_KERNEL void resident_through_l2(FUSEGEN_ARGUMENT Layer a) {
  constexpr int kBlocks = H / kUnits;
  const int group = block() / kBlocks, rank = block() % kBlocks, first_row = group * kRows;
  const int first_unit = rank * kUnits + warp() * Dealt::kUnits;
  const Resident<H> R(a, first_unit);
  unsigned char* h = shared_memory();
  uint32_t* flags = a.flags + group * kBlocks;
  float c[2] = {};
  for (int t = 0; t < a.T; ++t) {
    float sums[2][4] = {};
    if (t > 0) {
      if (thread() < kBlocks)
        while (load_acquire(flags + thread()) < static_cast<uint32_t>(t)) relax();
      sync_block();
      for (int i = thread(); i < kRows * H / 8; i += kThreads)
        copy16_async(h + i / (H / 8) * R.kStride + i % (H / 8) * 16,
                     h_of<H>(a, t - 1, first_row + i / (H / 8)) + i % (H / 8) * 8);
      copies_done();
      sync_block();
      R.multiply(sums, h);
    }
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const int unit = first_unit + Dealt::pair_unit(lane(), pair),
                b = first_row + Dealt::pair_row(lane(), pair);
      float gates[4];
      gates_of_pair(gates, sums, pair);
      h_of<H>(a, t, b)[unit] = narrow<Bf16>(finish<H>(a, t, b, unit, gates, c[pair]));
    }
    sync_block();
    if (thread() == 0) store_release(flags + rank, static_cast<uint32_t>(t + 1));
  }
}

// -- 5. The blocks of a group are a cluster: each sends its part of h_t straight into the shared memory of
// all, where a
//       barrier counts the bytes. No flag, no trip through L2, no barrier of the cluster in a step. Two
//       buffers are enough: nobody sends turn t+1 before it has all of turn t, which a peer sends after it
//       has read t-1. --

template <int H>
FUSEGEN_KERNEL void resident_in_a_cluster(FUSEGEN_ARGUMENT Layer a) {
  constexpr int kBlocks = H / kUnits, kBuffer = kRows * Resident<H>::kStride, kBytes = kRows * H * 2;
  const int rank = block() % kBlocks, first_row = block() / kBlocks * kRows;
  const int first_unit = rank * kUnits + warp() * Dealt::kUnits;
  const Resident<H> R(a, first_unit);
  unsigned char* h = shared_memory();                      // [2 buffers][8 rows][kStride]
  auto* stage = reinterpret_cast<Bf16*>(h + 2 * kBuffer);  // [8 rows][64 units]
  auto* barriers = reinterpret_cast<ByteBarrier*>(h + 2 * kBuffer + kRows * kUnits * 2);
  if (thread() == 0)
    for (int i = 0; i < 2; ++i) {
      start(barriers + i);
      arm(barriers + i, kBytes);
    }
  cluster_sync();
  float c[2] = {};
  for (int t = 0; t < a.T; ++t) {
    float sums[2][4] = {};
    if (t > 0) {
      const int turn = t - 1;
      while (!phase_over(barriers + turn % 2, turn / 2 % 2)) relax();
      if (thread() == 0) arm(barriers + turn % 2, kBytes);  // for turn + 2
      R.multiply(sums, h + turn % 2 * kBuffer);
      sync_block();  // all have read the stage: bytes here tell only of the lanes that sent to this block
    }
    Bf16 made[2];
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const int row = Dealt::pair_row(lane(), pair), own = Dealt::pair_unit(lane(), pair);
      float gates[4];
      gates_of_pair(gates, sums, pair);
      made[pair] = narrow<Bf16>(finish<H>(a, t, first_row + row, first_unit + own, gates, c[pair]));
      stage[row * kUnits + warp() * Dealt::kUnits + own] = made[pair];
    }
    sync_block();
    // Not the last h: a store must not be under way to a block that ends.
    constexpr int kWords = kUnits * 2 / 16;  // of a row of the stage
    for (int i = thread(); t < a.T - 1 && i < kBlocks * kRows * kWords; i += kThreads) {
      const int peer = i / (kRows * kWords), row = i / kWords % kRows, word = i % kWords;
      send16(h + t % 2 * kBuffer + row * R.kStride + rank * kUnits * 2 + 16 * word, barriers + t % 2, peer,
             load16(stage + row * kUnits + 8 * word));
    }
#pragma unroll
    for (int pair = 0; pair < 2; ++pair)
      h_of<H>(a, t, first_row + Dealt::pair_row(lane(), pair))[first_unit + Dealt::pair_unit(lane(), pair)] =
          made[pair];
  }
  cluster_sync();
}

// -- The versions --

template <int H>
void launch_version(int version, Layer a) {
  const int groups = a.B / kRows, blocks = H / kUnits;
  const auto each_step = [&](void (*kernel)(Layer), const Launch& l) {
    for (a.t = 0; a.t < a.T; ++a.t) launch(kernel, l, a);
  };
  switch (version) {
    case 1:
      return each_step(a_thread_a_unit<H>,
                       {.blocks = (a.B * H + kThreads - 1) / kThreads, .stream = nullptr});
    case 2:
      return each_step(tensor_cores<H>,
                       {.blocks = groups * H / 32, .shared_bytes = 4 * 32 * kRows * 4, .stream = nullptr});
    case 3: return each_step(dealt_rows<H>, {.blocks = groups * blocks, .stream = nullptr});
    case 4:
      zero(a.flags, 4 * static_cast<size_t>(groups) * blocks, nullptr);
      return launch(resident_through_l2<H>,
                    {.blocks = groups * blocks,
                     .together = true,
                     .shared_bytes = kRows * Resident<H>::kStride,
                     .stream = nullptr},
                    a);
    case 5:
      return launch(resident_in_a_cluster<H>,
                    {.blocks = groups * blocks,
                     .cluster = blocks,
                     .shared_bytes = 2 * kRows * Resident<H>::kStride + kRows * kUnits * 2 + 16,
                     .stream = nullptr},
                    a);
    default: throw std::invalid_argument("version: expected 1 to 5, got " + std::to_string(version));
  }
}

constexpr const char* kIdeas[] = {"a thread a unit", "tensor cores", "rows dealt: a lane has all gates",
                                  "R in registers, h through L2", "h inside a cluster"};

void run(int version, int H, const Layer& a) {
  if (H != 128 && H != 256) throw std::invalid_argument("H: expected 128 or 256, got " + std::to_string(H));
  if (a.B % kRows) throw std::invalid_argument("B: expected a multiple of 8, got " + std::to_string(a.B));
  return H == 128 ? launch_version<128>(version, a) : launch_version<256>(version, a);
}

// -- Memory, and the plain loop --

#ifdef __CUDACC__
template <class V>
struct Memory {  // of the device
  V* data = nullptr;
  size_t size;
  explicit Memory(const std::vector<V>& from) : size(from.size()) {
    check(cudaMalloc(&data, size * sizeof(V)), "memory");
    check(cudaMemcpy(data, from.data(), size * sizeof(V), cudaMemcpyHostToDevice), "copy");
  }
  ~Memory() { cudaFree(data); }
  std::vector<V> read() const {
    std::vector<V> to(size);
    check(cudaMemcpy(to.data(), data, size * sizeof(V), cudaMemcpyDeviceToHost), "copy");
    return to;
  }
};
#else
template <class V>
struct Memory {
  std::vector<V> kept;
  V* data;
  explicit Memory(const std::vector<V>& from) : kept(from), data(kept.data()) {}
  std::vector<V> read() const { return kept; }
};
#endif

float value(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}
Bf16 rounded(double x) {  // to nearest even
  const auto v = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

struct Case {
  int T, B, H;
  std::vector<float> gx;
  std::vector<Bf16> R;

  Case(int T, int B, int H) : T(T), B(B), H(H), gx(size_t{4} * T * B * H), R(size_t{4} * H * H) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& x : gx) x = normal(random);
    for (Bf16& w : R) w = rounded(normal(random) / std::sqrt(static_cast<float>(H)));
  }

  // y [T,B,H] in double, h rounded to bfloat16 after each step as the kernels' readers see it.
  std::vector<double> plain() const {
    std::vector<double> y(size_t{1} * T * B * H), c(size_t{1} * B * H), h(H);
    const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
    for (int b = 0; b < B; ++b) {
      std::fill(h.begin(), h.end(), 0.0);
      for (int t = 0; t < T; ++t) {
        const size_t row = static_cast<size_t>(t) * B + b;
        for (int unit = 0; unit < H; ++unit) {
          double a[4];
          for (int gate = 0; gate < 4; ++gate) {
            a[gate] = gx[row * 4 * H + gate * H + unit];
            for (int k = 0; k < H; ++k) a[gate] += value(R[(size_t{1} * gate * H + unit) * H + k]) * h[k];
          }
          double& cell = c[size_t{1} * b * H + unit];
          cell = sigmoid(a[1]) * cell + sigmoid(a[0]) * std::tanh(a[2]);
          y[row * H + unit] = sigmoid(a[3]) * std::tanh(cell);
        }
        for (int unit = 0; unit < H; ++unit) h[unit] = value(rounded(y[row * H + unit]));
      }
    }
    return y;
  }
};

// What a version needs on the device.
struct OnDevice {
  Memory<float> gx, c;
  Memory<Bf16> R, y;
  Memory<uint32_t> flags;
  Layer layer;

  explicit OnDevice(const Case& k)
      : gx(k.gx),
        c(std::vector<float>(size_t{1} * k.B * k.H)),
        R(k.R),
        y(std::vector<Bf16>(size_t{1} * k.T * k.B * k.H, Bf16{0x7fff})),  // NaN: what is not written shows
        flags(std::vector<uint32_t>(size_t{1} * k.B * k.H)),
        layer{k.T, k.B, gx.data, R.data, y.data, c.data, flags.data, 0} {}
};

double worst(const std::vector<Bf16>& y, const std::vector<double>& expected) {
  double error = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double off = std::fabs(value(y[i]) - expected[i]);
    if (!(off <= error)) error = off;  // NaN stays
  }
  return error;
}

}  // namespace

// The largest difference of a version's y from the plain loop's.
double worst_error(int version, int T, int B, int H) {
  const Case k(T, B, H);
  OnDevice memory(k);
  run(version, H, memory.layer);
  return worst(memory.y.read(), k.plain());
}

}  // namespace fusegen::ladder

#ifdef __CUDACC__
// Half a bfloat16 digit of |h| < 1 is 0.002; a sum near a tie may be rounded the other way, and a few steps
// carry it on.
constexpr double kTolerance = 0.01;

int main() {
  using namespace fusegen::ladder;
  for (int version = 1; version <= 5; ++version) {
    const double error = worst_error(version, 8, 16, 256);
    if (!(error <= kTolerance)) {
      std::printf("%d, %s: WRONG, error %.3g\n", version, kIdeas[version - 1], error);
      return 1;
    }
    const Case k(512, 16, 256);
    OnDevice memory(k);
    std::vector<float> times;
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin), "event");
    check(cudaEventCreate(&end), "event");
    for (int i = 0; i < 7; ++i) {
      check(cudaEventRecord(begin), "event");
      run(version, k.H, memory.layer);
      check(cudaEventRecord(end), "event");
      check(cudaEventSynchronize(end), "run");
      float ms = 0;
      check(cudaEventElapsedTime(&ms, begin, end), "event");
      times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    std::printf("%d, %s: error %.3g, %.3f us a step (H %d, B %d, T %d)\n", version, kIdeas[version - 1],
                error, times[3] * 1000 / static_cast<float>(k.T), k.H, k.B, k.T);
  }
  return 0;
}
#endif
