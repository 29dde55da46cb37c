// How the operands of a product come into shared memory, laid out [chunk][row][64 bytes]: those whose rows
// run along K in memory (KMajor) are copied asynchronously; those that run across it (NMajor) are read into
// registers a stage ahead, worked on there, and stored transposed.
#pragma once
#include <device/copy.h>

#include "../operand.h"
#include "arguments.h"

namespace fusegen::cuda {

template <class T>
constexpr int kOfWord = 16 / static_cast<int>(sizeof(T));
template <class T>
constexpr int kOfChunk = kChunk / static_cast<int>(sizeof(T));

// A word at number `at` of a row, of which `limit` are there.
template <class T>
FUSEGEN_DEVICE device::Word4 read_word(const T* row, int at, int limit, bool aligned) {
  if (at >= limit) return {0, 0, 0, 0};
  if (aligned) return device::load16(row + at);
  return gather_word(row + at, limit - at);
}

FUSEGEN_DEVICE uint32_t part(const device::Word4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// -- An operand whose rows run along K --

template <class T, int kRows, int kChunks>
class KMajor {
public:
  // Rows map(first) .. of `rows`, those below `count`; `limit` numbers of each.
  FUSEGEN_DEVICE KMajor(const Input& rows, const RowMap& map, int first, int count, int limit)
      : limit_(limit), aligned_(rows.aligned) {
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      const int row = first + row_of_word(j);
      from_[j] = row < count ? row_of<T>(rows, map(row)) : nullptr;
    }
  }
  FUSEGEN_DEVICE void begin(unsigned char* slot, int k0) const {
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      const int index = device::thread() + j * device::kThreads, chunk = index / (4 * kRows),
                word = index % 4;
      unsigned char* to = slot + (chunk * kRows + row_of_word(j)) * kChunk + 16 * word;
      const int k = k0 + chunk * kOfChunk<T> + word * kOfWord<T>;
      if (from_[j] && k < limit_ && aligned_) {
        device::copy16_async(to, from_[j] + k);
      } else {
        device::store16(to, from_[j] ? read_word(from_[j], k, limit_, false) : device::Word4{0, 0, 0, 0});
      }
    }
  }
  FUSEGEN_DEVICE void finish(unsigned char*) const {}

private:
  static constexpr int kWords = kRows * kChunks * 4 / device::kThreads;  // of a lane
  static_assert(kWords * device::kThreads == kRows * kChunks * 4);
  FUSEGEN_DEVICE static int row_of_word(int j) {
    return (device::thread() + j * device::kThreads) / 4 % kRows;
  }

  const T* from_[kWords];
  int limit_;
  bool aligned_;
};

// -- An operand whose rows run across K --

// The plain numbers of an input [K][limit].
template <class T>
struct Plain {
  struct Held {
    device::Word4 word;
  };
  const Input& rows;
  RowMap map;
  int K, limit;

  FUSEGEN_DEVICE Held read(int k, int m) const {
    if (k >= K) return {{0, 0, 0, 0}};
    return {read_word(row_of<T>(rows, map(k)), m, limit, rows.aligned)};
  }
  FUSEGEN_DEVICE device::Word4 word(const Held& held) const { return held.word; }
};

template <class T, int kRows, int kChunks, class Reader>
class NMajor {
public:
  FUSEGEN_DEVICE NMajor(const Reader& reader, int first) : reader_(reader), first_(first) {}

  FUSEGEN_DEVICE void begin(unsigned char*, int k0) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
#pragma unroll
      for (int p = 0; p < kPairs; ++p)
        held_[u][p] =
            reader_.read(k0 + chunk(u) * kOfChunk<T> + device::thread() % 16 * kPairs + p, first_ + row(u));
  }
  FUSEGEN_DEVICE void finish(unsigned char* slot) const {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      device::Word4 words[kPairs];
#pragma unroll
      for (int p = 0; p < kPairs; ++p) words[p] = reader_.word(held_[u][p]);
      unsigned char* to = slot + (chunk(u) * kRows + row(u)) * kChunk + device::thread() % 16 * 4;
#pragma unroll
      for (int i = 0; i < kOfWord<T>; ++i) *reinterpret_cast<uint32_t*>(to + i * kChunk) = column(words, i);
    }
  }

private:
  // A unit is a word of a row, and as many rows as 4 bytes along K take.
  static constexpr int kPairs = 4 / static_cast<int>(sizeof(T)), kWordsOfRow = kRows / kOfWord<T>;
  static constexpr int kUnits = kWordsOfRow * 16 * kChunks / device::kThreads;  // of a lane
  static_assert(kUnits * device::kThreads == kWordsOfRow * 16 * kChunks);

  FUSEGEN_DEVICE static int unit(int u) { return (device::thread() + u * device::kThreads) / 16; }
  FUSEGEN_DEVICE static int row(int u) { return unit(u) % kWordsOfRow * kOfWord<T>; }
  FUSEGEN_DEVICE static int chunk(int u) { return unit(u) / kWordsOfRow; }
  // Number i of each word, side by side.
  FUSEGEN_DEVICE static uint32_t column(const device::Word4 (&words)[kPairs], int i) {
    if constexpr (kPairs == 1) {
      return part(words[0], i);
    } else {
      const int shift = 16 * (i % 2);
      return ((part(words[0], i / 2) >> shift) & 0xffffu) | (part(words[1], i / 2) >> shift) << 16;
    }
  }

  const Reader reader_;
  const int first_;
  typename Reader::Held held_[kUnits][kPairs];
};

}  // namespace fusegen::cuda
