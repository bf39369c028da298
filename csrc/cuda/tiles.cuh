// Which positions a block computes. A segment is a stretch of a sequence's frames; a tile is up to kPositions positions
// of one region that are inside the support in any frame of the segment, listed in the order of rows and columns, and
// the box of the map that holds them and their neighbours. A position keeps its place in the list from frame to frame,
// so that the three taps over time of an output are sums in the same registers.
//
// A region wider than kPanel columns is divided into panels of columns. Grids are as large as any support needs, since
// the host does not wait for the lists; a block without a tile ends at once.
#pragma once

#include "../function.h"
#include "device.cuh"

namespace hstl {

constexpr int kPositions = 256;
// Positions of a tile's box, neighbours included, and of a plane of 16-byte units in shared memory: 2 more than a
// multiple of 8, so that the four units of two positions, which eight neighbouring threads copy, lie in different
// banks.
constexpr int kBox = 418;
constexpr int kPanel = 64;

struct Tile {
  int region;
  int region_begin, region_end;  // rows of the map
  int begin, count;              // of the segment's sites; count 0: no tile
  int first_row, first_col;      // of the box, which may begin one row and column outside the map
  int rows, cols;                // of the box
};

// A stretch of frames, begin <= t < end, of a sequence, and that sequence's first and last frame.
struct Segment {
  int begin, end;
  int sequence;
  int first, last;
};

// What the host knows of the lists.
struct TilePlan {
  int64_t frames, sequences, h, w, regions;
  int stretch;
  int panels, panel_cols;
  int64_t segments;   // at most
  int64_t tiles;      // of a segment, at most
  int64_t most_rows;  // of a region

  TilePlan(const IntList& split, int64_t frames, int64_t sequences, int64_t w, int stretch);
  size_t bytes() const;
};

// The lists in device memory.
struct Tiles {
  const int32_t* starts;          // [sequences + 1]: frames
  const int32_t* segment_starts;  // [sequences + 1]: segments
  const Tile* tiles;              // [segments, tiles_per_segment]
  const int32_t* sites;           // [segments, h * w]: row * w + column, region by region
  const uint8_t* listed;          // [segments, h * w]: whether a position is in the list
  int sequences, tiles_per_segment, h, w, stretch;
};

// Enqueues the listing. `support` is null where every position is listed.
Tiles list_tiles(const TilePlan& plan, const uint8_t* support, const int32_t* starts, const int32_t* regions,
                 void* memory, void* stream);

// Enqueues zeros at the positions of y [F, H, W, channel_bytes] that no tile lists.
void clear_unlisted(const TilePlan& plan, const Tiles& tiles, void* y, int64_t channel_bytes, void* stream);

constexpr unsigned kAllLanes = 0xffffffffu;

// Structs of 4-byte words to and from shared memory, by one thread.
template <class T>
__device__ __forceinline__ void store_words(T* to, const T& from) {
#pragma unroll
  for (int i = 0; i < int(sizeof(T) / 4); ++i)
    store_shared(reinterpret_cast<int*>(to) + i, reinterpret_cast<const int*>(&from)[i]);
}
template <class T>
__device__ __forceinline__ T load_words(const T* from) {
  T to;
#pragma unroll
  for (int i = 0; i < int(sizeof(T) / 4); ++i)
    reinterpret_cast<int*>(&to)[i] = load_shared(reinterpret_cast<const int*>(from) + i);
  return to;
}

// The segment of this number; an empty one behind the last.
__device__ __forceinline__ Segment find_segment(const Tiles& t, int segment) {
  if (segment >= t.segment_starts[t.sequences]) return {0, 0, 0, 0, 0};
  int low = 0, high = t.sequences;  // segment_starts[low] <= segment < segment_starts[high]
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (t.segment_starts[middle] <= segment)
      low = middle;
    else
      high = middle;
  }
  int first = t.starts[low], end = t.starts[low + 1];
  int begin = first + (segment - t.segment_starts[low]) * t.stretch;
  return {begin, min(begin + t.stretch, end), low, first, end - 1};
}

}  // namespace hstl
