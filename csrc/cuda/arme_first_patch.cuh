// A tile of the first layer, frames x rows x columns of one region, and its input's values with those around it, as
// float32 in shared memory: the patch, [frames + 2, rows + 2, stride].
#pragma once

#include "operators.h"
#include "types.cuh"
#include "vector.cuh"

namespace hstl {

constexpr int kTaps = 27;
constexpr int kQuad = 4;       // neighbouring columns of a thread
constexpr int kMostCols = 64;  // of a tile

// Sizes of tiles, and how they cover the regions.
struct FirstTiles {
  int frames, rows, cols;  // of a tile; cols is a multiple of 4
  int stride;            // of a patch's rows: 4 times an odd number, so that 8 rows at one column lie in 8 bank groups
  int all_frames, h, w;  // of the maps
  int frame_tiles, col_tiles;

  __host__ __device__ int patch_floats() const { return (frames + 2) * (rows + 2) * stride; }
};

// One tile; rows end with the tile or with the region.
struct FirstTile {
  int frame, row, col;  // the first of each
  int region_begin, region_end;
};

inline int64_t total(const IntList& list) {
  int64_t sum = 0;
  for (int64_t i = 0; i < list.size; ++i) sum += list.data[i];
  return sum;
}
inline int64_t largest(const IntList& list) {
  int64_t found = 0;
  for (int64_t i = 0; i < list.size; ++i) found = list.data[i] > found ? list.data[i] : found;
  return found;
}

inline FirstTiles first_tiles(int64_t all_frames, int64_t h, int64_t w, int frames, int rows) {
  const int64_t col_tiles = blocks_for(w, kMostCols);
  const int cols = int(blocks_for(blocks_for(w, col_tiles), kQuad) * kQuad);
  const int stride = (cols + 2 + 3) / 4 * 4;
  return {frames,          rows,   cols,   stride % 8 == 0 ? stride + 4 : stride,
          int(all_frames), int(h), int(w), int(blocks_for(all_frames, frames)),
          int(col_tiles)};
}

__device__ __forceinline__ float unit(uint8_t x) { return float(x) / 255.0f; }
template <class T>
__device__ __forceinline__ float unit(T x) {
  return to_float(x);
}

// A warp copies a row of the patch at a time. What lies outside the region or the width is 0; a frame of another
// sequence is not: which frames count depends on the output's.
template <class X>
__device__ __forceinline__ void stage_patch(float* patch, const X* x, const FirstTiles& p, const FirstTile& tile) {
  const int lane = threadIdx.x % 32, rows = p.rows + 2;
  for (int line = threadIdx.x / 32; line < (p.frames + 2) * rows; line += blockDim.x / 32) {
    const int t = line / rows, frame = tile.frame + t - 1, row = tile.row + line - t * rows - 1;
    const bool exists = frame >= 0 && frame < p.all_frames && row >= tile.region_begin && row < tile.region_end;
    const X* from = x + (int64_t(exists ? frame : 0) * p.h + (exists ? row : 0)) * p.w;
#pragma unroll 1
    for (int i = lane; i < p.stride; i += 32) {
      const int col = tile.col + i - 1;
      store_shared(patch + line * p.stride + i, exists && col >= 0 && col < p.w ? unit(from[col]) : 0.f);
    }
  }
}

// The six values at a row of the patch that a quad's three taps of that row see.
__device__ __forceinline__ void load_six(float (&x)[kQuad + 2], const float* at) {
  const auto four = load_shared(reinterpret_cast<const Vector<float, 4>*>(at));
  const auto two = load_shared(reinterpret_cast<const Vector<float, 2>*>(at + 4));
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = four.at[i];
  x[4] = two.at[0];
  x[5] = two.at[1];
}

// Calls f with the types of the map's elements and of x's: the same, or bytes.
template <class F>
void with_input(int type, int x_type, F&& f) {
  if (x_type != type && x_type != kBytes) no_such_type(x_type);
  with_storage(type, [&](auto tag) {
    using T = storage_of<decltype(tag)>;
    if (x_type == kBytes)
      f(T(), uint8_t());
    else
      f(T(), T());
  });
}

}  // namespace hstl
