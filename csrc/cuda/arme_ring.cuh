// A block of the convolution by warpgroups: its shape, its shared memory, its work, and the ring of weights, which one
// thread fills by bulk copies.
#pragma once

#include "epilogue.cuh"
#include "wgmma.cuh"

namespace hstl {

constexpr int kWarpgroupThreads = 128;
constexpr int kGroupRows = 64;  // of a product
constexpr int kRowTaps = 3;     // taps of one row; after each the ring is refilled
constexpr int kBehind = 4;      // stages that the warpgroup that refills the ring may be ahead of the others

// Warpgroups of a block, and 64-row tiles of each.
template <int kCols>
struct Shape {
  static constexpr int kWarpgroups = kCols == 32 ? 4 : 2;
  static constexpr int kThreads = kWarpgroups * kWarpgroupThreads;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRowTiles = kPositions / kGroupRows / kWarpgroups;
  // Sums of a thread per row tile, in three parts, one per output frame that an input frame adds to. With 32 columns,
  // the products of all parts are one product, as narrow products do not reach the full rate. Then the parts are in the
  // order of frames, and their sums move from frame to frame. Else the sums of output t stay in part (t - begin) % 3,
  // and no product is made for an output that is not the segment's.
  static constexpr int kSums = kTimes * kCols / 2;
  static constexpr bool kStacked = kCols == 32;
};

template <int kCols>
using GroupSums = float[Shape<kCols>::kRowTiles][Shape<kCols>::kSums];

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

// What a block works on, and the state of its ring.
struct RingWork : Work {
  int patches;  // channel blocks of all input frames
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
  RingWork* work;
  int* places;
  unsigned char* staged;  // kStagedBytes per warp
};

template <int kCols>
__host__ __device__ __forceinline__ int shared_bytes(int slots) {
  return 2 * kPatchBytes + slots * kStageBytes<kCols> + Shape<kCols>::kWarps * kStagedBytes<kCols> +
         (2 * slots + 4) * int(sizeof(uint64_t)) + int(sizeof(RingWork)) + kBox * int(sizeof(int));
}

#ifdef HSTL_WGMMA

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
  memory.work = reinterpret_cast<RingWork*>(memory.patch_empty + 2);
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

// Begins to fill the ring of weights. By one thread.
template <int kCols>
__device__ __forceinline__ void fill_ring(const Memory& memory, int slots, int stages, int steps) {
  const unsigned char* weights = load_shared(&memory.work->weights);
  int filled = min(slots, steps);
  for (int i = 0; i < filled; ++i) copy_stage<kCols>(memory, i, weights + i % stages * kStageBytes<kCols>);
  int delay = min(kBehind, slots - kRowTaps);  // else the next row would lack a stage
  store_words(&memory.work->refill, Refill{Cursor{0, 0}, filled % stages, steps - filled, delay});
}

// Copies the next stage of weights, where the warps have used what stands in its slot. By one thread, once for every
// step.
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

// Finds what the block works on, and prepares the barriers and the ring. False: nothing.
template <int kCols>
__device__ __forceinline__ bool find_ring_work(const Convolution& p, int slots, const Memory& memory) {
  RingWork* work = memory.work;
  if (!find_work<kCols>(p, work)) return false;
  if (threadIdx.x == 0) {
    int frames = load_shared(&work->last_frame) - load_shared(&work->first_frame) + 1;
    int stages = p.channel_blocks * kTaps;
    store_shared(&work->patches, frames * p.channel_blocks);
    init_barriers<kCols>(memory, slots);
    fill_ring<kCols>(memory, slots, stages, p.resident ? stages : frames * stages);
  }
  __syncthreads();
  place_box(memory.places, work->tile, p.tiles.w);
  __syncthreads();
  return true;
}

#endif  // HSTL_WGMMA

}  // namespace hstl
