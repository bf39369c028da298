// The gradient of ARME's weights, by mma.sync or in plain float32: partial sums of many blocks, and their sum.
#include "arme_first.cuh"
#include "arme_wgrad.cuh"
#include "arme_wgrad_mma.cuh"
#include "arme_wgrad_sm90.cuh"
#include "launch.cuh"
#include "types.cuh"
#include "vector.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 256;  // of a block, at most

// ---- partial sums

struct Memory {
  unsigned char* patches;  // two: of this and the next frame
  unsigned char* chunks;   // kRing
  int* places;             // [kBox]: of the box
  int* from;               // [kPositions]: where a position's first neighbour lies in a plane
  int* sites;              // [kPositions], or -1
  int* active;             // [2, kChunk]: sites of a chunk inside the support, or -1
  int patch_bytes, chunk_bytes;
};

template <class Tag>
__host__ __device__ __forceinline__ int patch_bytes(int block_groups) {
  return block_groups * kGroupUnits<Tag> * kPlaneBytes;
}
template <class Tag>
__host__ __device__ __forceinline__ int chunk_bytes(int block_cols) {
  return block_cols * kColUnits<Tag> * kChunkPlaneBytes<Tag>;
}
template <class Tag>
int shared_bytes(int block_groups, int block_cols) {
  return 2 * patch_bytes<Tag>(block_groups) + kRing * chunk_bytes<Tag>(block_cols) +
         (kBox + 2 * kPositions + 2 * kChunk<Tag>)*int(sizeof(int));
}

template <class Tag>
__device__ __forceinline__ Memory memory_of(const Wgrad& p) {
  Memory m;
  m.patch_bytes = patch_bytes<Tag>(p.block_groups);
  m.chunk_bytes = chunk_bytes<Tag>(p.block_cols);
  m.patches = dynamic_shared();
  m.chunks = m.patches + 2 * m.patch_bytes;
  m.places = reinterpret_cast<int*>(m.chunks + kRing * m.chunk_bytes);
  m.from = m.places + kBox;
  m.sites = m.from + kPositions;
  m.active = m.sites + kPositions;
  return m;
}

__device__ __forceinline__ void list_sites(const Wgrad& p, const Memory& m, const Tile& tile, int segment) {
  const int32_t* sites = p.tiles.sites + int64_t(segment) * p.h * p.w + tile.begin;
  for (int i = threadIdx.x; i < kPositions; i += blockDim.x) {
    int site = sites[min(i, tile.count - 1)];
    int row = site / p.w - tile.first_row - 1, col = site % p.w - tile.first_col - 1;
    store_shared(m.from + i, (row * tile.cols + col) * kUnitBytes);
    store_shared(m.sites + i, i < tile.count ? site : -1);
  }
}

// A warp's place in its block.
struct Place {
  int group, col, part;
};

// One tile of a segment for one time and the block's channels: frames begin <= t < end, whose x is that of frame
// t + shift.
template <class Tag>
struct TileOfBlock {
  const Wgrad& p;
  const Memory& m;
  const Tile& tile;
  Steps steps;
  int shift;
  int first_channel, first_col;
  Place warp;

  __device__ __forceinline__ int positions(int chunk) const {
    return min(kChunk<Tag>, tile.count - chunk * kChunk<Tag>);
  }

  __device__ __forceinline__ void copy_x(int frame, int part, int parts) const {
    Planes to = {m.patches + (frame - steps.begin) % 2 * m.patch_bytes, kPlaneBytes};
    copy_units<Tag>(to, p.x, frame + shift, first_channel, p.block_groups * kGroupUnits<Tag>, m.places,
                    tile.rows * tile.cols, part, parts);
  }
  __device__ __forceinline__ void publish() const {}

  // This thread's site of a step, if it is inside the support at that frame, else -1.
  __device__ __forceinline__ int find_active(Step s) const {
    if (threadIdx.x >= kChunk<Tag> || s.frame >= steps.end) return -1;
    return active_site(p.grad, s.frame, load_shared(m.sites + s.chunk * kChunk<Tag> + threadIdx.x));
  }
  __device__ __forceinline__ void store_active(int number, int site) const {
    if (threadIdx.x < kChunk<Tag>) store_shared(m.active + number % 2 * kChunk<Tag> + threadIdx.x, site);
  }
  // Copies the gradient at the active sites, and zeros up to a whole number of products.
  __device__ __forceinline__ void copy_grad(int number, Step s) const {
    if (s.frame >= steps.end) return;
    int count = (positions(s.chunk) + kStep<Tag> - 1) / kStep<Tag> * kStep<Tag>;
    Planes to = {m.chunks + number % kRing * m.chunk_bytes, kChunkPlaneBytes<Tag>};
    copy_units<Tag>(to, p.grad, s.frame, first_col, p.block_cols * kColUnits<Tag>, m.active + number % 2 * kChunk<Tag>,
                    count, 0, 1);
  }

  // Adds the products of one warp's part of a step.
  __device__ __forceinline__ void multiply(TapSums& sums, int number, Step s) const {
    const unsigned char* x =
        m.patches + (s.frame - steps.begin) % 2 * m.patch_bytes + warp.group * kGroupUnits<Tag> * kPlaneBytes;
    const unsigned char* grad =
        m.chunks + number % kRing * m.chunk_bytes + warp.col * kColUnits<Tag> * kChunkPlaneBytes<Tag>;
    int count = positions(s.chunk);
#pragma unroll 1
    for (int i = warp.part * kStep<Tag>; i < count; i += p.parts * kStep<Tag>)
      multiply_positions(Tag(), sums, x, tile.cols * kUnitBytes, m.from + s.chunk * kChunk<Tag> + i,
                         grad + i * kUnitBytes);
  }
};

// A split of a region, for one time, block_groups times 16 channels and block_cols times 32 outputs. A warp has nine
// taps of 16 channels: with a frame's taps only, warps are powers of two, and fill the quarters of a multiprocessor;
// all 27 would be warps in threes, or 168 registers for 12 warps. At 16 bits, with 64 channels and 64 outputs in a
// block:
//   FLOPs: 54 C_in C_out per site and frame; sites are rounded up to 16 for each tile.
//   Bytes from the second-level cache: 333 per site and frame (x about 1.6 times, with the neighbours of its box) for
//     36,864 products: 9 a cycle of an A100's multiprocessor, 12 of an H200's, whose mma.sync is a quarter faster. With
//     32 channels 230 for 18,432: 13 and 16; with 32 outputs too, 166 for 9,216: 18 and 23, near an H200's limit.
//     Blocks of the same sites for other times and channels are neighbours in the grid, so that memory sees each map
//     once.
//   Shared memory: per 16 positions a warp reads 4.5 KB of x and 1 KB of the gradient for 36 products of 16 x 8 x 16,
//     78 bytes a cycle of an A100's 128, 98 of an H200's.
//   Registers: 144 sums, 16 of fragments, about 250 in all: eight warps on a multiprocessor.
//   Size of shared memory: 82 KB with 32 channels, or 16 of 32 bits, and 64 outputs, so that two blocks of four warps
//     fit from the A100 on; 135 KB with twice the channels, one block of eight warps.
//   Partial sums: 18 KB per warp and split, written here and read by `total`: a twentieth of the time that the smallest
//     split takes, 30 frames of 256 sites.
template <class Tag>
HSTL_KERNEL(kThreads, 1)
accumulate(const __grid_constant__ Wgrad p) {
  WgradWork work = work_of_block(p);
  Share share = share_of_slot(p, work.slot);
  if (share.split >= share.splits) return;

  int w = threadIdx.x / 32;
  Place warp = {w / p.block_cols % p.block_groups, w % p.block_cols, w / p.block_cols / p.block_groups};
  int group = work.channel_block * p.block_groups + warp.group, col = work.col_block * p.block_cols + warp.col;
  bool exists = group < p.channel_groups && col < p.col_groups;

  Memory m = memory_of<Tag>(p);
  TapSums sums = {};
  for (int item = share.split; item < share.tiles * p.segments; item += share.splits) {
    int segment = item % p.segments;
    Segment s = find_segment(p.tiles, segment);
    Tile tile = p.tiles.tiles[int64_t(segment) * p.tiles.tiles_per_segment + share.first_tile + item / p.segments];
    Steps steps = {max(s.begin, s.first + 1 - work.time), min(s.end, s.last + 2 - work.time),
                   (tile.count + kChunk<Tag> - 1) / kChunk<Tag>};
    if (tile.count == 0 || steps.begin >= steps.end) continue;
    __syncthreads();  // what the tile before needs may still be read
    place_box(m.places, tile, p.w);
    list_sites(p, m, tile, segment);
    __syncthreads();
    TileOfBlock<Tag> t = {p,
                          m,
                          tile,
                          steps,
                          work.time - 1,
                          work.channel_block * p.block_groups * kGroup,
                          work.col_block * p.block_cols * kGroupCols,
                          warp};
    multiply_steps(t, sums, exists, w / 4 % 2 != 0);
  }
  if (!exists) return;
  int64_t number = int64_t(work.slot * p.parts + warp.part) * kTimes + work.time;
  float* to = p.sums + ((number * p.channel_groups + group) * p.col_groups + col) * kWarpSums + threadIdx.x % 32;
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap)
#pragma unroll
    for (int n = 0; n < kGroupCols / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) to[((tap * (kGroupCols / 8) + n) * 4 + i) * 32] = sums[tap][n][i];
}

// ---- their sum

struct Total {
  Wgrad of;
  float* gw;  // [m, c_out, c_in, kAllTaps]
};

// Of one region and one register of the lanes that held the sums: eight channels of four outputs, all taps, one warp
// each. Bytes: the partial sums and gw, once.
HSTL_KERNEL(kAllTaps * 32, 1) total(const __grid_constant__ Total p) {
  constexpr int kRegisters = kGroupCols / 8 * 4, kChannels = 8, kCols = 4;
  float* found = reinterpret_cast<float*>(dynamic_shared());  // [kCols, kChannels, kAllTaps]
  int rest = blockIdx.x;
  int number = rest % kRegisters;
  rest /= kRegisters;
  int col_group = rest % p.of.col_groups;
  rest /= p.of.col_groups;
  int group = rest % p.of.channel_groups, region = rest / p.of.channel_groups;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, time = warp / kTaps, tap = warp % kTaps;

  Share share = p.of.segments > 0 ? share_of_region(p.of, region) : Share{0, 0, 0, 0};
  int64_t groups = int64_t(p.of.channel_groups) * p.of.col_groups, stride = kTimes * groups * kWarpSums;
  const float* from = p.of.sums + int64_t(first_slot(p.of, share.first_tile, region)) * p.of.parts * stride +
                      (time * groups + group * p.of.col_groups + col_group) * kWarpSums +
                      (tap * kRegisters + number) * 32 + lane;
  float sum = 0.0f;
#pragma unroll 8
  for (int i = 0; i < share.splits * p.of.parts; ++i) sum += from[i * stride];
  store_shared(found + (lane % kCols * kChannels + lane / kCols) * kAllTaps + warp, sum);
  __syncthreads();

  int col = int(threadIdx.x) / (kChannels * kAllTaps), element = int(threadIdx.x) % (kChannels * kAllTaps);
  int c_out = col_group * kGroupCols + number / 4 * 8 + 2 * col + number % 2;
  int c_in = group * kGroup + number % 4 / 2 * kChannels + element / kAllTaps;
  if (c_out < p.of.grad.c && c_in < p.of.x.c)
    p.gw[((int64_t(region) * p.of.grad.c + c_out) * p.of.x.c + c_in) * kAllTaps + element % kAllTaps] =
        load_shared(found + threadIdx.x);
}

static_assert(kAllTaps * 32 == 4 * 8 * kAllTaps, "a thread sums one element and stores one");

// ---- host

// Everything of Wgrad that follows from sizes, and the grid.
struct Plan {
  TilePlan tiles;
  Wgrad p;
  bool sm90;
  int warps, shared;
  int64_t slots, sums_bytes;
};

// What a block is made of.
template <class Tag>
void shape_block(Plan& plan, int device) {
  Wgrad& p = plan.p;
  p.block_cols = p.col_groups > 1 ? 2 : 1;
  p.block_groups = p.channel_groups > 2 ? 4 : p.channel_groups;
  while (p.block_groups > 1 && shared_bytes<Tag>(p.block_groups, p.block_cols) > shared_limit(device))
    p.block_groups /= 2;
  plan.shared = shared_bytes<Tag>(p.block_groups, p.block_cols);
  // A multiprocessor has registers for eight warps. 1 KB of every block's shared memory is CUDA's.
  bool two = 2 * (plan.shared + 1024) <= attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
  int warps = p.block_groups * p.block_cols, most = kThreads / 32 / (two ? 2 : 1);
  p.parts = most > warps ? most / warps : 1;
  plan.warps = warps * p.parts;
}

template <class Tag>
Plan plan_of(const IntList& split, int64_t frames, int64_t sequences, int64_t w, int64_t c_in, int64_t c_out,
             int stretch, int device) {
  Plan plan = {TilePlan(split, frames, sequences, w, stretch), {}, false, 0, 0, 0, 0};
  Wgrad& p = plan.p;
  p.segments = int(plan.tiles.segments);
  p.h = int(plan.tiles.h);
  p.w = int(w);
  p.channel_groups = int(blocks_of(c_in, kGroup));
  p.col_groups = int(blocks_of(c_out, kGroupCols));
  shape_block<Tag>(plan, device);
  if (sizeof(storage_of<Tag>) == 2) plan.sm90 = shape_block_sm90(p, plan.warps, plan.shared, device);
  p.channel_blocks = int(blocks_of(p.channel_groups, p.block_groups));
  p.col_blocks = int(blocks_of(p.col_groups, p.block_cols));
  // Three times as many blocks as run at once, so that the last ones leave few multiprocessors idle.
  int64_t items = plan.tiles.tiles * p.segments, blocks = kTimes * p.channel_blocks * p.col_blocks;
  int64_t enough = 3 * multiprocessors(device) * (kThreads / 32 / plan.warps);
  p.per_split = items * blocks > enough ? int(blocks_of(items * blocks, enough)) : 1;
  plan.slots = items / p.per_split + split.size;
  plan.sums_bytes =
      plan.slots * p.parts * kTimes * p.channel_groups * p.col_groups * kWarpSums * int64_t(sizeof(float));
  return plan;
}

template <class Tag>
void accumulate_blocks(Tag tag, const Plan& plan, dim3 blocks, void* stream) {
  if constexpr (sizeof(storage_of<Tag>) == 2)
    if (plan.sm90) return launch_accumulate_sm90(tag, plan.p, blocks, plan.warps * 32, size_t(plan.shared), stream);
  launch("arme_wgrad", accumulate<Tag>, blocks, plan.warps * 32, size_t(plan.shared), stream, plan.p);
}

template <class Tag>
void wgrad(const ArmeWgrad& a) {
  Plan plan = plan_of<Tag>(a.split, a.frames, a.sequences, a.w, a.c_in, a.c_out, a.stretch, a.device);
  Wgrad& p = plan.p;
  int64_t places = plan.tiles.h * plan.tiles.w;
  int itemsize = int(sizeof(storage_of<Tag>));
  p.tiles = list_tiles(plan.tiles, a.y_support, a.starts, a.regions, a.workspace, a.stream);
  p.x = map_of(a.x, nullptr, places, a.c_in, a.x_type, itemsize);
  p.grad = map_of(a.grad, a.y_support, places, a.c_out, a.type, itemsize);
  p.sums = reinterpret_cast<float*>(static_cast<unsigned char*>(a.workspace) + plan.tiles.bytes());
  int64_t blocks = p.segments == 0 ? 0 : plan.slots * kTimes * p.channel_blocks * p.col_blocks;
  accumulate_blocks(Tag(), plan, grid_of(blocks), a.stream);
  int64_t totals = a.split.size * p.channel_groups * p.col_groups * (kGroupCols / 8 * 4);
  launch("arme_wgrad_total", total, grid_of(totals), kAllTaps * 32, kAllTaps * 32 * sizeof(float), a.stream,
         Total{p, a.gw});
}

}  // namespace

size_t arme_wgrad_workspace(const ArmeWorkspace& a) {
  if (a.c_in == 1) return arme_first_wgrad_workspace(a);
  return with_type(a.type, [&](auto tag) {
    Plan plan = plan_of<decltype(tag)>(a.split, a.frames, a.sequences, a.w, a.c_in, a.c_out, a.stretch, a.device);
    return plan.tiles.bytes() + size_t(plan.sums_bytes);
  });
}

void run(const ArmeWgrad& a) {
  OnDevice on(a.device);
  if (a.c_in == 1) return arme_first_wgrad(a);
  with_type(a.type, [&](auto tag) { wgrad<decltype(tag)>(a); });
}

}  // namespace hstl
