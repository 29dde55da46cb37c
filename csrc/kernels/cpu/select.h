// The instruction set in use: the best of the machine, or the one that FUSEGEN_ISA names; and how a kernel
// that is compiled once for each (isa/) is called.
#pragma once
#include "build_info.h"

namespace fusegen::cpu {

// Its place among those that were built, lowest first, and its name. Throw std::runtime_error for a
// FUSEGEN_ISA that this build or machine does not have.
int isa_in_use();
const char* isa_name();
// Names of the sets that this build has and this machine can run, lowest first, separated by spaces.
const char* available_isas();

}  // namespace fusegen::cpu

#define FUSEGEN_DECLARE_KERNEL(isa, Result, name, Argument) \
  namespace isa {                                           \
  Result name(Argument);                                    \
  }
#define FUSEGEN_KERNEL_OF(isa, name) isa::name,

// In namespace fusegen, cpu::name(argument): the function of this name in the namespace of the set in use.
#define FUSEGEN_KERNEL(Result, name, Argument)                                                       \
  FUSEGEN_FOR_EACH_ISA(FUSEGEN_DECLARE_KERNEL, Result, name, Argument)                               \
  namespace cpu {                                                                                    \
  inline Result name(Argument argument) {                                                            \
    static constexpr Result (*kOfSet[])(Argument) = {FUSEGEN_FOR_EACH_ISA(FUSEGEN_KERNEL_OF, name)}; \
    return kOfSet[isa_in_use()](argument);                                                           \
  }                                                                                                  \
  }
