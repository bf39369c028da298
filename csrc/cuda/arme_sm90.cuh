// ARME's convolution for devices of compute capability 9.0, by products of warpgroups.
#pragma once

#include "arme.cuh"

namespace hstl {

// Whether the device can run it and the binary holds its code.
bool has_sm90(int device);

// Convolves, as arme_forward.cu's launch_convolution; `cols` is cols_of(outputs).
void launch_sm90(Half, int cols, const Convolution& p, const TilePlan& plan, int device, void* stream);
void launch_sm90(Bfloat16, int cols, const Convolution& p, const TilePlan& plan, int device, void* stream);
void launch_sm90(Tf32, int cols, const Convolution& p, const TilePlan& plan, int device, void* stream);

}  // namespace hstl
