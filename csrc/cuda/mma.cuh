// Products of a warp's rows with a stage of weights, by mma.sync, or in plain float32.
#pragma once

#include "arme.cuh"

namespace hstl {

// The warp's rows of a tile: kRowTiles times 16 positions. Lane i holds the sums of rows i / 4 and i / 4 + 8, of the
// columns 2 (i % 4) and the next of every eight.
constexpr int kRowTiles = 2;
template <int kCols>
using Sums = float[kRowTiles][kCols / 8][4];

// Where in a patch a lane reads the rows that it gives to the warp's loads, for the tap of the smallest row and column.
template <class Tag>
struct Rows {
  static constexpr int kPerTile = 1;  // by ldmatrix: row i % 16, and unit i / 16 of two
  int at[kRowTiles][kPerTile];
  __device__ __forceinline__ static int row(int, int lane) { return lane % 16; }
  __device__ __forceinline__ static int unit(int lane) { return lane / 16; }
};
template <>
struct Rows<Float32> {
  static constexpr int kPerTile = 2;  // the rows whose sums it holds
  int at[kRowTiles][kPerTile];
  __device__ __forceinline__ static int row(int half, int lane) { return lane / 4 + 8 * half; }
  __device__ __forceinline__ static int unit(int) { return 0; }
};

template <class Tag>
__device__ __forceinline__ void round_fragment(Tag, uint32_t (&)[4]) {}
__device__ __forceinline__ void round_fragment(Tf32, uint32_t (&a)[4]) {
  for (int i = 0; i < 4; ++i) a[i] = __float_as_uint(round_to_tf32(__uint_as_float(a[i])));
}

// sums[j] += the patch's rows, times the weights of time times.of[j]; nothing where that is negative.
template <int kCols, class Tag>
__device__ __forceinline__ void multiply_stage(Tag tag, Sums<kCols> (&sums)[kTimes], const Rows<Tag>& rows,
                                               const unsigned char* patch, const unsigned char* weights,
                                               const Times& times) {
  int lane = threadIdx.x % 32;
  // Matrices of ldmatrix, eight lanes each: units 0 and 1 of eight columns, then of the next eight.
  const unsigned char* lane_weights =
      weights + ((lane / 8 % 2) * kTimes * kCols + lane / 16 * 8 + lane % 8) * kUnitBytes;
#pragma unroll
  for (int step = 0; step < kUnits / 2; ++step) {
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      load_matrices(a[m], patch + rows.at[m][0] + 2 * step * kPlaneBytes);
      round_fragment(tag, a[m]);
    }
#pragma unroll
    for (int j = 0; j < kTimes; ++j) {
      if (times.of[j] < 0) continue;
      const unsigned char* of_time = lane_weights + ((2 * step + 1) * kTimes - 1 - times.of[j]) * kCols * kUnitBytes;
#pragma unroll
      for (int n = 0; n < kCols / 16; ++n) {
        uint32_t b[4];
        load_matrices(b, of_time + n * 16 * kUnitBytes);
        const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          multiply(tag, sums[j][m][2 * n], a[m], left);
          multiply(tag, sums[j][m][2 * n + 1], a[m], right);
        }
      }
    }
  }
}

__device__ __forceinline__ float4 load_four(const unsigned char* p) {
  return load_shared(reinterpret_cast<const float4*>(p));
}

__device__ __forceinline__ float add_products(float sum, const float4& a, const float4& b) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// The same in plain float32: a lane reads its two rows and two columns itself, four channels at a time.
template <int kCols>
__device__ __forceinline__ void multiply_plain(Sums<kCols> (&sums)[kTimes], const Rows<Float32>& rows,
                                               const unsigned char* patch, const unsigned char* weights,
                                               const Times& times) {
  int col = threadIdx.x % 4 * 2;
#pragma unroll
  for (int unit = 0; unit < kUnits; ++unit) {
    float4 a[kRowTiles][2];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) a[m][half] = load_four(patch + rows.at[m][half] + unit * kPlaneBytes);
#pragma unroll
    for (int j = 0; j < kTimes; ++j) {
      if (times.of[j] < 0) continue;
      const unsigned char* of_time = weights + (((unit + 1) * kTimes - 1 - times.of[j]) * kCols + col) * kUnitBytes;
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n) {
        float4 left = load_four(of_time + n * 8 * kUnitBytes), right = load_four(of_time + (n * 8 + 1) * kUnitBytes);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float* sum = sums[j][m][n] + 2 * half;
            sum[0] = add_products(sum[0], a[m][half], left);
            sum[1] = add_products(sum[1], a[m][half], right);
          }
      }
    }
  }
}

}  // namespace hstl
