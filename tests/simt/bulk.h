// Bulk copies by tensor maps (PTX ISA, "tensors", "cp.async.bulk.tensor"): a box of a matrix lands in shared
// memory when it lands, and its bytes count on a barrier there.
#pragma once
#include <cstddef>
#include <cstdint>

namespace simt {

// What the driver is told of a matrix: [rows][width] numbers of `number` bytes, `stride` bytes from row to
// row, read by boxes whose rows in shared memory have their words swapped about inside `swizzle` bytes.
struct alignas(128) TensorMap {
  const unsigned char* data;
  int64_t width, rows, stride;
  int number, box_width, box_rows, swizzle;
};

// Throws std::runtime_error where cuTensorMapEncodeTiled gives an error.
TensorMap checked_map(const TensorMap& asked);

// The box that begins at number x of row y. Throws Stuck where the instruction would fault.
void bring_box(const TensorMap& map, void* to, void* barrier, int x, int y);

}  // namespace simt
