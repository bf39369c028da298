// What happens to finished sums: activation or its derivative, the gradient of the frame maximum, zeros outside the
// support, and the store. The sums lie as those of mma.sync, which are also those of wgmma.
#pragma once

#include "arme.cuh"
#include "vector.cuh"

namespace hstl {

// Eight rows of a warp's sums on their way to memory: two columns of every eight lie in one lane, and are wanted eight
// by eight. Floats from row to row: four lanes write 8 bytes each to every eighth of a row without conflict.
constexpr int kStagedRows = 8;
template <int kCols>
constexpr int kStagedStride = kCols + 8;
template <int kCols>
constexpr int kStagedBytes = kStagedRows * kStagedStride<kCols> * int(sizeof(float));

// Where rows go: positions `first`, first + 1, ... of a tile's list, of one output frame.
struct Destination {
  const int32_t* sites;
  int first, count;  // of `count` positions in the list
  int frame, sequence, frame_in_sequence;
  int first_col;
};

// Bit i: row i of the warp's, of which lane i says its number in the list, is inside the support. All bits are found at
// once, since nothing else is done until the supports have come.
__device__ __forceinline__ uint32_t find_active(const Epilogue& e, const Destination& to, int listed) {
  bool inside = listed < to.count;
  if (inside && e.support != nullptr) inside = e.support[int64_t(to.frame) * e.places + to.sites[listed]] != 0;
  return __ballot_sync(kAllLanes, inside);
}

// Finishes eight columns of one position, whose elements in y begin at `at`, and in the frame maximum at `at_maximum`.
template <class T>
__device__ __forceinline__ void finish_vector(const Epilogue& e, float (&sums)[8], int64_t at, int64_t at_maximum,
                                              int frame_in_sequence, int left) {
  if (e.maximum_grad != nullptr) {
    float grad[8];
    load_floats(grad, e.maximum_grad + at_maximum, left, e.vectors);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (i < left && e.maximum_index[at_maximum + i] == frame_in_sequence) sums[i] += grad[i];
  }
  if (e.x == nullptr) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[i] = sums[i] > 0 ? sums[i] : sums[i] * e.slope;
  } else {
    float x[8];
    load_floats(x, static_cast<const T*>(e.x) + at, left, e.vectors);
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[i] = x[i] > 0 ? sums[i] : sums[i] * e.slope;
  }
}

// Stores eight rows of a warp's sums: lane i holds, of row i / 4, columns 2 (i % 4) and the next of every eight. Bit i
// of `active`: row i is inside the support. `staged` is kStagedBytes of shared memory for this warp alone.
template <class T, int kCols>
__device__ __forceinline__ void store_rows(const Epilogue& e, const Destination& to, uint32_t active, float* staged,
                                           const float (&sums)[kCols / 8][2]) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < kCols / 8; ++n)
    store_shared(reinterpret_cast<float2*>(staged + lane / 4 * kStagedStride<kCols> + 8 * n + lane % 4 * 2),
                 make_float2(sums[n][0], sums[n][1]));
  __syncwarp();
#pragma unroll 1
  for (int i = lane; i < kStagedRows * kCols / 8; i += 32) {
    int row = i / (kCols / 8), col = i % (kCols / 8) * 8, left = e.c - to.first_col - col;
    if (to.first + row >= to.count || left <= 0) continue;
    int64_t place = to.sites[to.first + row], position = int64_t(to.frame) * e.places + place;
    int64_t at = position * e.c + to.first_col + col;
    const auto* from = reinterpret_cast<const float4*>(staged + row * kStagedStride<kCols> + col);
    int odd = lane / 4 % 2;  // half of the lanes read their upper half first, from other banks
    float4 one = load_shared(from + odd), other = load_shared(from + 1 - odd);
    float4 low = odd ? other : one, high = odd ? one : other;
    float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    if ((active >> row & 1) != 0) {
      int64_t at_maximum = (int64_t(to.sequence) * e.places + place) * e.c + to.first_col + col;
      finish_vector<T>(e, values, at, at_maximum, to.frame_in_sequence, left);
    } else {
#pragma unroll
      for (int k = 0; k < 8; ++k) values[k] = 0.0f;
    }
    store_floats(static_cast<T*>(e.y) + at, values, left, e.vectors);
  }
  __syncwarp();
}

}  // namespace hstl
