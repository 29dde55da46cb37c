#include "planted.h"

#include <algorithm>

#include <device/bulk.h>
#include <device/copy.h>
#include <device/exchange.h>
#include <device/launch.h>

#include "kernels/cuda/layout.h"
#include "memory.h"

namespace simt {
namespace {

using namespace fusegen::device;

struct Arguments {
  float* out;       // [512]
  float* numbers;   // [256], 16-byte aligned
  uint32_t* flags;  // [1], 0 at first
  int fault;
};

struct BulkArguments {
  TensorMap map;
  uint32_t* matrix;  // [64][32], what the map is of
  float* out;        // [512]
  int fault;
};

enum Fault {
  kNone,
  kRace,
  kMissingBarrier,
  kOutOfBounds,
  kDivergence,
  kMissingArm,
  kWrongPhase,
  kUnstarted,
  kEarlyEnd,
  kNotWaited,
  kTooManyBytes,
  kBytesOutOfRange,
  kOneBufferTooFew,
  kMissingRelease,
  kMissingAcquire,
  kEarlyRelease,
  kNoFlag,
  kOverwritten,
  kImpatient,
  kOverResident,
  kAllAtOnce,
  kCopyNotWaited,
  kCopyOverwritten,
  kMissingProxyFence,
  kBulkNotWaited,
  kBulkOverwritten,
  kBulkUnfenced,
  kBulkFencedElsewhere,
  kBulkIntoUnfenced,
  kBulkTooManyBytes,
  kBulkTooFewBytes,
  kBulkMisaligned,
  kFaults
};
constexpr const char* kNames[kFaults] = {"none",
                                         "race",
                                         "missing barrier",
                                         "out of bounds",
                                         "divergence",
                                         "missing arm",
                                         "wrong phase",
                                         "unstarted barrier",
                                         "early end",
                                         "not waited for",
                                         "too many bytes",
                                         "bytes out of range",
                                         "one buffer too few",
                                         "missing release",
                                         "missing acquire",
                                         "early release",
                                         "no flag",
                                         "overwritten",
                                         "impatient",
                                         "over-resident grid",
                                         "all at once",
                                         "copy not waited for",
                                         "copy overwritten",
                                         "missing proxy fence",
                                         "bulk copy not waited for",
                                         "bulk copy overwritten",
                                         "bulk copy of unfenced stores",
                                         "bulk copy behind the wrong fence",
                                         "bulk copy onto unfenced stores",
                                         "bulk copy of too many bytes",
                                         "bulk copy of too few bytes",
                                         "misaligned bulk copy"};

// Two blocks of a cluster hand each other their lanes' numbers, three times; block 0 writes what it got.
void exchange_kernel(const Arguments a) {
  auto* numbers = reinterpret_cast<float*>(shared_memory());  // [2][256]
  auto* barriers = reinterpret_cast<ByteBarrier*>(shared_memory() + 2048);
  const int me = thread(), rank = block();
  if (me == 0)
    for (int i = 0; i < 2; ++i) {
      if (a.fault != kUnstarted) start(barriers + i);
      if (a.fault != kMissingArm)
        arm(barriers + i, a.fault == kTooManyBytes ? 1008 : a.fault == kBytesOutOfRange ? 1u << 20 : 1024);
    }
  cluster_sync();
  float sum = 0;
  for (int turn = 0; turn < 3; ++turn) {
    const int buffer = a.fault == kOneBufferTooFew ? 0 : turn & 1;
    if (me < 64) {
      const auto word = [&](int i) { return as_bits(static_cast<float>(turn + 4 * me + i + 1000 * rank)); };
      send16(numbers + buffer * 256 + 4 * me, barriers + (turn & 1), 1 - rank,
             {word(0), word(1), word(2), word(3)});
    }
    const uint32_t phase = a.fault == kWrongPhase ? 1 - ((turn >> 1) & 1) : (turn >> 1) & 1;
    while (!phase_over(barriers + (turn & 1), phase)) relax();
    if (me == 0) arm(barriers + (turn & 1), 1024);
    sum += numbers[buffer * 256 + me];
    sync_block();
  }
  if (rank == 0) a.out[me] = sum;
  if (a.fault == kEarlyEnd && rank == 0) return;
  if (a.fault == kEarlyEnd)
    for (int i = 0; i < 20; ++i) relax();
  else cluster_sync();
  if (a.fault == kEarlyEnd || a.fault == kNotWaited) {
    if (me == 0) send16(numbers, barriers, 1 - rank, {0, 0, 0, 0});
    for (int i = 0; a.fault == kNotWaited && i < 20; ++i) relax();
  }
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

// Block 0 hands its lanes' numbers to block 1 through global memory.
void flag_kernel(const Arguments a) {
  const int me = thread();
  auto* flag = a.flags;
  if (block() == 0) {
    if (a.fault == kEarlyRelease && me == 0) store_release(flag, 1);
    a.numbers[me] = static_cast<float>(me);
    sync_block();
    if (me == 0 && a.fault == kMissingRelease) *static_cast<volatile uint32_t*>(flag) = 1;
    if (me == 0 && a.fault != kMissingRelease && a.fault != kEarlyRelease) store_release(flag, 1);
    if (a.fault == kOverwritten) a.numbers[me] = -1;
    return;
  }
  float got = 0;
  const auto look = [&] {
    return a.fault == kMissingAcquire ? *static_cast<volatile uint32_t*>(flag) : load_acquire(flag);
  };
  if (me == 0 && a.fault != kNoFlag)
    for (int looks = 0; look() == 0; ++looks) {
      relax();
      if (a.fault == kImpatient && looks == 10) {
        got = not_a_number();
        break;
      }
    }
  sync_block();
  a.out[me] = got == got ? a.numbers[me] : got;
}

// What comes beside the lanes: a copy, and the asynchronous proxy.
void copy_kernel(const Arguments a) {
  const int me = thread();
  auto* numbers = reinterpret_cast<float*>(shared_memory());  // [256]
  if (me < 64) copy16_async(numbers + 4 * me, a.numbers + 4 * me);
  if (a.fault == kCopyOverwritten) a.numbers[me] = 1;
  if (a.fault != kCopyNotWaited) copies_done();
  sync_block();
  a.out[me] = numbers[me];
  if (a.fault == kCopyNotWaited) copies_done();
  sync_block();
  numbers[me] = 0;
  if (a.fault != kMissingProxyFence) fence_for_products();
  sync_block();
  if (me == 0) memory::access(numbers, 1024, memory::kRead | memory::kProxy);
}

// Lanes write a matrix of 64 x 64 to global memory, and get it back by a bulk copy.
void bulk_kernel(const BulkArguments a) {
  const int me = thread(), fault = a.fault;
  const Shared box = shared_start(), full = box + kBoxBytes;
  auto* words = reinterpret_cast<uint32_t*>(shared_memory());  // [64][32], swapped about by fours
  for (int i = me; i < 2048; i += 256) a.matrix[i] = static_cast<uint32_t>(i);
  for (int i = me; i < 2048; i += 256) words[i] = 0;
  if (me == 0) start(full);
  if (fault != kBulkUnfenced && fault != kBulkFencedElsewhere) fence_for_bulk_copies();
  if (fault != kBulkUnfenced && fault != kBulkIntoUnfenced) fence_for_products();
  sync_block();
  if (me == 0) {
    arm(full, fault == kBulkTooManyBytes  ? kBoxBytes - 16
              : fault == kBulkTooFewBytes ? kBoxBytes + 16
                                          : kBoxBytes);
    copy_box(fault == kBulkMisaligned ? box + 64 : box, &a.map, 0, 0, full);
  }
  if (fault == kBulkOverwritten) a.matrix[me] = 1;
  const auto wait = [&] {
    while (!boxes_there(full, 0)) relax();
  };
  if (fault != kBulkNotWaited) wait();
  const int row = me / 4, word = me % 4;  // and words of the row behind it
  a.out[me] = static_cast<float>(words[row * 32 + (word ^ row % 8) * 4]);
  a.out[256 + me] = static_cast<float>(words[row * 32 + (word + 4 ^ row % 8) * 4]);
  if (fault == kBulkNotWaited) wait();
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

namespace {

using Kernel = void (*)(Arguments);

// The kernel that has the fault, and how it is launched.
std::pair<Kernel, Launch> kernel_of(int fault) {
  if (fault >= kCopyNotWaited) return {copy_kernel, {1, 1, true, 1024, nullptr}};
  if (fault == kOverResident) return {flag_kernel, {settings().sms + 1, 1, true, 0, nullptr}};
  if (fault >= kMissingRelease) return {flag_kernel, {2, 1, fault != kAllAtOnce, 0, nullptr}};
  if (fault >= kMissingArm) return {exchange_kernel, {2, 2, false, 2048 + 16, nullptr}};
  return {ring_kernel, {1, 1, true, 1024, nullptr}};
}

std::vector<float> run(int fault, int kernel) {
  if (kernel >= kBulkNotWaited) {
    alignas(16) static uint32_t matrix[64 * 32];
    std::fill(matrix, matrix + 64 * 32, 7u);
    std::vector<float> out(512);
    launch(bulk_kernel, {1, 1, true, kBoxBytes + 1024, nullptr},
           BulkArguments{tensor_map(matrix, 64, 64, 128), matrix, out.data(), fault});
    return out;
  }
  alignas(16) static float numbers[256];
  uint32_t flag = 0;
  std::fill(numbers, numbers + 256, 0.0f);
  std::vector<float> out(512);
  const auto [code, how] = kernel_of(kernel);
  launch(code, how, Arguments{out.data(), numbers, &flag, fault});
  return out;
}

}  // namespace

std::vector<std::string> planted_faults() { return {kNames, kNames + kFaults}; }

std::vector<float> planted(const std::string& fault) {
  const int number = static_cast<int>(std::find(kNames, kNames + kFaults, fault) - kNames);
  if (number == kFaults) throw std::invalid_argument("planted: no fault '" + fault + "'");
  const Patience patience(2000);
  if (number != kNone) return run(number, number);
  std::vector<float> all;
  for (int kernel : {kRace, kMissingArm, kMissingRelease, kCopyNotWaited, kBulkNotWaited}) {
    const std::vector<float> out = run(kNone, kernel);
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

}  // namespace simt
