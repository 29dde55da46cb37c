// Maths that host and device share is inlined into whatever calls it: on the CPU, an instruction set's kernel
// must not meet a copy that another set compiled.
#pragma once

#ifdef __CUDACC__
#define FUSEGEN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define FUSEGEN_HOST_DEVICE inline __attribute__((always_inline))
#endif
