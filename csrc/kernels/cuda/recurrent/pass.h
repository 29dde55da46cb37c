// What the files of a recurrence call of each other.
#pragma once
#include "../../backend.h"

namespace fusegen::cuda {

// One instance a format and pass, each in a file of its own: instantiations/.
template <class T, class Fmt, class Pass>
Transport run(const Pass& pass);

}  // namespace fusegen::cuda
