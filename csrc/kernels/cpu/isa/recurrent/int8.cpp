// What is called of the kernels with weights of 8 bits; the one file that some instruction sets are compiled
// for alone.
#include "int8.h"

#include "recurrent.h"

namespace fusegen::FUSEGEN_ISA_NS {

int64_t int8_packed_bytes(const Int8Pack& p) { return Int8Weights(p, nullptr).bytes() + cpu::kReadPast; }
void int8_pack(const Int8Pack& p) { Int8Weights(p, p.packed).pack(p); }
void int8_forward(const Int8Forward& p) {
  with_cell(p.cell, [&](auto cell) { int8_forward<cell>(p, cpu::plan_forward(p)); });
}

int64_t int8_linear_bytes(const Int8LinearPack& p) {
  return Int8LinearWeights(p.I, p.O, p.weight_only, nullptr).bytes() + cpu::kReadPast;
}
void int8_linear_pack(const Int8LinearPack& p) {
  Int8LinearWeights(p.I, p.O, p.weight_only, p.packed).pack(p);
}
void int8_linear(const Int8Linear& p) {
  switch (p.dtype) {
    case Dtype::bf16: return int8_linear<bf16>(p);
    case Dtype::f16: return int8_linear<f16>(p);
    case Dtype::f32:
    case Dtype::f64: return int8_linear<float>(p);  // float64 is refused before
  }
}

}  // namespace fusegen::FUSEGEN_ISA_NS
