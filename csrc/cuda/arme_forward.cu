// ARME's convolution by mma.sync, or in plain float32, and the functions forward and dgrad, which choose a kernel.
#include <type_traits>

#include "arme_first.cuh"
#include "arme_sm90.cuh"
#include "arme_wgrad.cuh"
#include "epilogue.cuh"
#include "launch.cuh"
#include "mma.cuh"
#include "types.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 256;
// Blocks of a multiprocessor, whose sums the registers hold.
template <class Tag, int kCols>
constexpr int kBlocks = kCols == 32 && !std::is_same_v<Tag, Float32> ? 2 : 1;
// The compiler's bound. Where arme_forward_sm90.cu takes these types' convolutions it does not matter, and where a
// multiprocessor has 100 KB of shared memory, one block has it all.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || \
    (defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200))
template <class Tag, int kCols>
constexpr int kBoundBlocks = 1;
#else
template <class Tag, int kCols>
constexpr int kBoundBlocks = kBlocks<Tag, kCols>;
#endif
constexpr int kRing = 3;  // stages of weights in flight or in use

static_assert(kThreads / 32 * kStagedBytes<64> <= kPatchBytes, "all warps' rows fit into a patch's memory");
static_assert(kThreads / 32 * kRowTiles * 16 == kPositions, "the warps' rows are the tile's positions");
static_assert(kRowTiles * 16 == 32, "a lane has a row");

// Bytes of shared memory: two patches, of this and the next channel block or frame, the weights, the box's places.
template <int kCols>
int shared_bytes(const Convolution& p) {
  int stages = p.resident ? p.channel_blocks * kTaps : kRing;
  return 2 * kPatchBytes + stages * kStageBytes<kCols> + kBox * int(sizeof(int)) + int(sizeof(Work));
}

template <int kCols>
__device__ __forceinline__ void copy_stage(unsigned char* to, const unsigned char* from) {
  for (int i = threadIdx.x; i < kStageBytes<kCols> / kUnitBytes; i += kThreads)
    copy_async_16(to + i * kUnitBytes, from + i * kUnitBytes, true);
}

template <class Tag>
__device__ __forceinline__ Rows<Tag> find_rows(const Convolution& p, const Tile& tile, const int32_t* sites) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Rows<Tag> rows;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int i = 0; i < Rows<Tag>::kPerTile; ++i) {
      int listed = (warp * kRowTiles + m) * 16 + Rows<Tag>::row(i, lane);
      int site = sites[min(listed, tile.count - 1)];
      int row = site / p.tiles.w - tile.first_row - 1, col = site % p.tiles.w - tile.first_col - 1;
      rows.at[m][i] = (row * tile.cols + col) * kUnitBytes + Rows<Tag>::unit(lane) * kPlaneBytes;
    }
  return rows;
}

// Stores the sums of one output frame and makes them zero; `staged` is shared memory of all warps.
template <class Tag, int kCols>
__device__ __forceinline__ void finish(const Convolution& p, const Work* work, unsigned char* staged, Sums<kCols>& sums,
                                       int frame) {
  int warp = threadIdx.x / 32;
  Destination to = {load_shared(&work->sites),
                    0,
                    load_shared(&work->tile.count),
                    frame,
                    load_shared(&work->segment.sequence),
                    frame - load_shared(&work->segment.first),
                    int(blockIdx.x % p.col_blocks) * kCols};
  auto* of_warp = reinterpret_cast<float*>(staged + warp * kStagedBytes<kCols>);
  uint32_t active = find_active(p.to, to, warp * kRowTiles * 16 + int(threadIdx.x) % 32);
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float rows[kCols / 8][2];
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          rows[n][i] = sums[m][n][2 * half + i];
          sums[m][n][2 * half + i] = 0.0f;
        }
      to.first = (warp * kRowTiles + m) * 16 + half * kStagedRows;
      store_rows<typename Tag::storage, kCols>(p.to, to, active >> (m * 16 + half * kStagedRows), of_warp, rows);
    }
}

// A block's shared memory.
struct Memory {
  unsigned char* patches;  // two
  unsigned char* weights;  // `stages` of them
  int stages;
  int* places;
  Work* work;
};

template <int kCols>
__device__ __forceinline__ Memory memory_of(const Convolution& p) {
  Memory m;
  m.stages = p.resident ? p.channel_blocks * kTaps : kRing;
  m.patches = dynamic_shared();
  m.weights = m.patches + 2 * kPatchBytes;
  m.places = reinterpret_cast<int*>(m.weights + m.stages * kStageBytes<kCols>);
  m.work = reinterpret_cast<Work*>(m.places + kBox);
  return m;
}

// Where a block is: the patch in use, one of two, its channel block and its frame; the next patch, if there is one.
struct Step {
  int frame, channel_block = 0;
  int patch = 0;
  bool more = true;
};

// Starts the copies of the first patch and of the first stages of weights, or of all where they stay.
template <class Tag, int kCols>
__device__ __forceinline__ void start_copies(const Convolution& p, const Memory& m, int first_frame) {
  copy_places<Tag>(m.patches, p.x, first_frame, 0, m.places, load_shared(&m.work->box), 0, 1);
  const unsigned char* weights = load_shared(&m.work->weights);
  for (int i = 0; i < (p.resident ? m.stages : kRing - 1); ++i) {
    copy_stage<kCols>(m.weights + i * kStageBytes<kCols>, weights + i * kStageBytes<kCols>);
    if (!p.resident) copy_async_commit();
  }
  if (p.resident) copy_async_commit();
}

// Waits for what a tap needs, and starts the copies of what later ones need: the stage of weights that comes kRing - 1
// taps later, and the next patch. Resident weights need no wait but for the patch.
template <class Tag, int kCols>
__device__ __forceinline__ void advance_copies(const Convolution& p, const Memory& m, const Step& at, int tap,
                                               int slot) {
  if (p.resident && tap != 0) return;
  if (p.resident)
    copy_async_wait<0>();
  else
    copy_async_wait<kRing - 2>();
  __syncthreads();
  if (!p.resident && (at.more || tap + kRing - 1 < kTaps)) {
    int ahead = (at.channel_block * kTaps + tap + kRing - 1) % (p.channel_blocks * kTaps);
    copy_stage<kCols>(m.weights + (slot + kRing - 1) % kRing * kStageBytes<kCols>,
                      load_shared(&m.work->weights) + ahead * kStageBytes<kCols>);
  }
  // The next patch comes in parts, so that no stage of weights waits for all of it.
  int parts = p.resident ? 1 : kTaps - 1;
  bool same_frame = at.channel_block + 1 < p.channel_blocks;
  if (at.more && tap < parts)
    copy_places<Tag>(m.patches + (1 - at.patch) * kPatchBytes, p.x, same_frame ? at.frame : at.frame + 1,
                     same_frame ? at.channel_block + 1 : 0, m.places, load_shared(&m.work->box), tap, parts);
  copy_async_commit();
}

// One tile of a segment for kCols outputs. Of C_in inputs, at 16 bits and 64 outputs a block:
//   FLOPs: 54 C_in C_out per position and frame.
//   Bytes from the second-level cache, per position and frame: an input patch, about 1.6 C_in elements, once for every
//     64 outputs; 27 C_in C_out elements of weights for 256 positions.
//   Shared memory, per step of 16 channels: a warp's two row tiles read 1 KB of the map and 6 KB of weights for 96
//     products of 16 x 8 x 16. That is 73 bytes a cycle of an A100's 128.
//   Registers: 192 sums, 8 of the map's and 4 of the weights' fragments. With 32 outputs 96 sums, and two blocks to a
//     multiprocessor.
//   Shared memory: 53 KB of patches, 36 KB of weights, 2 KB of lists; with 32 outputs 18 KB of weights, or 54 KB that
//     stay.
template <class Tag, int kCols>
HSTL_KERNEL(kThreads, (kBoundBlocks<Tag, kCols>))
convolve(const __grid_constant__ Convolution p) {
  Memory m = memory_of<kCols>(p);
  if (!find_work<kCols>(p, m.work)) return;
  __syncthreads();
  place_box(m.places, m.work->tile, p.tiles.w);
  Rows<Tag> rows = find_rows<Tag>(p, m.work->tile, m.work->sites);
  __syncthreads();
  Step at;
  at.frame = load_shared(&m.work->first_frame);
  start_copies<Tag, kCols>(p, m, at.frame);
  Sums<kCols> sums[kTimes] = {};
  int slot = 0;
  while (true) {
    at.more = at.frame < load_shared(&m.work->last_frame) || at.channel_block + 1 < p.channel_blocks;
    Times times = times_of(m.work->segment, at.frame);
#pragma unroll 1
    for (int tap = 0; tap < kTaps; ++tap) {
      advance_copies<Tag, kCols>(p, m, at, tap, slot);
      const unsigned char* patch = m.patches + at.patch * kPatchBytes;
      patch += (tap / 3 * load_shared(&m.work->tile.cols) + tap % 3) * kUnitBytes;
      const unsigned char* stage = m.weights + slot * kStageBytes<kCols>;
      if constexpr (std::is_same_v<Tag, Float32>)
        multiply_plain<kCols>(sums, rows, patch, stage, times);
      else
        multiply_stage<kCols>(Tag(), sums, rows, patch, stage, times);
      slot = slot + 1 < m.stages ? slot + 1 : 0;
    }
    unsigned char* used = m.patches + at.patch * kPatchBytes;
    at.patch = 1 - at.patch;
    if (++at.channel_block < p.channel_blocks) continue;
    at.channel_block = 0;
    __syncthreads();  // the patch was read, and its memory is free until the next one is copied
#pragma unroll
    for (int j = 0; j < kTimes; ++j)
      if (is_complete(m.work->segment, at.frame, times.of[j]))
        finish<Tag, kCols>(p, m.work, used, sums[j], at.frame + 1 - times.of[j]);
    if (!at.more) return;
    ++at.frame;
  }
}

// One thread an element. Bytes: the weights, read and written.
template <class Tag>
HSTL_KERNEL(kThreads, 1)
pack(const __grid_constant__ Packing p) {
  int64_t size = p.regions * p.col_blocks * p.channel_blocks * kTaps * kTimes * kUnits * p.cols * kUnitChannels<Tag>;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < size; i += int64_t(gridDim.x) * kThreads)
    pack_element<Tag>(p, i);
}

// A convolution with its weights unpacked, and the memory for what is made of them.
struct Job {
  TilePlan plan;
  Packing packing;
  Convolution convolution;
  const int32_t* regions;
  void* workspace;
  int device;
  void* stream;
};

template <class Tag>
Packing packing_of(const void* weights, int64_t regions, int64_t c_out, int64_t c_in, bool transposed) {
  int64_t inputs = transposed ? c_out : c_in, outputs = transposed ? c_in : c_out;
  int cols = cols_of<Tag>(outputs);
  return {nullptr,
          weights,
          regions,
          int(c_out),
          int(c_in),
          transposed,
          int(blocks_of(inputs, kBlockChannels<Tag>)),
          int(blocks_of(outputs, cols)),
          cols};
}

size_t stage_bytes(const Packing& p) { return p.cols == 32 ? kStageBytes<32> : kStageBytes<64>; }

size_t packed_bytes(const Packing& p) {
  return size_t(p.regions) * p.col_blocks * p.channel_blocks * kTaps * stage_bytes(p);
}

template <class Tag, int kCols>
void launch_convolution(Convolution p, const TilePlan& plan, int device, void* stream) {
  if constexpr (!std::is_same_v<Tag, Float32>)
    if (has_sm90(device)) return launch_sm90(Tag(), kCols, p, plan, device, stream);
  p.resident = true;  // where the blocks of a multiprocessor have the memory; 1 KB of each is CUDA's
  if (kBlocks<Tag, kCols> * (shared_bytes<kCols>(p) + 1024) >
          attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device) ||
      shared_bytes<kCols>(p) > shared_limit(device))
    p.resident = false;
  launch("arme_convolve", convolve<Tag, kCols>, grid_of(plan.segments * plan.tiles * p.col_blocks), kThreads,
         size_t(shared_bytes<kCols>(p)), stream, p);
}

// Lists the tiles, packs the weights, writes the zeros where nothing is listed, and convolves.
template <class Tag>
void enqueue(Job job, const int32_t* starts) {
  using T = typename Tag::storage;
  Convolution& p = job.convolution;
  job.packing.packed = static_cast<unsigned char*>(job.workspace) + job.plan.bytes();
  p.tiles = list_tiles(job.plan, p.to.support, starts, job.regions, job.workspace, job.stream);
  p.weights = static_cast<const unsigned char*>(job.packing.packed);
  p.channel_blocks = job.packing.channel_blocks;
  p.col_blocks = job.packing.col_blocks;
  int64_t elements = int64_t(packed_bytes(job.packing) / sizeof(T));
  launch("arme_pack", pack<Tag>, grid_of(blocks_of(elements, 4 * kThreads)), kThreads, 0, job.stream, job.packing);
  if (p.to.support != nullptr) clear_unlisted(job.plan, p.tiles, p.to.y, p.to.c * int64_t(sizeof(T)), job.stream);
  if constexpr (!std::is_same_v<Tag, Float32>)
    if (job.packing.cols == 64) return launch_convolution<Tag, 64>(p, job.plan, job.device, job.stream);
  launch_convolution<Tag, 32>(p, job.plan, job.device, job.stream);
}

template <class Tag>
size_t workspace_of(const ArmeWorkspace& a) {
  TilePlan plan(a.split, a.frames, a.sequences, a.w, a.stretch);
  return plan.bytes() + packed_bytes(packing_of<Tag>(nullptr, a.split.size, a.c_out, a.c_in, false));
}

template <class Tag>
void forward(const ArmeForward& a) {
  using T = typename Tag::storage;
  TilePlan plan(a.split, a.frames, a.sequences, a.w, a.stretch);
  int64_t places = plan.h * plan.w;
  Epilogue to = {a.y,          a.y_support,      nullptr,
                 nullptr,      nullptr,          places,
                 int(a.c_out), a.negative_slope, a.c_out % 8 == 0 && vector_aligned(a.y)};
  Convolution p = {{}, map_of(a.x, nullptr, places, a.c_in, a.x_type, sizeof(T)), nullptr, 0, 0, false, to};
  enqueue<Tag>({plan, packing_of<Tag>(a.weights, a.split.size, a.c_out, a.c_in, false), p, a.regions, a.workspace,
                a.device, a.stream},
               a.starts);
}

template <class Tag>
void dgrad(const ArmeDgrad& a) {
  using T = typename Tag::storage;
  TilePlan plan(a.split, a.frames, a.sequences, a.w, a.stretch);
  int64_t places = plan.h * plan.w;
  Epilogue to = {a.gx,
                 a.x_support,
                 a.x,
                 a.maximum_grad,
                 a.maximum_index,
                 places,
                 int(a.c_in),
                 a.x == nullptr ? 1.0f : a.x_slope,
                 a.c_in % 8 == 0 && vector_aligned(a.gx, a.x, a.maximum_grad)};
  Convolution p = {{}, map_of(a.grad, nullptr, places, a.c_out, a.type, sizeof(T)), nullptr, 0, 0, false, to};
  enqueue<Tag>({plan, packing_of<Tag>(a.weights, a.split.size, a.c_out, a.c_in, true), p, a.regions, a.workspace,
                a.device, a.stream},
               a.starts);
}

}  // namespace

size_t run(const ArmeWorkspace& a) {
  if (a.wgrad) return arme_wgrad_workspace(a);
  return with_type(a.type, [&](auto tag) { return workspace_of<decltype(tag)>(a); });
}

void run(const ArmeForward& a) {
  OnDevice on(a.device);
  if (a.c_in == 1) return arme_first_forward(a);
  with_type(a.type, [&](auto tag) { forward<decltype(tag)>(a); });
}

void run(const ArmeDgrad& a) {
  OnDevice on(a.device);
  with_type(a.type, [&](auto tag) { dgrad<decltype(tag)>(a); });
}

}  // namespace hstl
