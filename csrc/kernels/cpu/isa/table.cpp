// The entry points of this instruction set.
#include "kernels/cpu/kernels.h"

#include <omp.h>

#include "kernels/cpu/isa/recurrent/forward.h"
#include "kernels/cpu/isa/recurrent/recurrent.h"
#include "kernels/cpu/isa/vector/dispatch.h"

namespace fusegen::FUSEGEN_ISA_NS {

extern template void run_forward<Cell::lstm>(const RecurrentForward&);
extern template void run_forward<Cell::gru>(const RecurrentForward&);
extern template void run_forward<Cell::rnn_tanh>(const RecurrentForward&);
extern template void run_forward<Cell::rnn_relu>(const RecurrentForward&);
extern template void run_backward<Cell::lstm>(const RecurrentBackward&);
extern template void run_backward<Cell::gru>(const RecurrentBackward&);
extern template void run_backward<Cell::rnn_tanh>(const RecurrentBackward&);
extern template void run_backward<Cell::rnn_relu>(const RecurrentBackward&);
int64_t mlp_saved_bytes(const MlpStep&);
void mlp_forward(const MlpForward&);
void mlp_backward(const MlpBackward&);
int64_t conv_lanes(Dtype);
void conv_forward(const ConvForward&);
void conv_input_gradient(const ConvInputGradient&);
void conv_weight_gradient(const ConvWeightGradient&);
void batch_norm_forward(const BatchNormForward&);
void batch_norm_backward(const BatchNormBackward&);
double peak_gflops(int threads);

namespace {

void forward(const RecurrentForward& p) {
  switch (p.cell) {
    case Cell::lstm: return run_forward<Cell::lstm>(p);
    case Cell::gru: return run_forward<Cell::gru>(p);
    case Cell::rnn_tanh: return run_forward<Cell::rnn_tanh>(p);
    case Cell::rnn_relu: return run_forward<Cell::rnn_relu>(p);
  }
}

void backward(const RecurrentBackward& p) {
  switch (p.cell) {
    case Cell::lstm: return run_backward<Cell::lstm>(p);
    case Cell::gru: return run_backward<Cell::gru>(p);
    case Cell::rnn_tanh: return run_backward<Cell::rnn_tanh>(p);
    case Cell::rnn_relu: return run_backward<Cell::rnn_relu>(p);
  }
}

template <class F>
void with_packed(const RecurrentPack& p, F&& f) {
  with_storage(p.dtype, [&](auto s) {
    f(Packed<decltype(s)>(p.cell, p.I, p.H, p.P, p.W_hr.data != nullptr, p.packed));
  });
}

int64_t packed_bytes(const RecurrentPack& p) {
  int64_t bytes = 0;
  with_packed(p, [&](auto packed) { bytes = packed.elements() * static_cast<int64_t>(sizeof(*packed.W)); });
  return bytes + cpu::kReadPast;
}

void pack(const RecurrentPack& p) {
  with_packed(p, [&](auto packed) {
#pragma omp parallel num_threads(p.threads)
    packed.pack(p.W, p.R, p.W_hr, omp_get_thread_num(), omp_get_num_threads());
  });
}

}  // namespace

#define FUSEGEN_TEXT_(x) #x
#define FUSEGEN_TEXT(x) FUSEGEN_TEXT_(x)

extern const cpu::Kernels table;
const cpu::Kernels table = {FUSEGEN_TEXT(FUSEGEN_ISA_NS),
                            forward,
                            backward,
                            packed_bytes,
                            pack,
                            mlp_saved_bytes,
                            mlp_forward,
                            mlp_backward,
                            conv_lanes,
                            conv_forward,
                            conv_input_gradient,
                            conv_weight_gradient,
                            batch_norm_forward,
                            batch_norm_backward,
                            peak_gflops};

}  // namespace fusegen::FUSEGEN_ISA_NS
