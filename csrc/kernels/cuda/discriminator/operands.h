// How the operands of a product come into shared memory, and from there to the tensor cores. Those whose rows
// run along K in memory (Along) lie there as [chunk][row][64 bytes]; those that run across it (Across,
// Weighted) as in memory, a row for each k, and are turned when they are read. All but Weighted are copied
// asynchronously.
//
// begin(slot) asks for the next stage, finish(slot) puts there what begin() has only read. left(slot, chunk,
// row) gives the lane its share of rows row .. row + 15 as the left operand of a product, right(...) that of
// 8 rows as the right one, both with k in its natural order: word w of a chunk's rows goes to part w. By all
// lanes.
//
// What lies past K is zero in the slot, so that it adds nothing. Rows of the tile past the operand's own are
// not: whatever stands there stays in rows or columns of the result that are not stored.
#pragma once
#include <device/copy.h>
#include <device/matrices.h>
#include <device/warpgroup.h>

#include "../operand.h"
#include "arguments.h"

namespace fusegen::cuda {

template <class T>
constexpr int kOfWord = 16 / static_cast<int>(sizeof(T));
template <class T>
constexpr int kOfChunk = kChunk / static_cast<int>(sizeof(T));

// A word in shared memory of the `count` numbers at `from` (zeros behind them), one by one: the way of rows
// that do not begin on 16 bytes or end inside a word. Rolled up, so that the loops around it stay short.
template <class T>
FUSEGEN_DEVICE void gather(unsigned char* to, const T* from, int count) {
  T* numbers = reinterpret_cast<T*>(to);
#pragma unroll 1
  for (int i = 0; i < kOfWord<T>; ++i) numbers[i] = i < count ? from[i] : device::narrow<T>(0.0f);
}

// What a lane holds of 16 rows and a chunk: of the rows above and below.
struct Left {
  device::Word4 top, bottom;
};
// From words 0 and 1 of both, as load_matrices() gives them, and words 2 and 3.
FUSEGEN_DEVICE Left left_of(const device::Word4& first, const device::Word4& second) {
  return {{first.x, first.z, second.x, second.z}, {first.y, first.w, second.y, second.w}};
}

FUSEGEN_DEVICE uint32_t part(const device::Word4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Words of a stage that a lane brings.
template <int kRows, int kChunks>
constexpr int kWordsOfLane = kRows * kChunks * 4 / device::kThreads;

// -- An operand whose rows run along K --

template <class T, int kRows, int kChunks>
class Along {
public:
  // Rows map(first) .. of `rows`, K numbers of each.
  FUSEGEN_DEVICE Along(const Input& rows, const RowMap& map, int first, int K)
      : k_(device::thread() / (4 * kRows) * kOfChunk<T> + device::thread() % 4 * kOfWord<T>),
        K_(K),
        aligned_(rows.aligned) {
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      const int row = first + (device::thread() + j * device::kThreads) / 4 % kRows;
      from_[j] = row_of<T>(rows, map(row < map.count ? row : 0)) + k_ + ahead(j);
    }
  }
  // Word by word, the slot is filled from its beginning; a lane's rows are a multiple of 8 apart.
  FUSEGEN_DEVICE void begin(unsigned char* slot) {
    unsigned char* to = slot + place(device::thread() / 4, device::thread() % 4);
    if (aligned_) {
#pragma unroll
      for (int j = 0; j < kWords; ++j)
        device::copy16_or_zero_async(to + 16 * device::kThreads * j, from_[j], k_ + ahead(j) < K_);
    } else {
#pragma unroll
      for (int j = 0; j < kWords; ++j) gather(to + 16 * device::kThreads * j, from_[j], K_ - k_ - ahead(j));
    }
#pragma unroll
    for (int j = 0; j < kWords; ++j) from_[j] += kChunks * kOfChunk<T>;
    k_ += kChunks * kOfChunk<T>;
  }
  FUSEGEN_DEVICE void finish(unsigned char*) const {}

  FUSEGEN_DEVICE static Left left(const unsigned char* slot, int chunk, int row) {
    const unsigned char* from = slot + (chunk * kRows + row) * kChunk;
    const int lane = device::lane(), r = lane % 16, word = lane / 16;
    return left_of(device::load_matrices(from + place(r, word)),
                   device::load_matrices(from + place(r, word + 2)));
  }
  FUSEGEN_DEVICE static device::Word4 right(const unsigned char* slot, int chunk, int row) {
    return device::load_matrices(slot + (chunk * kRows + row) * kChunk +
                                 place(device::lane() % 8, device::lane() / 8));
  }

  // The 16 numbers along K from the middle of a chunk on, or from its beginning, of rows row ..
  static constexpr int kAcross = 0;
  FUSEGEN_DEVICE static device::SharedMatrix matrix(const unsigned char* slot, int chunk, int half, int row) {
    return device::matrix_along(slot + (chunk * kRows + row) * kChunk + 32 * half);
  }

private:
  // The words of a row are swapped about, so that reads of a word of eight rows meet no bank twice.
  FUSEGEN_DEVICE static int place(int row, int word) { return row * kChunk + (word ^ row / 2 % 4) * 16; }

  static constexpr int kWords = kWordsOfLane<kRows, kChunks>;
  static_assert(kWords * device::kThreads == kRows * kChunks * 4);
  // In k, from the lane's first word to word j.
  static constexpr int ahead(int j) {
    return kRows * 4 < device::kThreads ? j * (device::kThreads / (4 * kRows)) * kOfChunk<T>
                                        : j / (4 * kRows / device::kThreads) * kOfChunk<T>;
  }

  const T* from_[kWords];  // of the next stage
  int k_;
  const int K_;
  const bool aligned_;
};

// -- Operands whose rows run across K --

// [k][kRows] in shared memory, at most 128 bytes of a k on end: [kRows / 64][k][64] of 16-bit numbers. The
// words of a row are swapped about, by k, so that the reads below meet no bank twice: of 16-bit numbers a
// word each of eight rows, of others two words each of four.
template <class T, int kRows, int kChunks>
struct TurnedStage {
  static constexpr int kWords = kWordsOfLane<kRows, kChunks>, kWordsOfRow = kRows / kOfWord<T>;
  static_assert(kWords * device::kThreads == kOfChunk<T> * kChunks * kWordsOfRow);

  static constexpr int kOfStage = kChunks * kOfChunk<T>;
  FUSEGEN_DEVICE static int place(int k, int word) {
    const int swap = sizeof(T) == 4 ? 2 * (k % 4) : kWordsOfRow > 4 ? k % 8 : k / 2 % 4;
    constexpr int kAhead = kWordsOfRow < 8 ? kWordsOfRow : 8;  // words of a k, on end
    return (word / kAhead * kOfStage * kAhead + k * kAhead + (word % kAhead ^ swap)) * 16;
  }
  // A lane's words are of one column, kStep apart in k.
  static constexpr int kStep = device::kThreads / kWordsOfRow;
  static_assert(kStep * kWordsOfRow == device::kThreads);
  FUSEGEN_DEVICE static int k_of(int j) { return device::thread() / kWordsOfRow + j * kStep; }
  FUSEGEN_DEVICE static int column_of(int first, int width) {
    const int column = first + device::thread() % kWordsOfRow * kOfWord<T>;
    return column < width ? column : 0;
  }
  FUSEGEN_DEVICE static unsigned char* place_of(unsigned char* slot, int j) {
    return slot + place(k_of(j), device::thread() % kWordsOfRow);
  }

  FUSEGEN_DEVICE static Left left(const unsigned char* slot, int chunk, int row) {
    const int lane = device::lane();
    if constexpr (sizeof(T) == 2) {
      const int k = chunk * kOfChunk<T> + lane % 8 + lane / 16 * 8, word = row / 8 + lane / 8 % 2;
      return left_of(device::load_transposed(slot + place(k, word)),
                     device::load_transposed(slot + place(k + 16, word)));
    } else {
      return {right(slot, chunk, row), right(slot, chunk, row + 8)};
    }
  }
  // As Along's; `row` is a multiple of 64.
  static constexpr int kAcross = 1;
  FUSEGEN_DEVICE static device::SharedMatrix matrix(const unsigned char* slot, int chunk, int half, int row) {
    constexpr int kLeading = kOfStage * 128;
    return device::matrix_across(slot + row / 64 * kLeading + (chunk * kOfChunk<T> + 16 * half) * 128,
                                 kLeading);
  }
  FUSEGEN_DEVICE static device::Word4 right(const unsigned char* slot, int chunk, int row) {
    const int lane = device::lane();
    if constexpr (sizeof(T) == 2) {
      return device::load_transposed(slot + place(chunk * kOfChunk<T> + lane, row / 8));
    } else {
      const int n = row + lane / 4;
      const auto number = [&](int i) {
        return *reinterpret_cast<const uint32_t*>(
            slot + place(chunk * kOfChunk<T> + 4 * i + lane % 4, n / 4) + n % 4 * 4);
      };
      return {number(0), number(1), number(2), number(3)};
    }
  }
};

template <class T, int kRows, int kChunks>
class Across : public TurnedStage<T, kRows, kChunks> {
public:
  // Columns `first` .. of [K][width].
  FUSEGEN_DEVICE Across(const Weight& rows, int first, int K, int width)
      : column_(Stage::column_of(first, width)),
        width_(width),
        k_(Stage::k_of(0)),
        K_(K),
        step_(kStep * rows.stride),
        from_(static_cast<const T*>(rows.data) + k_ * rows.stride + column_),
        aligned_(rows.aligned) {}

  FUSEGEN_DEVICE void begin(unsigned char* slot) {
    if (aligned_) {
#pragma unroll
      for (int j = 0; j < Stage::kWords; ++j, from_ += step_)
        device::copy16_or_zero_async(Stage::place_of(slot, j), from_, k_ + j * kStep < K_);
    } else {
#pragma unroll
      for (int j = 0; j < Stage::kWords; ++j, from_ += step_)
        gather(Stage::place_of(slot, j), from_, k_ + j * kStep < K_ ? width_ - column_ : 0);
    }
    k_ += Stage::kWords * kStep;
  }
  FUSEGEN_DEVICE void finish(unsigned char*) const {}

private:
  using Stage = TurnedStage<T, kRows, kChunks>;
  static constexpr int kStep = Stage::kStep;

  const int column_, width_;
  int k_;  // of the next word
  const int K_;
  const int64_t step_;
  const T* from_;
  const bool aligned_;
};

// s h + c t, a row for each sample; worked out in registers.
template <class T, int kRows, int kChunks>
class Weighted : public TurnedStage<T, kRows, kChunks> {
public:
  // Columns `first` .. of g's h and t.
  FUSEGEN_DEVICE Weighted(const StepArguments& a, const WeightGradient& g, int first)
      : a_(a), h_(g.h), t_(g.t), column_(Stage::column_of(first, g.N)), width_(g.N), row_(Stage::k_of(0)) {}

  FUSEGEN_DEVICE void begin(unsigned char*) {
#pragma unroll
    for (int j = 0; j < Stage::kWords; ++j, row_ += Stage::kStep) held_[j] = read(row_);
  }
  FUSEGEN_DEVICE void finish(unsigned char* slot) const {
#pragma unroll
    for (int j = 0; j < Stage::kWords; ++j) device::store16(Stage::place_of(slot, j), weighted(held_[j]));
  }

private:
  using Stage = TurnedStage<T, kRows, kChunks>;
  struct Held {
    device::Word4 h, t;
    float s, c;
  };

  FUSEGEN_DEVICE Held read(int row) const {
    Held held{{0, 0, 0, 0}, {0, 0, 0, 0}, 0.0f, 0.0f};
    if (row < a_.split.plain) {
      held.s = a_.s[row];
      if (h_.data) {
        held.h = device::load16(row_of<const T>(h_, row) + column_);
      } else {
        const T* from = row_of<T>(a_.samples, row) + column_;
        held.h = a_.samples.aligned ? device::load16(from) : gather_word(from, width_ - column_);
      }
    }
    if (t_.data && row < a_.split.rows && among(a_.split, a_.tangents, row)) {
      held.c = a_.c[row];
      held.t = device::load16(row_of<const T>(t_, row) + column_);
    }
    return held;
  }
  FUSEGEN_DEVICE static device::Word4 weighted(const Held& held) {
    uint32_t parts[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t h = part(held.h, i), t = part(held.t, i);
      if constexpr (sizeof(T) == 4) {
        parts[i] = device::as_bits(held.s * device::as_float(h) + held.c * device::as_float(t));
      } else {
        const auto one = [&](int shift) {
          const T x{static_cast<uint16_t>(h >> shift)}, y{static_cast<uint16_t>(t >> shift)};
          return static_cast<uint32_t>(
              device::narrow<T>(held.s * device::widen(x) + held.c * device::widen(y)).bits);
        };
        parts[i] = one(0) | one(16) << 16;
      }
    }
    return {parts[0], parts[1], parts[2], parts[3]};
  }

  const StepArguments& a_;
  const Scratch h_, t_;
  const int column_, width_;
  int row_;  // of the next word
  Held held_[Stage::kWords];
};

}  // namespace fusegen::cuda
