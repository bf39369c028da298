// The GEMM of arme's Winograd forward and dgrad, where its time goes: at every frequency, products [tiles, panel] of
// transformed inputs [tiles, channels] and weights [channels, panel].
#pragma once

#include "arme_winograd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Terms summed in a row before their sum is added to the total.
constexpr int64_t kSummed = 32;
// Bytes by which weights are asked for before they are needed: two small pages, at whose borders the processor's own
// prefetching stops.
constexpr int64_t kAhead = 8192;

// out [P][kPanel] = v [P][channels] u [channels][kPanel]. FLOPs: 2 * channels * P * kPanel. Registers: 2 P sums, 2
// weights, 1 input. Per channel 2 vectors of weights (from L2 or L3, read once per block) and P broadcasts from L1.
template <int P>
void gemm(float* out, const float* v, int64_t v_stride, const float* u, int64_t chunks) {
  constexpr int64_t most = kSummed / kLanes;
  const int64_t ahead = smaller(kAhead / int64_t(sizeof(float)), chunks * kLanes * kPanel);  // the next frequency's
  for (int64_t first = 0; first < chunks; first += most) {
    Floats sums[P][2] = {};
    for (int64_t chunk = first; chunk < smaller(first + most, chunks); ++chunk, v += v_stride)
      for (int k = 0; k < kLanes; ++k, u += kPanel) {
        __builtin_prefetch(u + ahead, 0, 2);
        __builtin_prefetch(u + ahead + kLanes, 0, 2);
        Floats u0 = load(u), u1 = load(u + kLanes);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
          sums[p][0] += u0 * v[p * kLanes + k];
          sums[p][1] += u1 * v[p * kLanes + k];
        }
      }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        float* to = out + p * kPanel + i * kLanes;
        store(to, first ? load(to) + sums[p][i] : sums[p][i]);
      }
  }
}

using Gemm = void (*)(float*, const float*, int64_t, const float*, int64_t);

template <int P = kBlock>
Gemm gemm_of(int64_t tiles) {
  if constexpr (P == 1) {
    return gemm<1>;
  } else {
    return tiles == P ? gemm<P> : gemm_of<P - 1>(tiles);
  }
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
