// What the convolutions share: their parameters, the packed weights, and what happens to a finished sum.
//
// forward and dgrad are the same convolution; dgrad's weights are transposed and mirrored. A block computes one tile of
// a segment for kCols outputs. It goes through the segment's input frames once: an input frame f is multiplied by all
// three taps over time, into the sums of outputs f - 1, f and f + 1, so that its fragments are loaded once, and the
// output of frame t is finished by input t + 1. The sums of output t are those number (t - begin) % 3.
#pragma once

#include <type_traits>

#include "maps.cuh"

namespace hstl {

constexpr int kTaps = 9;   // of a frame: rows and columns
constexpr int kTimes = 3;  // frames

// What is done to the sums of the convolution, and where they go.
struct Epilogue {
  void* y;                       // [F, places, c]
  const uint8_t* support;        // [F, places], or null
  const void* x;                 // [F, places, c]: y is multiplied by `slope` where x is not positive; or null
  const float* maximum_grad;     // [N, places, c]: added where `maximum_index` names the frame; or null
  const int16_t* maximum_index;  // [N, places, c]
  int64_t places;
  int c;
  float slope;   // without x, of the activation
  bool vectors;  // whether every eight channels of y, x and maximum_grad are aligned to 16 bytes
};

struct Convolution {
  Tiles tiles;
  Map x;
  const unsigned char* weights;  // packed, below
  int channel_blocks, col_blocks;
  bool resident;  // whether a block keeps all of its weights in shared memory
  Epilogue to;
};

// Packed weights: [regions, column blocks, channel blocks, kTaps] stages of [kUnits, kTimes, kCols, 16 bytes], the
// latest time first. Eight columns of a unit are 128 contiguous bytes: a matrix of ldmatrix, and a core matrix of
// wgmma, which takes the columns of successive times as one product.
template <int kCols>
constexpr int kStageBytes = kTimes * kUnits * kCols * kUnitBytes;

// What a block works on; in shared memory, so that its parts hold no registers between their uses.
struct Work {
  Tile tile;
  Segment segment;
  const int32_t* sites;          // the tile's
  const unsigned char* weights;  // the region's and the column block's first stage
  int first_frame, last_frame;   // of the input
  int box;                       // places
};

// The tile of this block, for thread 0 to write; a barrier has to follow. False: nothing is to be done.
template <int kCols>
__device__ __forceinline__ bool find_work(const Convolution& p, Work* to) {
  int tile_number = blockIdx.x / p.col_blocks, segment = tile_number / p.tiles.tiles_per_segment;
  Segment s = find_segment(p.tiles, segment);
  Tile tile = p.tiles.tiles[tile_number];
  if (s.begin == s.end || tile.count == 0) return false;
  if (threadIdx.x == 0) {
    store_words(&to->tile, tile);
    store_words(&to->segment, s);
    store_shared(&to->sites, p.tiles.sites + int64_t(segment) * p.tiles.h * p.tiles.w + tile.begin);
    int64_t stages = p.channel_blocks * kTaps, unit = int64_t(tile.region) * p.col_blocks + blockIdx.x % p.col_blocks;
    store_shared(&to->first_frame, max(s.begin - 1, s.first));
    store_shared(&to->last_frame, min(s.end, s.last));
    store_shared(&to->box, tile.rows * tile.cols);
    store_shared(&to->weights, p.weights + unit * stages * kStageBytes<kCols>);
  }
  return true;
}

// The taps over time by which an input frame is multiplied, for each of the sums; -1: the output is not the segment's.
struct Times {
  int of[kTimes];
};

__device__ __forceinline__ Times times_of(const Segment& s, int frame) {
  Times times;
  int oldest = (frame + 2 - s.begin) % kTimes;  // the sums of output frame - 1
#pragma unroll
  for (int j = 0; j < kTimes; ++j) {
    int later = (j - oldest + kTimes) % kTimes, output = frame - 1 + later;
    times.of[j] = output >= s.begin && output < s.end ? 2 - later : -1;
  }
  return times;
}

// Whether an input frame is the last for the output that it adds to by this tap.
__device__ __forceinline__ bool is_complete(const Segment& s, int frame, int time) {
  return time == 2 || (time == 1 && frame == s.last);
}

// Columns of a block, for so many outputs. In plain float32 the sums of 64 leave too few registers for the operands.
template <class Tag>
int cols_of(int64_t outputs) {
  return outputs <= 32 || std::is_same_v<Tag, Float32> ? 32 : 64;
}
inline int64_t blocks_of(int64_t n, int64_t of) { return (n + of - 1) / of; }

struct Packing {
  void* packed;
  const void* weights;  // [m, c_out, c_in, 3, 3, 3]
  int64_t regions;
  int c_out, c_in;
  bool transposed;  // inputs are c_out and outputs c_in, taps are mirrored
  int channel_blocks, col_blocks, cols;
};

template <class Tag>
__device__ __forceinline__ typename Tag::storage rounded(Tag, typename Tag::storage x) {
  return x;
}
__device__ __forceinline__ float rounded(Tf32, float x) { return round_to_tf32(x); }

// Packs element i of the packed weights.
template <class Tag>
__device__ __forceinline__ void pack_element(const Packing& p, int64_t i) {
  using T = typename Tag::storage;
  constexpr int kChannels = kUnitChannels<Tag>;
  int64_t rest = i;
  auto next = [&](int n) {
    int digit = int(rest % n);
    rest /= n;
    return digit;
  };
  int channel = next(kChannels), col = next(p.cols);
  int time = kTimes - 1 - next(kTimes);
  channel += next(kUnits) * kChannels;
  int tap = next(kTaps);
  channel += next(p.channel_blocks) * kBlockChannels<Tag>;
  col += next(p.col_blocks) * p.cols;
  int c_out = p.transposed ? channel : col, c_in = p.transposed ? col : channel;
  int at = p.transposed ? 26 - (time * kTaps + tap) : time * kTaps + tap;
  T value = from_float<T>(0.0f);
  if (c_out < p.c_out && c_in < p.c_in)
    value = rounded(Tag(), static_cast<const T*>(p.weights)[((rest * p.c_out + c_out) * p.c_in + c_in) * 27 + at]);
  static_cast<T*>(p.packed)[i] = value;
}

}  // namespace hstl
