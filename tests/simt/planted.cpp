#include "planted.h"

#include <device/exchange.h>
#include <device/launch.h>

#include "kernels/cuda/layout.h"

namespace simt {
namespace {

using namespace fusegen::device;

struct Arguments {
  float* out;
  int fault;
};

enum Fault {
  kNone,
  kRace,
  kMissingBarrier,
  kOutOfBounds,
  kMissingArm,
  kWrongPhase,
  kUnstarted,
  kEarlyEnd,
  kDivergence
};

// Two blocks of a cluster hand each other their lanes' numbers, three times; block 0 writes what it got.
void exchange_kernel(const Arguments a) {
  auto* numbers = reinterpret_cast<float*>(shared_memory());  // [2][256]
  auto* barriers = reinterpret_cast<ByteBarrier*>(shared_memory() + 2048);
  const int me = thread(), rank = block();
  if (me == 0)
    for (int i = 0; i < 2; ++i) {
      if (a.fault != kUnstarted) start(barriers + i);
      if (a.fault != kMissingArm) arm(barriers + i, 1024);
    }
  cluster_sync();
  float sum = 0;
  for (int turn = 0; turn < 3; ++turn) {
    if (me < 64) {
      const auto word = [&](int i) { return as_bits(static_cast<float>(turn + 4 * me + i + 1000 * rank)); };
      send16(numbers + (turn & 1) * 256 + 4 * me, barriers + (turn & 1), 1 - rank,
             {word(0), word(1), word(2), word(3)});
    }
    const uint32_t phase = a.fault == kWrongPhase ? 1 - ((turn >> 1) & 1) : (turn >> 1) & 1;
    while (!phase_over(barriers + (turn & 1), phase)) relax();
    if (me == 0) arm(barriers + (turn & 1), 1024);
    sum += numbers[(turn & 1) * 256 + me];
    sync_block();
  }
  if (rank == 0) a.out[me] = sum;
  cluster_sync();
  for (int i = 0; a.fault == kEarlyEnd && i < 2; ++i)
    send16(numbers + me / 4 * 4, barriers, 1 - rank, {0, 0, 0, 0});
}

// Lanes pass numbers round in shared memory.
void ring_kernel(const Arguments a) {
  auto* numbers = reinterpret_cast<float*>(shared_memory());  // [256]
  const int me = thread();
  numbers[me] = static_cast<float>(me);
  if (a.fault != kMissingBarrier) sync_block();
  const float next = numbers[a.fault == kOutOfBounds ? me + 1 : (me + 1) % 256];
  sync_block();
  if (a.fault == kRace) {
    numbers[0] = numbers[0] / 2 + static_cast<float>(me);  // no atomic, and the order matters
  } else if (a.fault == kDivergence) {
    static const char one = 0, other = 0;
    warp_together(me % 2 ? &one : &other, &next, [](const void* const*) {});
  }
  sync_block();
  a.out[me] = next + numbers[0];
}

// -- The maps of layout.h are bijections, at compile time --

template <int Gates>
constexpr bool rows_meet_once() {
  using R = fusegen::cuda::WarpRows<Gates>;
  bool seen[Gates * R::kUnits] = {};
  for (int tile = 0; tile < R::kTiles; ++tile)
    for (int row = 0; row < 16; ++row) {
      const int i = R::gate(tile, row) * R::kUnits + R::unit(tile, row);
      if (i < 0 || i >= Gates * R::kUnits || seen[i]) return false;
      seen[i] = true;
    }
  return true;
}

// A lane's sums, by the tensor core's rule for D, are those of its pairs: all gates of one unit and one row.
template <int Gates>
constexpr bool sums_belong_to_pairs() {
  using R = fusegen::cuda::WarpRows<Gates>;
  bool seen[R::kUnits * 8] = {};
  for (int lane = 0; lane < 32; ++lane)
    for (int pair = 0; pair < R::kPairs; ++pair) {
      const int unit = R::pair_unit(lane, pair), column = R::pair_row(lane, pair);
      if (seen[unit * 8 + column]) return false;
      seen[unit * 8 + column] = true;
      for (int gate = 0; gate < Gates; ++gate) {
        const int place = R::sum_place(gate, pair), tile = R::sum_tile(gate),
                  row = lane / 4 + 8 * (place / 2);
        if (2 * (lane % 4) + place % 2 != column || R::gate(tile, row) != gate || R::unit(tile, row) != unit)
          return false;
      }
    }
  for (bool s : seen)
    if (!s) return false;
  return true;
}

static_assert(rows_meet_once<1>() && rows_meet_once<3>() && rows_meet_once<4>());
static_assert(sums_belong_to_pairs<1>() && sums_belong_to_pairs<3>() && sums_belong_to_pairs<4>());

// None of these kernels has a watchdog.
struct Patience {
  explicit Patience(uint64_t breaths) : before(settings().most_breaths) { settings().most_breaths = breaths; }
  ~Patience() { settings().most_breaths = before; }
  uint64_t before;
};

}  // namespace

std::vector<float> planted(const std::string& fault) {
  const char* names[] = {"none",        "race",        "missing barrier",   "out of bounds",
                         "missing arm", "wrong phase", "unstarted barrier", "early end",
                         "divergence"};
  std::vector<float> out(256);
  Arguments a{out.data(), -1};
  for (int i = 0; i < 9; ++i)
    if (fault == names[i]) a.fault = i;
  if (a.fault < 0) throw std::invalid_argument("planted: no fault '" + fault + "'");
  const Patience patience(2000);
  const bool ring =
      a.fault == kRace || a.fault == kMissingBarrier || a.fault == kOutOfBounds || a.fault == kDivergence;
  if (ring) {
    launch(ring_kernel, {1, 1, true, 1024, nullptr}, a);
  } else {
    launch(exchange_kernel, {2, 2, true, 2048 + 16, nullptr}, a);
    if (a.fault == kNone) {
      std::vector<float> second(256);
      Arguments b{second.data(), a.fault};
      launch(ring_kernel, {1, 1, true, 1024, nullptr}, b);
      out.insert(out.end(), second.begin(), second.end());
    }
  }
  return out;
}

}  // namespace simt
