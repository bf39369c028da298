// Products of a warpgroup's rows with stages of weights, by wgmma.
#pragma once

#include "arme_ring.cuh"

#ifdef HSTL_WGMMA

namespace hstl {

constexpr int kSteps = kUnits / 2;  // of 32 bytes of channels, of a stage

template <int kCols>
using Fragments = uint32_t[Shape<kCols>::kRowTiles][4];

// The number in the list of the row of a warp's sixteen of the warpgroup's row tile m.
template <int kCols>
__device__ __forceinline__ int listed_row(int thread, int m, int row) {
  int warp = thread / 32;
  return ((m * Shape<kCols>::kWarpgroups + warp / 4) * 4 + warp % 4) * 16 + row;
}

// How many of the warpgroup's row tiles have positions; known to be the same in all of a warp's threads.
template <int kCols>
__device__ __forceinline__ int row_tiles(int count) {
  int warpgroup = thread_index() / kWarpgroupThreads, n = 0;
  for (int m = 0; m < Shape<kCols>::kRowTiles; ++m)
    n += (m * Shape<kCols>::kWarpgroups + warpgroup) * kGroupRows < count;
  return __shfl_sync(kAllLanes, n, 0);
}

// Where a lane reads the rows that it gives to ldmatrix, row i % 16 and unit i / 16 of two, from the patches'
// beginning, for the tap of the smallest row and column.
template <int kCols>
__device__ __forceinline__ void find_rows(int (&rows)[Shape<kCols>::kRowTiles], const Convolution& p,
                                          const Memory& memory) {
  int lane = threadIdx.x % 32;
  Tile tile = load_words(&memory.work->tile);
#pragma unroll
  for (int m = 0; m < Shape<kCols>::kRowTiles; ++m) {
    int site = load_shared(&memory.work->sites)[min(listed_row<kCols>(threadIdx.x, m, lane % 16), tile.count - 1)];
    int row = site / p.tiles.w - tile.first_row - 1, col = site % p.tiles.w - tile.first_col - 1;
    rows[m] = (row * tile.cols + col) * kUnitBytes + lane / 16 * kPlaneBytes;
  }
}

template <class Tag>
__device__ __forceinline__ void round_fragment(Tag, uint32_t (&)[4]) {}
__device__ __forceinline__ void round_fragment(Tf32, uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = __float_as_uint(round_to_tf32(__uint_as_float(a[i])));
}

// The fragments of one step, of the first kRowTiles row tiles.
template <class Tag, int kCols, int kRowTiles>
__device__ __forceinline__ void load_fragments(Fragments<kCols>& a, const int (&rows)[Shape<kCols>::kRowTiles],
                                               const unsigned char* patch) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    load_matrices(a[m], patch + rows[m]);
    round_fragment(Tag(), a[m]);
  }
}

// The parts of the sums that an input frame adds to. Known to be the same in all of a warp's threads.
struct Parts {
  int oldest;  // the part of output frame - 1
  int mask;    // bit j: part j is that of an output of the segment
};

template <int kCols>
__device__ __forceinline__ Parts parts_of(const Work* work, int frame) {
  if (Shape<kCols>::kStacked) return {0, 7};
  int begin = load_shared(&work->segment.begin), end = load_shared(&work->segment.end);
  int oldest = (frame + 2 - begin) % kTimes, mask = 0;
#pragma unroll
  for (int j = 0; j < kTimes; ++j) {
    int output = frame - 1 + (j - oldest + kTimes) % kTimes;
    mask |= (output >= begin && output < end) << j;
  }
  return {__shfl_sync(kAllLanes, oldest, 0), __shfl_sync(kAllLanes, mask, 0)};
}

// Adds the products of one step to the parts of kMask.
template <class Tag, int kCols, int kRowTiles, int kMask>
__device__ __forceinline__ void multiply_step(GroupSums<kCols>& sums, const Fragments<kCols>& a, uint64_t weights,
                                              int oldest) {
  constexpr int kPart = kCols / 2;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    if constexpr (Shape<kCols>::kStacked) {
      wgmma<Tag, kTimes * kCols>(sums[m], a[m], weights);
    } else {
#pragma unroll
      for (int j = 0; j < kTimes; ++j) {
        if (!(kMask >> j & 1)) continue;
        int later = j >= oldest ? j - oldest : j - oldest + kTimes;
        auto& d = reinterpret_cast<float (&)[kPart]>(sums[m][j * kPart]);
        wgmma<Tag, kCols>(d, a[m], weights + later * (kCols * kUnitBytes / 16));
      }
    }
  }
}

// Says that this warp has multiplied by the stage.
__device__ __forceinline__ void release_stage(const Memory& memory, int slot, bool resident) {
  __syncwarp();
  if (!resident && threadIdx.x % 32 == 0) barrier_arrive(memory.weights_empty + slot);
}

// Where the warpgroup is in the block's patches and weights.
struct Place {
  int patch;  // its number
  int taps;   // bytes from the patches' beginning to its row of taps
  Cursor ring;
  int slots;
  bool resident;
  __device__ __forceinline__ void advance() {
    ring.advance(slots);
    if (resident) ring.parity = 0;
  }
};

// Adds the products of a row of taps. While a step's products run, the fragments of the next are loaded, so the
// products of at most two steps are unfinished. There is no branch on the way, else the compiler would let every
// product wait for the one before.
template <class Tag, int kCols, int kRowTiles, int kMask>
__device__ __forceinline__ void multiply_row(GroupSums<kCols>& sums, const int (&rows)[Shape<kCols>::kRowTiles],
                                             const Memory& memory, Place& place, int oldest) {
  constexpr int kUnitRow = kTimes * kCols * kUnitBytes;
  Fragments<kCols> a[2];
  int before = 0;
  load_fragments<Tag, kCols, kRowTiles>(a[0], rows, memory.patches + place.taps);
#pragma unroll
  for (int i = 0; i < kRowTaps * kSteps; ++i) {
    int step = i % kSteps;
    if (step == 0) wait_phase(memory.weights_full + place.ring.slot, place.ring.parity);
    uint32_t stage = shared_address(memory.weights + place.ring.slot * kStageBytes<kCols>);
    wgmma_fence();
    multiply_step<Tag, kCols, kRowTiles, kMask>(
        sums, a[i % 2], matrix_descriptor(stage + 2 * step * kUnitRow, kUnitRow, 8 * kUnitBytes), oldest);
    wgmma_commit();
    if (i + 1 < kRowTaps * kSteps) {
      if (i > 0) wgmma_wait<1>();
      if (i > 0 && step == 0) release_stage(memory, before, place.resident);
      int next = i + 1;
      load_fragments<Tag, kCols, kRowTiles>(
          a[next % 2], rows,
          memory.patches + place.taps + next / kSteps * kUnitBytes + next % kSteps * 2 * kPlaneBytes);
    }
    if (step + 1 == kSteps) {
      before = place.ring.slot;
      place.advance();
    }
  }
  wgmma_wait<0>();
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) wgmma_hold(sums[m]);
  release_stage(memory, before, place.resident);
}

// The same for a warpgroup without positions.
template <int kCols>
__device__ __forceinline__ void skip_row(const Memory& memory, Place& place) {
  for (int i = 0; i < kRowTaps; ++i) {
    wait_phase(memory.weights_full + place.ring.slot, place.ring.parity);
    release_stage(memory, place.ring.slot, place.resident);
    place.advance();
  }
}

template <class Tag, int kCols, int kRowTiles>
__device__ __forceinline__ void multiply_parts(GroupSums<kCols>& sums, const int (&rows)[Shape<kCols>::kRowTiles],
                                               const Memory& memory, Place& place, const Parts& parts) {
  if constexpr (Shape<kCols>::kStacked) {
    multiply_row<Tag, kCols, kRowTiles, 7>(sums, rows, memory, place, 0);
  } else {
    switch (parts.mask) {
      case 7:
        return multiply_row<Tag, kCols, kRowTiles, 7>(sums, rows, memory, place, parts.oldest);
      case 6:
        return multiply_row<Tag, kCols, kRowTiles, 6>(sums, rows, memory, place, parts.oldest);
      case 5:
        return multiply_row<Tag, kCols, kRowTiles, 5>(sums, rows, memory, place, parts.oldest);
      case 4:
        return multiply_row<Tag, kCols, kRowTiles, 4>(sums, rows, memory, place, parts.oldest);
      case 3:
        return multiply_row<Tag, kCols, kRowTiles, 3>(sums, rows, memory, place, parts.oldest);
      case 2:
        return multiply_row<Tag, kCols, kRowTiles, 2>(sums, rows, memory, place, parts.oldest);
      case 1:
        return multiply_row<Tag, kCols, kRowTiles, 1>(sums, rows, memory, place, parts.oldest);
    }
  }
}

}  // namespace hstl

#endif  // HSTL_WGMMA
