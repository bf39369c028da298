// Partial sums of the weights' gradient for devices of compute capability 9.0, by products of warpgroups.
#pragma once

#include "arme_wgrad_tiles.cuh"

namespace hstl {

// Chooses what a block is made of: sets block_groups, block_cols, parts and returns true if the device can run it, the
// binary holds its code, and mma.sync would not be as fast. Maps are of 2 bytes.
bool shape_block_sm90(Wgrad& p, int& warps, int& shared, int device);

// Enqueues the partial sums.
void launch_accumulate_sm90(Half, const Wgrad& p, dim3 blocks, int threads, size_t shared, void* stream);
void launch_accumulate_sm90(Bfloat16, const Wgrad& p, dim3 blocks, int threads, size_t shared, void* stream);

}  // namespace hstl
