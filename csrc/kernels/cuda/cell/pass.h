// What the files of a cell's step call of each other.
#pragma once
#include "../../backend.h"

namespace fusegen::cuda {

// Products and cell in one launch: one instance a format, each in a file of its own, instantiations/.
template <class T, class Fmt>
void run_cell(const CellForwardPass& pass);

// The maths alone: one instance a dtype.
template <class T>
void run_cell_step(const CellForwardPass& pass);
template <class T>
void run_cell_backward(const CellBackwardPass& pass);

// What is loaded on the current device. All files are compiled for the same GPUs, so one kernel speaks for
// all.
Code loaded_code();

}  // namespace fusegen::cuda
