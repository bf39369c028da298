// How the weights of a 3x3x3 convolution are read when they are packed.
#pragma once

#include "arme.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Strides of a weight tensor as the driver sees it: the data gradient swaps the channels and flips the taps.
struct WeightView {
  int64_t out_stride, in_stride;
  bool flipped;
};

// rows [27][kOut] of one input channel; the taps of a weight stand together in memory.
template <class T>
void gather_taps(T* rows, const T* from, int64_t valid, WeightView view) {
  for (int64_t o = 0; o < kOut<T>; ++o, from += view.out_stride)
    for (int64_t tap = 0; tap < 27; ++tap)
      rows[tap * kOut<T> + o] = o < valid ? from[view.flipped ? 26 - tap : tap] : T(0);
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
