// What a tensor core makes of a product of matrices. It multiplies exactly, but it does not round sums as
// IEEE says: of a block of products and the number that they are added to, each is cut off (toward zero) at a
// few bits below the last place of the largest, the cut numbers are added exactly, and the sum is cut to
// float32. A matrix instruction with more products takes one block after another. Measured bit by bit on the
// hardware: Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ CS 7:e330
// (2021), V100, T4, A100; Khattak, Mikaitis, "Accurate models of NVIDIA tensor cores", arXiv 2512.07004, up
// to B200.
//
//              | products of a block   | bits kept below the
//              | 16-bit | TF32         | last of the largest
//   8.x (A100) |   8    |  4           |  1
//   9, 10      |  16    |  8           |  2
//
// tests/tolerances.py derives from it what a chain of products may be off by.
#pragma once

namespace simt {

enum class Numbers { of16bits, tf32 };

// d[m][n] += sum over k of a[m][k] b[n][k], in blocks as the emulated device's. d: [M][N], a: [M][K], b:
// [N][K]; N a multiple of 8, K of 8. `a` and `b` hold what the multipliers take: bfloat16, float16 or TF32.
void multiply_add(float* d, const float* a, const float* b, int M, int N, int K, Numbers numbers);

}  // namespace simt
