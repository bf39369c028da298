// Shared by arme's direct and Winograd files: loads of maps through LeakyReLU, and of weights when they are prepacked.
#pragma once

#include "operators.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Output channels that are computed together.
template <class T>
constexpr int kOut = 2 * lanes<T>;

// Loads a vector of a map; where `y` is given, it is a gradient and goes back through LeakyReLU.
template <class T>
HSTL_INLINE Vec<T> load_through(const T* from, const T* y, T negative_slope, int64_t valid) {
  Vec<T> v = load_some(from, valid);
  return y ? (load_some(y, valid) > Vec<T>{} ? v : v * negative_slope) : v;
}

// Strides of the weights [m, c_out, c_in, 27] as a convolution reads them: dgrad swaps the channels and flips the taps.
struct WeightView {
  int64_t out_stride, in_stride;
  bool flipped;
};

inline WeightView weight_view(int64_t c_in, bool transposed) {
  if (transposed) return {27, c_in * 27, true};
  return {c_in * 27, 27, false};
}

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
