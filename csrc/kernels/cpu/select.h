// The instruction set in use: the best of the machine, or the one that FUSEGEN_ISA names; and how a kernel
// that is compiled once for each (isa/) is called.
#pragma once
#include "build_info.h"

namespace fusegen::cpu {

// Its place among those that were built, lowest first, and its name. Throw std::runtime_error for a
// FUSEGEN_ISA that this build or machine does not have.
int isa_in_use();
const char* isa_name();
// The set whose kernels run all but int8's beside it: itself for most.
const char* float_isa_name();
// Names of the sets that this build has and this machine can run, lowest first, separated by spaces.
const char* available_isas();

}  // namespace fusegen::cpu

#define FUSEGEN_FLOATS(isa, floats) floats
#define FUSEGEN_INT8(isa, floats) isa
#define FUSEGEN_DECLARE_KERNEL(isa, floats, OF, Result, name, Argument) \
  namespace OF(isa, floats) {                                           \
  Result name(Argument);                                                \
  }
#define FUSEGEN_KERNEL_OF(isa, floats, OF, name) OF(isa, floats)::name,
#define FUSEGEN_KERNEL_IN(OF, Result, name, Argument)                                                    \
  FUSEGEN_FOR_EACH_ISA(FUSEGEN_DECLARE_KERNEL, OF, Result, name, Argument)                               \
  namespace cpu {                                                                                        \
  inline Result name(Argument argument) {                                                                \
    static constexpr Result (*kOfSet[])(Argument) = {FUSEGEN_FOR_EACH_ISA(FUSEGEN_KERNEL_OF, OF, name)}; \
    return kOfSet[isa_in_use()](argument);                                                               \
  }                                                                                                      \
  }

// In namespace fusegen, cpu::name(argument): the function of this name in the namespace of the set in use, or
// of the one whose kernels it shares. Those of int8.cpp are compiled for every set.
#define FUSEGEN_KERNEL(Result, name, Argument) FUSEGEN_KERNEL_IN(FUSEGEN_FLOATS, Result, name, Argument)
#define FUSEGEN_INT8_KERNEL(Result, name, Argument) FUSEGEN_KERNEL_IN(FUSEGEN_INT8, Result, name, Argument)
