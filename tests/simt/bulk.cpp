#include "bulk.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "barrier.h"
#include "emulator.h"
#include "memory.h"

namespace simt {
namespace {

constexpr unsigned kReads = memory::kRead | memory::kProxy, kWrites = memory::kWrite | memory::kProxy;

struct Box {
  TensorMap map;
  unsigned char *to, *window;  // the block's shared memory begins at `window`
  void* barrier;
  int x, y;
  memory::Release by;

  int64_t bytes() const { return int64_t{map.box_width} * map.box_rows * map.number; }

  // each(row of the box, first byte there, where it lies, bytes): what of the box is inside the matrix.
  template <class Each>
  void for_each_row(const Each& each) const {
    const int64_t begin = std::max(x, 0), end = std::min<int64_t>(int64_t{x} + map.box_width, map.width);
    for (int r = 0; begin < end && r < map.box_rows; ++r) {
      const int64_t row = int64_t{y} + r;
      if (row >= 0 && row < map.rows)
        each(r, (begin - x) * map.number, map.data + row * map.stride + begin * map.number,
             static_cast<size_t>((end - begin) * map.number));
    }
  }
  // Where byte `at` of a row of the box lies: the word's number there takes bits of the address above it.
  unsigned char* place(int row, int64_t at) const {
    int64_t offset = to - window + int64_t{row} * map.box_width * map.number + at;
    offset ^= (offset >> 7 & (map.swizzle / 16 - 1)) << 4;
    return window + offset;
  }
};

void land(const Box& box) {
  if (ended(box.to)) throw Stuck("a bulk copy arrives at a block that has ended");
  std::memset(box.to, 0, static_cast<size_t>(box.bytes()));
  box.for_each_row([&](int row, int64_t at, const unsigned char* from, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) *box.place(row, at + static_cast<int64_t>(i)) = from[i];
    memory::complete_as(box.by, from, bytes, kReads);
  });
  memory::complete_as(box.by, box.to, static_cast<size_t>(box.bytes()), kWrites);
  bytes_arrive(box.barrier, box.bytes(), box.by);
}

}  // namespace

TensorMap checked_map(const TensorMap& m) {
  const auto need = [](bool holds, const char* what) {
    if (!holds) throw std::runtime_error(std::string("CUDA: a tensor map: ") + what);
  };
  need(reinterpret_cast<uintptr_t>(m.data) % 16 == 0, "the matrix does not begin on 16 bytes");
  for (int64_t size : {m.width, m.rows})
    need(size >= 1 && size <= int64_t{1} << 32, "a size is out of range");
  need(m.stride % 16 == 0 && m.stride >= m.width * m.number && m.stride < int64_t{1} << 40,
       "rows are not a multiple of 16 bytes apart, or overlap");
  for (int side : {m.box_width, m.box_rows}) need(side >= 1 && side <= 256, "a box has sides of 1 to 256");
  need(m.box_width * m.number % 16 == 0, "a row of the box is no multiple of 16 bytes");
  need(m.swizzle == 32 || m.swizzle == 64 || m.swizzle == 128, "no such swizzle");
  need(m.box_width * m.number <= m.swizzle, "a row of the box is longer than its words are swapped about in");
  return m;
}

void bring_box(const TensorMap& map, void* to, void* barrier, int x, int y) {
  if (settings().major < 9) throw Stuck("no bulk copies on this device");
  Box box{map, static_cast<unsigned char*>(to), shared_memory(), barrier, x, y, {}};
  if ((box.to - box.window) % 128) throw Stuck("a bulk copy to shared memory that is not 128-byte aligned");
  box.for_each_row([&](int, int64_t, const unsigned char* from, size_t bytes) {
    memory::access(from, bytes, kReads | memory::kPending);
  });
  memory::access(to, static_cast<size_t>(box.bytes()), kWrites | memory::kPending);
  box.by = memory::release();
  later([box] { land(box); });
}

}  // namespace simt
