// A warp's 16 rows of R, in registers for the whole sequence, as products of a warpgroup take them.
#pragma once
#include <device/warpgroup.h>

#include "../../access.h"
#include "arguments.h"

namespace fusegen::cuda::wide {

template <class S, class T, class Format, int N>
class Rows {
public:
  using Sums = float[N / 8][4];

  // `first_unit`: of the warpgroup's tile; `first`: the warpgroup's first column.
  FUSEGEN_DEVICE Rows(const ForwardPass& pass, int direction, int first_unit, int first, int stages) {
    const T* R = static_cast<const T*>(pass.R[direction]);
    const int row = device::warp() % 4 * 16 + device::lane() / 4, H = pass.H;
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = row + 8 * (i % 2), gate = S::row_gate(r), unit = first_unit + S::row_unit(r),
                  k = first + step * 16 + device::lane() % 4 * 2 + 8 * (i / 2);
        uint32_t two = 0;
        if (gate < gate_count(pass.cell) && unit < H && k < H && step < stages * kStageSteps) {
          const T* from = R + (static_cast<int64_t>(gate) * H + unit) * H + k;  // H is even
          two = from[0].bits | static_cast<uint32_t>(from[1].bits) << 16;
        }
        kept_[step][i] = two;
      }
  }

  // Asks for the products of a stage, whose numbers begin at `panels` in shared memory. By all lanes of the
  // warpgroup.
  template <int kStageNumber>
  FUSEGEN_DEVICE void ask(Sums& sums, const unsigned char* panels) const {
    device::begin_products();
#pragma unroll
    for (int i = 0; i < kStageSteps; ++i)
      device::warpgroup_product(Format{}, sums, kept_[kStageNumber * kStageSteps + i],
                                device::matrix_along(panels + i / 2 * (64 * N) + i % 2 * 32));
    device::end_product_group();
  }

private:
  static constexpr int kStageSteps = kStage / 16;
  uint32_t kept_[kSteps][4];
};

}  // namespace fusegen::cuda::wide
