// Products of the weights' gradient, by mma.sync or in plain float32. A GEMM whose sum runs over positions: its rows
// are input channels at a tap, its columns output channels. A warp has kGroup input channels at the kTaps of a frame,
// and kGroupCols outputs.
#pragma once

#include "arme_wgrad_tiles.cuh"

namespace hstl {

// As partial sums are kept.
using TapSums = float[kTaps][kGroupCols / 8][4];

// Units of a group of channels, and of one of outputs.
template <class Tag>
constexpr int kGroupUnits = kGroup / kUnitChannels<Tag>;
template <class Tag>
constexpr int kColUnits = kGroupCols / kUnitChannels<Tag>;

// Positions of a product, and of a chunk of the gradient, which lies in shared memory as planes of units in the order
// of the tile's list. A plane has an odd number of units: neighbouring threads copy the units of one position.
template <class Tag>
constexpr int kStep = 32 / int(sizeof(typename Tag::storage));
template <class Tag>
constexpr int kChunk = 4 * kStep<Tag>;
template <class Tag>
constexpr int kChunkPlaneBytes = (kChunk<Tag> + 1) * kUnitBytes;

// Where a tap's neighbour lies, from that of the smallest row and column.
__device__ __forceinline__ int tap_offset(int tap, int row_bytes) { return tap / 3 * row_bytes + tap % 3 * kUnitBytes; }

// sums += x at the nine neighbours of kStep positions, times their gradient.
//   x: the group's planes of a patch; rows are row_bytes apart
//   from: for every position, where its neighbour of the smallest row and column lies in a plane
//   grad: the outputs' planes of a chunk, from the first position on
template <class Tag>
__device__ __forceinline__ void multiply_positions(Tag tag, TapSums& sums, const unsigned char* x, int row_bytes,
                                                   const int* from, const unsigned char* grad) {
  int lane = threadIdx.x % 32;
  // Matrices of ldmatrix, eight lanes each. Of x: units 0 and 1 of eight positions, then of the next eight. Of the
  // gradient: two times eight positions of a unit, then of the next.
  const unsigned char* rows = x + load_shared(from + lane / 16 * 8 + lane % 8) + lane / 8 % 2 * kPlaneBytes;
  const unsigned char* grad_rows = grad + lane / 16 * kChunkPlaneBytes<Tag> + lane % 16 * kUnitBytes;
  uint32_t b[kGroupCols / 16][4];
#pragma unroll
  for (int n = 0; n < kGroupCols / 16; ++n) load_matrices_transposed(b[n], grad_rows + 2 * n * kChunkPlaneBytes<Tag>);
  uint32_t a[2][4];  // of this tap, and of the next, which loads meanwhile
  load_matrices_transposed(a[0], rows);
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
    if (tap + 1 < kTaps) load_matrices_transposed(a[(tap + 1) % 2], rows + tap_offset(tap + 1, row_bytes));
#pragma unroll
    for (int n = 0; n < kGroupCols / 16; ++n) {
      const uint32_t left[2] = {b[n][0], b[n][1]}, right[2] = {b[n][2], b[n][3]};
      multiply(tag, sums[tap][2 * n], a[tap % 2], left);
      multiply(tag, sums[tap][2 * n + 1], a[tap % 2], right);
    }
  }
}

// An element of 4 bytes of a place: `at` points to its unit 0.
__device__ __forceinline__ float load_channel(const unsigned char* at, int plane_bytes, int channel) {
  return load_shared(reinterpret_cast<const float*>(at + channel / 4 * plane_bytes) + channel % 4);
}

__device__ __forceinline__ uint32_t load_tf32(const unsigned char* at, int plane_bytes, int channel) {
  return __float_as_uint(round_to_tf32(load_channel(at, plane_bytes, channel)));
}

// ldmatrix transposes no elements of 4 bytes: every lane loads its own.
__device__ __forceinline__ void multiply_positions(Tf32 tag, TapSums& sums, const unsigned char* x, int row_bytes,
                                                   const int* from, const unsigned char* grad) {
  int channel = threadIdx.x % 32 / 4, position = threadIdx.x % 4;
  const unsigned char* early = x + load_shared(from + position);
  const unsigned char* late = x + load_shared(from + position + 4);
  const unsigned char* grad_rows = grad + position * kUnitBytes;
  uint32_t b[kGroupCols / 8][2];
#pragma unroll
  for (int n = 0; n < kGroupCols / 8; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      b[n][i] = load_tf32(grad_rows + 4 * i * kUnitBytes, kChunkPlaneBytes<Tf32>, 8 * n + channel);
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
    uint32_t a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      a[i] = load_tf32((i < 2 ? early : late) + tap_offset(tap, row_bytes), kPlaneBytes, channel + i % 2 * 8);
#pragma unroll
    for (int n = 0; n < kGroupCols / 8; ++n) multiply(tag, sums[tap][n], a, b[n]);
  }
}

__device__ __forceinline__ void multiply_positions(Float32, TapSums& sums, const unsigned char* x, int row_bytes,
                                                   const int* from, const unsigned char* grad) {
  int channel = threadIdx.x % 32 / 4, col = threadIdx.x % 4 * 2;
#pragma unroll 1
  for (int position = 0; position < kStep<Float32>; ++position) {
    const unsigned char* row = x + load_shared(from + position);
    float b[kGroupCols / 8][2];
#pragma unroll
    for (int n = 0; n < kGroupCols / 8; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        b[n][i] = load_channel(grad + position * kUnitBytes, kChunkPlaneBytes<Float32>, 8 * n + col + i);
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float a = load_channel(row + tap_offset(tap, row_bytes), kPlaneBytes, channel + 8 * half);
#pragma unroll
        for (int n = 0; n < kGroupCols / 8; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& sum = sums[tap][n][2 * half + i];
            sum = fmaf(a, b[n][i], sum);
          }
      }
  }
}

}  // namespace hstl
