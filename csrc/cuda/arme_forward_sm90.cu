// ARME's convolution by wgmma, for sm_90a. It computes what arme_forward.cu's `convolve` computes, from the same lists,
// the same packed weights and with the same epilogue.
#include "arme_sm90.cuh"
#include "arme_warpgroup.cuh"
#include "launch.cuh"

namespace hstl {
namespace {

struct ConvolutionSm90 {
  Convolution c;
  int slots;  // of the ring of weights; all of the weights if resident
};

#ifdef HSTL_WGMMA

// The rows of taps before which the next patch is copied, and before which the copies have to have arrived. A warpgroup
// may be three stages ahead of another at both, so that one finishes outputs while the others multiply.
constexpr int kCopyRow = 1, kArriveRow = 2;

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
  int tiles = row_tiles<kCols>(to.count), lane = thread % 32;
  static_assert(Shape<kCols>::kRowTiles <= 2, "a lane has a row");
  bool exists = lane / 16 < Shape<kCols>::kRowTiles;
  uint32_t active = find_active(p.to, to, exists ? listed_row<kCols>(thread, lane / 16, lane % 16) : to.count);
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
      store_rows<typename Tag::storage, kCols>(p.to, to, active >> (m * 16 + half * kStagedRows), staged, rows);
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

#endif  // HSTL_WGMMA

// One tile of a segment for kCols outputs. Of C_in inputs, at 16 bits:
//   FLOPs: 54 C_in C_out per position and frame. Products of 64 rows, N columns and 32 bytes of k take N / 2 cycles, so
//     a patch, 32 channels of a frame for 256 positions, takes 6912 cycles with 64 outputs and 3456 with 32.
//   Shared memory's time, at 128 bytes a cycle, over that of the products. Weights take 0.5, as each product reads its
//     own, and 0.12 where they are copied for each patch. Fragments take 0.17 with 64 outputs and 0.33 with 32, and a
//     fifth more for the conflicts of lists that pass from row to row of the box; the copy of a patch takes 0.03 and
//     0.06, outputs on their way through store_rows 0.15, once for all channel blocks. The sum is 1.11 for 32-32, 0.88
//     for 32-64, 0.93 for 64-128 and 0.89 for 128-128: this is the limit.
//   Bytes from and to the second-level cache, a cycle and multiprocessor, with 64 outputs: 16 of weights unless they
//     stay, 4 of patches, and 5 of outputs, once for all channel blocks.
//   Registers: with 64 outputs 192 sums and 16 of fragments, in two warpgroups of two row tiles; with 32 outputs 48 and
//     8, in four of one. While a step's products run, the fragments of the next step are loaded; while a warpgroup
//     finishes outputs, the others multiply.
//   Shared memory: 53 KB of patches, 18 or 20 KB of staged outputs, and up to 12 stages of 12 KB or 25 of 6 KB: the
//     weights stay with up to 32 inputs for 64 outputs, and with up to 64 for 32.
// Predicted share of the rate of wgmma: 0.65 for 32-32, 0.68 for 32-64 and 64-128, 0.72 for 128-128.
template <class Tag, int kCols>
HSTL_KERNEL(Shape<kCols>::kThreads, 1)
convolve_sm90(const __grid_constant__ ConvolutionSm90 parameters) {
#ifdef HSTL_WGMMA
  const Convolution& p = parameters.c;
  Memory memory = memory_of<kCols>(parameters.slots);
  Work* work = memory.work;
  if (!find_ring_work<kCols>(p, parameters.slots, memory)) return;
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
  launch("arme_convolve_sm90", convolve_sm90<Tag, kCols>, grid_of(plan.segments * plan.tiles * p.col_blocks),
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
