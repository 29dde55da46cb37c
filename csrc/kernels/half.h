// The compiler's own 16-bit float, to convert to and from: nothing is computed in it.
#pragma once

namespace fusegen {

#if defined(__aarch64__)
using Half = __fp16;  // GCC has _Float16 in C++ there from version 13 on
#else
using Half = _Float16;
#endif

}  // namespace fusegen
