// A stack of layers that keeps its states and packed weights between calls.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/cpu/arena.h"
#include "ops/view.h"

namespace fusegen {

class StackStream {
public:
  // `layers`: of each W, R, b_ih, b_hh and, for LSTM, W_hr. Weights are copied, states zero.
  StackStream(Cell cell, const std::vector<Views>& layers, int64_t batch, int threads);

  // x [B,I] or [T,B,I] -> y [B,P] or [T,B,P]. Calls from several threads run one after another.
  void run(const View& x, const View& y);
  // h [depth,n,P] and c [depth,n,H] (LSTM) of the n `rows` [n]: written, or set from; absent: set to zero.
  void get_states(const View& rows, const View& h, const View& c);
  void set_states(const View& rows, const View& h, const View& c);

private:
  void states(const View& rows, const View& h, const View& c, bool set);

  std::mutex mutex_;  // of the states
  std::vector<StreamLayer> layers_;
  std::vector<std::unique_ptr<cpu::Arena>> memory_;  // of the packed weights, and the stream's own
  Stream stream_{};
};

}  // namespace fusegen
