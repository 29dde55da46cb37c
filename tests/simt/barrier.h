// Barriers in shared memory that count arrivals and bytes (mbarrier), and the stores that count on them.
#pragma once
#include <cstddef>
#include <cstdint>

#include "memory.h"

namespace simt {

// All throw Stuck where the hardware would hang or do what nobody asked for.
void start_barrier(void* barrier, uint32_t arrivals);
void arrive_at(void* barrier, uint32_t bytes);  // the lane arrives, and the phase expects so many bytes more
bool phase_is_over(void* barrier, uint32_t parity);
// Of what a lane asked for earlier: so many bytes have come.
void bytes_arrive(void* barrier, int64_t bytes, const memory::Release& by);
// 16 bytes that land when they land, in the block of both.
void store_async(void* to, void* barrier, const void* bytes);

namespace detail {

// Of the blocks that are resident.
void forget_barriers();
// A block of this memory ends.
void end_barriers(const void* shared, size_t bytes);

}  // namespace detail

}  // namespace simt
