// The recurrence of one direction of one layer, in the instruction set in use (isa/recurrent).
#pragma once
#include "kernels/params.h"
#include "select.h"

namespace fusegen {

FUSEGEN_KERNEL(void, recurrent_forward, const RecurrentForward&)
FUSEGEN_KERNEL(void, recurrent_backward, const RecurrentBackward&)
// Of what recurrent_pack writes; of W_hr, only the presence is read.
FUSEGEN_KERNEL(int64_t, recurrent_packed_bytes, const RecurrentPack&)
FUSEGEN_KERNEL(void, recurrent_pack, const RecurrentPack&)
FUSEGEN_KERNEL(void, weight_drop, const WeightDrop&)

FUSEGEN_INT8_KERNEL(int64_t, int8_packed_bytes, const Int8Pack&)  // whatever is null in the argument
FUSEGEN_INT8_KERNEL(void, int8_pack, const Int8Pack&)
FUSEGEN_INT8_KERNEL(void, int8_forward, const Int8Forward&)
FUSEGEN_INT8_KERNEL(int64_t, int8_linear_bytes, const Int8LinearPack&)
FUSEGEN_INT8_KERNEL(void, int8_linear_pack, const Int8LinearPack&)
FUSEGEN_INT8_KERNEL(void, int8_linear, const Int8Linear&)

FUSEGEN_KERNEL(int64_t, stream_bytes, const Stream&)  // that `memory` has, whatever is null in the argument
FUSEGEN_KERNEL(void, stream_begin, const Stream&)     // fills it: states are zero
FUSEGEN_KERNEL(void, stream_run, const StreamRun&)
FUSEGEN_KERNEL(void, stream_states, const StreamStates&)

}  // namespace fusegen
