// A box as a bulk copy brings it (device/bulk.h), taken out of shared memory by the rule of its layout.
#include <device/bulk.h>

#include <cstring>
#include <stdexcept>
#include <vector>

namespace fusegen::boxes {
namespace {

using namespace device;

struct Arguments {
  TensorMap map;
  uint16_t* out;
  int x, y;
};

void kernel(const void* arguments) {
  const auto& a = *static_cast<const Arguments*>(arguments);
  const unsigned char* box = shared_memory();
  const Shared full = shared_start() + kBoxBytes;
  if (thread() == 0) {
    start(full);
    arm(full, kBoxBytes);
    copy_box(shared_start(), &a.map, a.x, a.y, full);
  }
  sync_block();
  while (!boxes_there(full, 0)) relax();
  for (int i = thread(); i < kBox * kBox; i += kThreads) {
    const int row = i / kBox, word = i % kBox / 8;
    std::memcpy(a.out + i, box + row * 128 + (word ^ row % 8) * 16 + i % 8 * 2, 2);
  }
}

}  // namespace

std::vector<int> box(const std::vector<int>& numbers, int64_t width, int64_t rows, int64_t stride, int x,
                     int y, int offset) {
  if (offset < 0 || stride < 0 || static_cast<int64_t>(numbers.size()) < (rows * stride + 1) / 2)
    throw std::invalid_argument("numbers: expected rows * stride bytes");
  std::vector<uint16_t> memory(numbers.size() + 16), out(kBox * kBox);
  const auto at = reinterpret_cast<uintptr_t>(memory.data());
  uint16_t* data = memory.data() + ((16 - at % 16) % 16 + static_cast<size_t>(offset)) / 2;
  std::copy(numbers.begin(), numbers.end(), data);
  const Arguments a{tensor_map(data, width, rows, stride), out.data(), x, y};
  simt::run(kernel, &a, 1, kThreads, 1, true, kBoxBytes + 1024);
  return {out.begin(), out.end()};
}

}  // namespace fusegen::boxes
