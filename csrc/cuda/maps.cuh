// Copies of a tile's part of a feature map into shared memory, as planes of 16-byte units: the address of unit u of
// place i is (u kBox + i) 16. A step of the product over channels reads two units of a place, 32 bytes: 16 channels of
// two bytes, or 8 of four. Channels come in blocks of kUnits units.
#pragma once

#include "operators.h"
#include "tiles.cuh"

namespace hstl {

constexpr int kUnits = 4;
constexpr int kUnitBytes = 16;
constexpr int kPlaneBytes = kBox * kUnitBytes;
constexpr int kPatchBytes = kUnits * kPlaneBytes;

// Elements of a unit, and channels of a block.
template <class Tag>
constexpr int kUnitChannels = kUnitBytes / int(sizeof(typename Tag::storage));
template <class Tag>
constexpr int kBlockChannels = kUnits * kUnitChannels<Tag>;

// A feature map [F, places_per_frame, c] in memory.
struct Map {
  const void* data;
  const uint8_t* support;  // [F, places_per_frame]: what is outside is copied as zeros and not read; null: read all
  int64_t places;          // of a frame
  int c;
  bool bytes;   // 0..255, which stand for 0..1
  bool direct;  // whether every place's units are aligned and whole, so that they can be copied in the background
};

inline Map map_of(const void* data, const uint8_t* support, int64_t places, int64_t c, int type, int itemsize) {
  bool bytes = type == kBytes;
  bool direct = !bytes && c * itemsize % kUnitBytes == 0 && reinterpret_cast<uintptr_t>(data) % kUnitBytes == 0;
  return {data, support, places, int(c), bytes, direct};
}

// The place of a position of a tile's box in its frame, or -1 where it belongs to another region or none.
__device__ __forceinline__ int place_of(const Tile& tile, int box_row, int box_col, int w) {
  int row = tile.first_row + box_row, col = tile.first_col + box_col;
  bool exists = row >= tile.region_begin && row < tile.region_end && col >= 0 && col < w;
  return exists ? row * w + col : -1;
}

// The places of all positions of a tile's box.
__device__ __forceinline__ void place_box(int* places, const Tile& tile, int w) {
  for (int i = threadIdx.x; i < tile.rows * tile.cols; i += blockDim.x)
    store_shared(places + i, place_of(tile, i / tile.cols, i % tile.cols, w));
}

// One unit of a place, where its channels do not lie as the copies in the background need them.
template <class Tag>
__device__ __forceinline__ void copy_unit(void* to, const Map& map, int64_t place, int first_channel, bool exists) {
  using T = typename Tag::storage;
#pragma unroll 1  // this way is rare, and its registers are those of sums
  for (int i = 0; i < kUnitChannels<Tag>; ++i) {
    int64_t at = place * map.c + first_channel + i;
    T value = from_float<T>(0.0f);
    if (exists && first_channel + i < map.c)
      value = map.bytes ? from_float<T>(float(static_cast<const uint8_t*>(map.data)[at]) / 255.0f)
                        : static_cast<const T*>(map.data)[at];
    store_shared(static_cast<T*>(to) + i, value);
  }
}

// Copies part `part` of `parts` of one frame's channel block, for the places of a list in shared memory, in the
// background where that is possible. Threads that follow one another copy the units of one place.
template <class Tag, int kCopied = kUnits>
__device__ __forceinline__ void copy_places(unsigned char* to, const Map& map, int64_t frame, int channel_block,
                                            const int* places, int count, int part, int parts) {
  int items = count * kCopied;
  int begin = items * part / parts, end = items * (part + 1) / parts;
  int64_t first_place = frame * map.places;
  int first_channel = channel_block * kCopied * kUnitChannels<Tag>;
#pragma unroll 2
  for (int i = begin + int(threadIdx.x); i < end; i += int(blockDim.x)) {
    int at = i / kCopied, unit = i % kCopied;
    int in_frame = load_shared(places + at);
    int64_t place = first_place + in_frame;
    int channel = first_channel + unit * kUnitChannels<Tag>;
    bool exists = in_frame >= 0 && (map.support == nullptr || map.support[place] != 0);
    unsigned char* unit_to = to + (unit * kBox + at) * kUnitBytes;
    if (map.direct) {
      exists = exists && channel < map.c;
      const auto* from = static_cast<const typename Tag::storage*>(map.data) + (exists ? place * map.c + channel : 0);
      copy_async_16(unit_to, from, exists);
    } else {
      copy_unit<Tag>(unit_to, map, exists ? place : 0, channel, exists);
    }
  }
}

}  // namespace hstl
