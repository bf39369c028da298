// What happens to finished sums: activation or its derivative, the gradient of the frame maximum, zeros outside the
// support, and the store. The sums lie as those of mma.sync, which are also those of wgmma.
#pragma once

#include <cstring>

#include "arme.cuh"

namespace hstl {

// The four words of every lane of a quad, transposed: lane c gets word c of lanes 0 to 3.
__device__ __forceinline__ void transpose_in_quad(uint32_t (&v)[4]) {
  int lane = threadIdx.x % 4;
  bool odd = lane & 1, high = lane & 2;
  uint32_t a = __shfl_xor_sync(0xffffffffu, odd ? v[0] : v[1], 1);
  uint32_t b = __shfl_xor_sync(0xffffffffu, odd ? v[2] : v[3], 1);
  (odd ? v[0] : v[1]) = a;
  (odd ? v[2] : v[3]) = b;
  a = __shfl_xor_sync(0xffffffffu, high ? v[0] : v[2], 2);
  b = __shfl_xor_sync(0xffffffffu, high ? v[1] : v[3], 2);
  (high ? v[0] : v[2]) = a;
  (high ? v[1] : v[3]) = b;
}

// Two elements of 2 bytes in a word.
template <class T>
__device__ __forceinline__ uint32_t pair(float low, float high) {
  T both[2] = {from_float<T>(low), from_float<T>(high)};
  uint32_t word;
  memcpy(&word, both, 4);
  return word;
}

// One element's value at y's element `at`.
template <class T>
__device__ __forceinline__ float finished(const Epilogue& e, float sum, int64_t at, int64_t at_maximum,
                                          int frame_in_sequence) {
  if (e.maximum_grad != nullptr && e.maximum_index[at_maximum] == frame_in_sequence) sum += e.maximum_grad[at_maximum];
  bool positive = e.x != nullptr ? to_float(static_cast<const T*>(e.x)[at]) > 0 : sum > 0;
  return positive ? sum : sum * e.slope;
}

// Stores one row of a warp's sums: those of a frame and a position, kCols / 8 times 2 in each lane of a quad. All lanes
// of the warp take part; `exists` says whether this row is one of the tile's.
template <class T, int kCols>
__device__ __forceinline__ void store_row(const Epilogue& e, float (&sums)[kCols / 8][2], bool exists, int64_t frame,
                                          int site, int sequence, int frame_in_sequence, int first_col) {
  int64_t row = (frame * e.places + site) * e.c, maximum_row = (int64_t(sequence) * e.places + site) * e.c;
  bool active = exists && (e.support == nullptr || e.support[frame * e.places + site] != 0);
  int quad = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < kCols / 8; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int col = first_col + 8 * n + 2 * quad + i;
      bool real = active && col < e.c;
      sums[n][i] = real ? finished<T>(e, sums[n][i], row + col, maximum_row + col, frame_in_sequence) : 0.0f;
    }
  T* y = static_cast<T*>(e.y) + row;
  if (!e.vectors) {
#pragma unroll
    for (int n = 0; n < kCols / 8; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        int col = first_col + 8 * n + 2 * quad + i;
        if (exists && col < e.c) y[col] = from_float<T>(sums[n][i]);
      }
    return;
  }
  if constexpr (sizeof(T) == 2) {
    // Lane c of a quad stores eight columns, 16 bytes, of every fourth eight.
#pragma unroll
    for (int n = 0; n < kCols / 8; n += 4) {
      uint32_t v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = pair<T>(sums[n + i][0], sums[n + i][1]);
      transpose_in_quad(v);
      int col = first_col + 8 * (n + quad);
      if (exists && col < e.c) *reinterpret_cast<uint4*>(y + col) = make_uint4(v[0], v[1], v[2], v[3]);
    }
  } else {
#pragma unroll
    for (int n = 0; n < kCols / 8; ++n) {
      int col = first_col + 8 * n + 2 * quad;
      if (exists && col < e.c) *reinterpret_cast<float2*>(y + col) = make_float2(sums[n][0], sums[n][1]);
    }
  }
}

}  // namespace hstl
