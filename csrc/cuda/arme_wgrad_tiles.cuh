// What the kernels of the weights' gradient share: how regions are divided into splits, and how a block goes through
// the frames of a tile.
#pragma once

#include "arme.cuh"
#include "types.cuh"

namespace hstl {

constexpr int kRing = 3;  // chunks of the gradient in flight or in use
constexpr int kAllTaps = kTimes * kTaps;
// Partial sums are kept in groups: of kGroup input channels and kGroupCols outputs at the kTaps of a frame. For every
// tap and 8 outputs, element i of lane l is that of channel l / 4 + i / 2 * 8, and output 2 (l % 4) + i % 2.
constexpr int kGroup = 16;
constexpr int kGroupCols = 32;
constexpr int kWarpSums = kTaps * kGroup * kGroupCols;

// A segment's tiles of all segments are items. Those of a region are divided into splits of about `per_split` items,
// whose sums over positions are partial sums, [slots, parts, kTimes, groups, column groups, kWarpSums]. Region r's
// splits have the slots from floor(T segments / per_split) + r on, where T tiles of a segment come before the region.
struct Wgrad {
  Tiles tiles;
  Map x, grad;
  float* sums;
  int segments, per_split;
  int channel_groups, col_groups;  // of all blocks
  int block_groups, block_cols;    // of a block
  int parts;                       // that a block's products are divided into over positions
  int channel_blocks, col_blocks;
  int h, w;
};

// ---- splits

struct Share {
  int first_tile, tiles;  // of a segment: the region's
  int split, splits;      // this block's, and the region's
};

__device__ __forceinline__ int first_slot(const Wgrad& p, int first_tile, int region) {
  return first_tile * p.segments / p.per_split + region;
}

// Tiles of a segment that belong to regions before this one. By a warp.
__device__ __forceinline__ int tiles_before(const Tiles& t, int region) {
  int found = 0;
  for (int first = 0; first < t.tiles_per_segment; first += 32) {
    int i = first + int(threadIdx.x % 32);
    found += __popc(__ballot_sync(kAllLanes, i < t.tiles_per_segment && t.tiles[i].region < region));
  }
  return found;
}

__device__ __forceinline__ Share share_of_region(const Wgrad& p, int region) {
  int first = tiles_before(p.tiles, region), tiles = tiles_before(p.tiles, region + 1) - first;
  return {first, tiles, 0, (tiles * p.segments + p.per_split - 1) / p.per_split};
}

// The region whose slots begin last at or before this one is that of the last tile whose slot would.
__device__ __forceinline__ Share share_of_slot(const Wgrad& p, int slot) {
  int found = 0;
  for (int first = 0; first < p.tiles.tiles_per_segment; first += 32) {
    int i = first + int(threadIdx.x % 32);
    bool before = i < p.tiles.tiles_per_segment && first_slot(p, i, p.tiles.tiles[i].region) <= slot;
    found += __popc(__ballot_sync(kAllLanes, before));
  }
  int region = p.tiles.tiles[found - 1].region;
  Share share = share_of_region(p, region);
  share.split = slot - first_slot(p, share.first_tile, region);
  return share;
}

// What a block computes: a split of a region, for one time and some channels and outputs.
struct WgradWork {
  int slot, time, channel_block, col_block;
};

__device__ __forceinline__ WgradWork work_of_block(const Wgrad& p) {
  int blocks = kTimes * p.channel_blocks * p.col_blocks, block = int(blockIdx.x) % blocks;
  return {int(blockIdx.x) / blocks, block % kTimes, block / kTimes % p.channel_blocks,
          block / kTimes / p.channel_blocks};
}

// ---- copies

// Units of places, as planes.
struct Planes {
  unsigned char* to;
  int plane_bytes;
  __device__ __forceinline__ unsigned char* at(int i, int unit) const {
    return to + unit * plane_bytes + i * kUnitBytes;
  }
};

// Copies part `part` of `parts` of a frame's channels, `units` for each place of a list, in the background where that
// is possible. Threads that follow one another copy the units of one place; both are powers of two.
template <class Tag, class Layout>
__device__ __forceinline__ void copy_units(const Layout& to, const Map& map, int64_t frame, int first_channel,
                                           int units, const int* places, int count, int part, int parts) {
  int unit = threadIdx.x & (units - 1), bits = __ffs(units) - 1;
  int channel = first_channel + unit * kUnitChannels<Tag>;
  int begin = count * part / parts + int(threadIdx.x >> bits), end = count * (part + 1) / parts;
  int step = int(blockDim.x >> bits);
  int64_t first_place = frame * map.places;
  if (map.direct) {
    const auto* from = static_cast<const storage_of<Tag>*>(map.data);
    const auto* channels = from + first_place * map.c + channel;
#pragma unroll 2
    for (int i = begin; i < end; i += step) {
      int place = load_shared(places + i);
      bool exists = place >= 0 && channel < map.c;
      copy_async_16(to.at(i, unit), exists ? channels + int64_t(place) * map.c : from, exists);
    }
  } else {
#pragma unroll 1
    for (int i = begin; i < end; i += step) {
      int place = load_shared(places + i);
      copy_unit<Tag>(to.at(i, unit), map, place < 0 ? 0 : first_place + place, channel, place >= 0);
    }
  }
}

// Returns the site, if it exists and is inside the support at that frame, else -1.
__device__ __forceinline__ int active_site(const Map& grad, int frame, int site) {
  return site < 0 || grad.support == nullptr || grad.support[frame * grad.places + site] != 0 ? site : -1;
}

// ---- the frames of a tile

// A chunk of a frame: positions whose gradient is copied at once.
struct Step {
  int frame, chunk;
};

// Frames begin <= t < end of a tile, each of so many chunks.
struct Steps {
  int begin, end, chunks;
  __device__ __forceinline__ int count() const { return (end - begin) * chunks; }
  __device__ __forceinline__ Step following(Step s) const {
    bool last = s.chunk + 1 == chunks;
    return {s.frame + last, last ? 0 : s.chunk + 1};
  }
};

// Multiplies all steps of a tile, whose lists are ready. A step's gradient is copied two steps before it is multiplied,
// and its sites are found one step before that. A frame's x comes in parts, one a step, the last of them two steps
// before it is needed if a frame has two.
//   t: what is copied and multiplied; the warps' products of a step are done when `multiply` returns
//   exists: whether the warp has products
//   second: the warp multiplies before it copies, else after. Of the warps that share a quarter of the multiprocessor
//     one copies while the other multiplies
template <class Tile, class Sums>
__device__ __forceinline__ void multiply_steps(const Tile& t, Sums& sums, bool exists, bool second) {
  const Steps& steps = t.steps;
  Step now = {steps.begin, 0}, copied = steps.following(now);
  t.store_active(0, t.find_active(now));
  t.store_active(1, t.find_active(copied));
  __syncthreads();
  t.copy_x(steps.begin, 0, 1);
  t.copy_grad(0, now);
  copy_async_commit();
  t.copy_grad(1, copied);
  copy_async_commit();
  int active = t.find_active(steps.following(copied));
  __syncthreads();
  t.store_active(2, active);

  int x_parts = max(steps.chunks - 1, 1), count = steps.count();
  for (int number = 0; number < count; ++number) {
    if (steps.chunks == 1)
      copy_async_wait<0>();
    else
      copy_async_wait<kRing - 2>();
    t.publish();
    __syncthreads();
    copied = steps.following(copied);
    active = t.find_active(steps.following(copied));  // arrives while the step is multiplied
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      if (half == second) {
        t.copy_grad(number + 2, copied);
        if (now.frame + 1 < steps.end && now.chunk < x_parts) t.copy_x(now.frame + 1, now.chunk, x_parts);
        copy_async_commit();
      } else if (exists) {
        t.multiply(sums, number, now);
      }
    }
    t.store_active(number + 3, active);
    now = steps.following(now);
  }
}

}  // namespace hstl
