// Inputs of arme's Winograd tiles, transformed: [N + 2, 6, 6] positions of a tile -> 2 x 6 x (N + 2) frequencies of one
// pair of the rows' frequencies.
#pragma once

#include "arme_winograd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

template <int Pair>
HSTL_INLINE void transform_rows(Floats& first, Floats& second, const Floats* d) {
  using P = Points<4>;
  if constexpr (Pair == 0) {
    first = Inputs4<P>::zero(d);
    second = Inputs4<P>::infinity(d);
  } else if constexpr (Pair == 1) {
    Inputs4<P>::pair(d, P::a, squared(P::b), first, second);
  } else {
    Inputs4<P>::pair(d, P::b, squared(P::a), first, second);
  }
}

// Transforms a vector of channels of a tile for one pair of the rows' frequencies. Per frame 24 or 36 loads and about
// 80 FLOPs a lane, then 12 transforms in time.
template <int N, int Pair, class Get>
HSTL_INLINE void transform_input(float* to, const Get& get) {
  constexpr int first = Pair ? 1 : 0, last = Pair ? 4 : 5;
  Floats frames[2][kFrequencies][N + 2];
  for (int t = 0; t < N + 2; ++t) {
    Floats rows[2][kFrequencies];
#pragma GCC unroll 6
    for (int j = 0; j < kFrequencies; ++j) {
      Floats d[kFrequencies];
#pragma GCC unroll 6
      for (int i = first; i <= last; ++i) d[i] = get(t, i, j);
      transform_rows<Pair>(rows[0][j], rows[1][j], d);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      Floats cols[kFrequencies];
      Transform<4>::input(cols, rows[i]);
#pragma GCC unroll 6
      for (int j = 0; j < kFrequencies; ++j) frames[i][j][t] = cols[j];
    }
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < kFrequencies; ++j) {
      Floats v[N + 2];
      Transform<N>::input(v, frames[i][j]);
#pragma GCC unroll 7
      for (int t = 0; t < N + 2; ++t, to += kBlock * kLanes) store(to, v[t]);
    }
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
