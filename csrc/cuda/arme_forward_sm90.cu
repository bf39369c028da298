// ARME's convolution by wgmma, for sm_90a. It computes what arme_forward.cu's `convolve` computes, from the same lists,
// the same packed weights and with the same epilogue.
#include "arme_sm90.cuh"
#include "epilogue.cuh"
#include "launch.cuh"
#include "wgmma.cuh"

#if defined(HSTL_HOST_SHIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HSTL_WGMMA_CODE 1
#endif

namespace hstl {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarpgroupThreads = 128;
constexpr int kGroupRows = 64;
constexpr int kSteps = kUnits / 2;  // of 32 bytes of channels, of a stage
constexpr int kBehind = 4;          // stages that the warpgroup that refills the ring may be ahead of the others
// The rows of taps before which the next patch is copied, and before which the copies have to have arrived. A warpgroup
// may be three stages ahead of another at both, so that one finishes outputs while the others multiply.
constexpr int kCopyRow = 1, kArriveRow = 2;
constexpr int kRowTaps = 3;

// Warpgroups of a block, and 64-row tiles of each.
template <int kCols>
struct Shape {
  static constexpr int kWarpgroups = kCols == 32 ? 4 : 2;
  static constexpr int kThreads = kWarpgroups * kWarpgroupThreads;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRowTiles = kPositions / kGroupRows / kWarpgroups;
  // Sums of a thread per row tile, in three parts, one per output frame that an input frame adds to. With 32 columns,
  // the products of all parts are one product, as narrow products do not reach the full rate. Then the parts have to
  // stay in the order of frames, and move from frame to frame. Else the sums of output t stay in part (t - begin) % 3.
  static constexpr int kSums = kTimes * kCols / 2;
  static constexpr bool kStacked = kCols == 32;
};

template <int kCols>
using GroupSums = float[Shape<kCols>::kRowTiles][Shape<kCols>::kSums];
template <int kCols>
using Fragments = uint32_t[Shape<kCols>::kRowTiles][4];

struct ConvolutionSm90 {
  Convolution c;
  int slots;  // of the ring of weights; all of the weights if resident
};

// A place in a ring, and the parity of the ring's round.
struct Cursor {
  int slot, parity;
  __device__ __forceinline__ void advance(int slots) {
    if (++slot < slots) return;
    slot = 0;
    parity ^= 1;
  }
};

// The stage of weights that is copied next, when all warps have used what stands in its slot; of one thread.
struct Refill {
  Cursor slot;
  int stage;  // of the frame's
  int left;   // stages to copy
  int delay;  // steps until the first is copied
};

// What a block works on, in shared memory, so that it takes no registers.
struct Work {
  Tile tile;
  Segment segment;
  int first_frame;               // of the input
  int patches;                   // channel blocks of all input frames
  const int32_t* sites;          // the tile's
  const unsigned char* weights;  // the region's and the column block's first stage
  Refill refill;
};

// The block's shared memory: two patches, for this and the next channel block or frame, the ring of weights, barriers,
// the work, the box's places and what store_rows needs.
struct Memory {
  unsigned char* patches;
  unsigned char* weights;
  uint64_t* weights_full;   // [slots]: the stage has arrived
  uint64_t* weights_empty;  // [slots]: all warps have multiplied by it
  uint64_t* patch_full;     // [2]: all warps' copies have arrived
  uint64_t* patch_empty;    // [2]: all warps have read it
  Work* work;
  int* places;
  unsigned char* staged;  // kStagedBytes per warp
};

template <int kCols>
__host__ __device__ __forceinline__ int shared_bytes(int slots) {
  return 2 * kPatchBytes + slots * kStageBytes<kCols> + Shape<kCols>::kWarps * kStagedBytes<kCols> +
         (2 * slots + 4) * int(sizeof(uint64_t)) + int(sizeof(Work)) + kBox * int(sizeof(int));
}

#ifdef HSTL_WGMMA_CODE

template <int kCols>
__device__ __forceinline__ Memory memory_of(int slots) {
  Memory memory;
  memory.patches = dynamic_shared();
  memory.weights = memory.patches + 2 * kPatchBytes;
  memory.staged = memory.weights + slots * kStageBytes<kCols>;
  memory.weights_full = reinterpret_cast<uint64_t*>(memory.staged + Shape<kCols>::kWarps * kStagedBytes<kCols>);
  memory.weights_empty = memory.weights_full + slots;
  memory.patch_full = memory.weights_empty + slots;
  memory.patch_empty = memory.patch_full + 2;
  memory.work = reinterpret_cast<Work*>(memory.patch_empty + 2);
  memory.places = reinterpret_cast<int*>(memory.work + 1);
  return memory;
}

// By one thread.
template <int kCols>
__device__ __forceinline__ void init_barriers(const Memory& memory, int slots) {
  for (int i = 0; i < slots; ++i) {
    barrier_init(memory.weights_full + i, 1);
    barrier_init(memory.weights_empty + i, Shape<kCols>::kWarps);
  }
  for (int i = 0; i < 2; ++i) {
    barrier_init(memory.patch_full + i, Shape<kCols>::kWarps);
    barrier_init(memory.patch_empty + i, Shape<kCols>::kWarps);
  }
  barrier_init_fence();
}

// By one thread.
template <int kCols>
__device__ __forceinline__ void copy_stage(const Memory& memory, int slot, const unsigned char* stage) {
  barrier_expect(memory.weights_full + slot, kStageBytes<kCols>);
  copy_bulk(memory.weights + slot * kStageBytes<kCols>, stage, kStageBytes<kCols>, memory.weights_full + slot);
}

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

// The first input frame of a segment's outputs, and how many there are.
__device__ __forceinline__ int first_frame(const Segment& s) { return max(s.begin - 1, s.first); }
__device__ __forceinline__ int frames_of(const Segment& s) { return min(s.end, s.last) - first_frame(s) + 1; }

// Begins to fill the ring of weights. By one thread.
template <int kCols>
__device__ __forceinline__ void fill_ring(const Memory& memory, int slots, int stages, int steps) {
  const unsigned char* weights = load_shared(&memory.work->weights);
  int filled = min(slots, steps);
  for (int i = 0; i < filled; ++i) copy_stage<kCols>(memory, i, weights + i % stages * kStageBytes<kCols>);
  store_words(&memory.work->refill, Refill{Cursor{0, 0}, filled % stages, steps - filled, kBehind});
}

// Copies the next stage of weights into the slot that the warps used kBehind steps ago. By one thread, after each step.
template <int kCols>
__device__ __forceinline__ void refill_ring(const Memory& memory, int slots, int stages) {
  Refill r = load_words(&memory.work->refill);
  if (r.left == 0) return;
  if (r.delay > 0) {
    --r.delay;
  } else {
    wait_phase(memory.weights_empty + r.slot.slot, r.slot.parity);
    copy_stage<kCols>(memory, r.slot.slot, load_shared(&memory.work->weights) + r.stage * kStageBytes<kCols>);
    r.slot.advance(slots);
    r.stage = r.stage + 1 < stages ? r.stage + 1 : 0;
    --r.left;
  }
  store_words(&memory.work->refill, r);
}

// Finds what the block works on, and prepares the barriers. False: nothing.
template <int kCols>
__device__ __forceinline__ bool find_work(const Convolution& p, int slots, const Memory& memory) {
  int tile_number = blockIdx.x / p.col_blocks, segment = tile_number / p.tiles.tiles_per_segment;
  Segment s = find_segment(p.tiles, segment);
  Tile tile = p.tiles.tiles[tile_number];
  if (s.begin == s.end || tile.count == 0) return false;
  place_box(memory.places, tile, p.tiles.w);
  if (threadIdx.x == 0) {
    int stages = p.channel_blocks * kTaps;
    int64_t unit = int64_t(tile.region) * p.col_blocks + blockIdx.x % p.col_blocks;
    store_words(&memory.work->tile, tile);
    store_words(&memory.work->segment, s);
    store_shared(&memory.work->sites, p.tiles.sites + int64_t(segment) * p.tiles.h * p.tiles.w + tile.begin);
    store_shared(&memory.work->weights, p.weights + unit * stages * kStageBytes<kCols>);
    init_barriers<kCols>(memory, slots);
    store_shared(&memory.work->first_frame, first_frame(s));
    store_shared(&memory.work->patches, frames_of(s) * p.channel_blocks);
    fill_ring<kCols>(memory, slots, stages, p.resident ? stages : frames_of(s) * stages);
  }
  __syncthreads();
  return true;
}

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

// Stores one part of the sums, those of output `frame`, and makes them zero.
template <class Tag, int kCols, int kPart>
__device__ __forceinline__ void finish_part(const Convolution& p, const Memory& memory, GroupSums<kCols>& sums,
                                            int frame) {
  int thread = thread_index();
  Destination to = {load_shared(&memory.work->sites),
                    0,
                    load_shared(&memory.work->tile.count),
                    frame,
                    load_shared(&memory.work->segment.sequence),
                    frame - load_shared(&memory.work->segment.first),
                    int(blockIdx.x % p.col_blocks) * kCols};
  auto* staged = reinterpret_cast<float*>(memory.staged + thread / 32 * kStagedBytes<kCols>);
  int tiles = row_tiles<kCols>(to.count);
#pragma unroll
  for (int m = 0; m < Shape<kCols>::kRowTiles; ++m) {
    if (m >= tiles) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float rows[kCols / 8][2];
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& sum = sums[m][kPart * kCols / 2 + 4 * n + 2 * half + i];
          rows[n][i] = sum;
          sum = 0.0f;
        }
      to.first = listed_row<kCols>(thread, m, half * kStagedRows);
      store_rows<typename Tag::storage, kCols>(p.to, to, staged, rows);
    }
  }
}

template <class Tag, int kCols>
__device__ __forceinline__ void finish(const Convolution& p, const Memory& memory, GroupSums<kCols>& sums, int frame,
                                       int part) {
  if (Shape<kCols>::kStacked || part == 0)
    finish_part<Tag, kCols, 0>(p, memory, sums, frame);
  else if (part == 1)
    finish_part<Tag, kCols, 1>(p, memory, sums, frame);
  else
    finish_part<Tag, kCols, 2>(p, memory, sums, frame);
}

// Moves the parts of the next frame's outputs to their places.
template <int kCols>
__device__ __forceinline__ void advance_frame(GroupSums<kCols>& sums) {
  if (!Shape<kCols>::kStacked) return;
  constexpr int kPart = kCols / 2, kSums = Shape<kCols>::kSums;
#pragma unroll
  for (int m = 0; m < Shape<kCols>::kRowTiles; ++m)
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[m][i] = i + kPart < kSums ? sums[m][i + kPart] : 0.0f;
}

#endif  // HSTL_WGMMA_CODE

// Copies a patch, in the background where that is possible.
template <class Tag>
__device__ __forceinline__ void copy_patch(const Convolution& p, const Memory& memory, int buffer, int frame,
                                           int channel_block) {
  int box = load_shared(&memory.work->tile.rows) * load_shared(&memory.work->tile.cols);
  copy_places<Tag>(memory.patches + buffer * kPatchBytes, p.x, frame, channel_block, memory.places, box, 0, 1);
  copy_async_commit();
}

// Says that this warp's copies are in the patch.
__device__ __forceinline__ void finish_patch(const Memory& memory, int buffer) {
  copy_async_wait<0>();
  __syncwarp();
  if (thread_index() % 32 == 0) barrier_arrive(memory.patch_full + buffer);
}

// Adds the products of one patch, a frame's channel block, and copies the next.
template <class Tag, int kCols>
__device__ __forceinline__ void multiply_patch(const Convolution& p, const Memory& memory, GroupSums<kCols>& sums,
                                               const int (&rows)[Shape<kCols>::kRowTiles], Place& place, int frame,
                                               int channel_block) {
  int patch = place.patch, buffer = patch % 2;
  bool more = patch + 1 < load_shared(&memory.work->patches);
  wait_phase(memory.patch_full + buffer, patch / 2 % 2);
#pragma unroll 1
  for (int row = 0; row < kTaps / kRowTaps; ++row) {
    if (more && row == kCopyRow) {
      if (patch > 0) wait_phase(memory.patch_empty + (buffer ^ 1), (patch - 1) / 2 % 2);
      bool next_frame = channel_block + 1 == p.channel_blocks;
      copy_patch<Tag>(p, memory, buffer ^ 1, frame + next_frame, next_frame ? 0 : channel_block + 1);
    }
    if (more && row == kArriveRow) finish_patch(memory, buffer ^ 1);
    place.taps = buffer * kPatchBytes + row * load_shared(&memory.work->tile.cols) * kUnitBytes;
    int tiles = row_tiles<kCols>(load_shared(&memory.work->tile.count));
    Parts parts = parts_of<kCols>(memory.work, frame);
    if (tiles == Shape<kCols>::kRowTiles)
      multiply_parts<Tag, kCols, Shape<kCols>::kRowTiles>(sums, rows, memory, place, parts);
    else if (tiles == 0)
      skip_row<kCols>(memory, place);
    else if constexpr (Shape<kCols>::kRowTiles > 1)
      multiply_parts<Tag, kCols, 1>(sums, rows, memory, place, parts);
    if (thread_index() == 0)
      for (int i = 0; i < kRowTaps; ++i) refill_ring<kCols>(memory, place.slots, p.channel_blocks * kTaps);
    __syncwarp();
  }
  if (thread_index() % 32 == 0) barrier_arrive(memory.patch_empty + buffer);
  ++place.patch;
}

template <class Tag, int kCols>
HSTL_KERNEL(Shape<kCols>::kThreads, 1)
convolve_sm90(const __grid_constant__ ConvolutionSm90 parameters) {
#ifdef HSTL_WGMMA_CODE
  const Convolution& p = parameters.c;
  Memory memory = memory_of<kCols>(parameters.slots);
  Work* work = memory.work;
  if (!find_work<kCols>(p, parameters.slots, memory)) return;
  int frame = load_shared(&work->first_frame);
  copy_patch<Tag>(p, memory, 0, frame, 0);
  int rows[Shape<kCols>::kRowTiles];
  find_rows<kCols>(rows, p, memory);
  finish_patch(memory, 0);

  GroupSums<kCols> sums = {};
  Place place = {0, 0, {0, 0}, parameters.slots, p.resident};
#pragma unroll 1
  for (; frame <= load_shared(&work->segment.end); ++frame) {
    // Behind the sequence's last frame there is nothing to add.
    int channel_blocks = frame <= load_shared(&work->segment.last) ? p.channel_blocks : 0;
#pragma unroll 1
    for (int i = 0; i < channel_blocks; ++i) multiply_patch<Tag, kCols>(p, memory, sums, rows, place, frame, i);
    int begin = load_shared(&work->segment.begin);
    if (frame > begin) finish<Tag, kCols>(p, memory, sums, frame - 1, (frame - 1 - begin) % kTimes);
    advance_frame<kCols>(sums);
  }
#endif
}

template <class Tag, int kCols>
void launch_columns(const Convolution& p, const TilePlan& plan, int device, void* stream) {
  int bytes = shared_limit(device);
  ConvolutionSm90 parameters = {p, p.channel_blocks * kTaps};
  int slots = parameters.slots;
  while (shared_bytes<kCols>(slots) > bytes) --slots;
  parameters.c.resident = slots == parameters.slots;
  parameters.slots = slots;
  launch("arme_convolve_sm90", convolve_sm90<Tag, kCols>, dim3(unsigned(plan.segments * plan.tiles * p.col_blocks)),
         Shape<kCols>::kThreads, size_t(shared_bytes<kCols>(slots)), stream, parameters);
}

template <class Tag>
void launch_any(int cols, const Convolution& p, const TilePlan& plan, int device, void* stream) {
  if (cols == 32)
    launch_columns<Tag, 32>(p, plan, device, stream);
  else
    launch_columns<Tag, 64>(p, plan, device, stream);
}

}  // namespace

// nvcc names the architectures that it compiles for; 90 is always built as 90a.
bool has_sm90(int device) {
#ifdef HSTL_HOST_SHIM
  constexpr int kBuilt[] = {900};
#else
  constexpr int kBuilt[] = {__CUDA_ARCH_LIST__};
#endif
  for (int architecture : kBuilt)
    if (architecture == 900) return capability(device) == 90;
  return false;
}

void launch_sm90(Half, int cols, const Convolution& p, const TilePlan& plan, int device, void* stream) {
  launch_any<Half>(cols, p, plan, device, stream);
}
void launch_sm90(Bfloat16, int cols, const Convolution& p, const TilePlan& plan, int device, void* stream) {
  launch_any<Bfloat16>(cols, p, plan, device, stream);
}
void launch_sm90(Tf32, int cols, const Convolution& p, const TilePlan& plan, int device, void* stream) {
  launch_any<Tf32>(cols, p, plan, device, stream);
}

}  // namespace hstl
