// Partial sums of the weights' gradient by wgmma, for sm_90a: those of arme_wgrad.cu's `accumulate`, from the same
// lists.
//
// A GEMM whose sum runs over positions. Its rows are outputs, its columns input channels at the three taps of a column:
// b is x as it lies in shared memory, and a tap is where the product begins to read. Products read eight places that
// follow one another in a row, so sums run over runs: up to eight listed positions of a row that follow one another. At
// the places of a run behind those the gradient is zero, and x, of whatever place, finite.
#include "arme_sm90.cuh"
#include "arme_wgrad_sm90.cuh"
#include "launch.cuh"
#include "wgmma.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 256;  // of a block, at most
constexpr int kWarpgroupThreads = 128;
constexpr int kSide = 3;  // taps of a row, or of a column

// Of a warpgroup: outputs, and input channels, whose units are kUnits.
constexpr int kRows = 64;
constexpr int kChannels = 32;
constexpr int kCols = kSide * kChannels;
constexpr int kGradUnits = kRows * 2 / kUnitBytes;

// Positions of a chunk of the gradient. A plane has an odd number of units: neighbouring threads copy the units of one
// position.
constexpr int kChunk = 128;
constexpr int kChunkPlaneBytes = (kChunk + 1) * kUnitBytes;
constexpr int kChunkBytes = kGradUnits * kChunkPlaneBytes;

// A patch of a warpgroup's channels is [rows][kUnits][pitch] units of 16 bytes. Behind it are zeros, which the last
// runs read. The patches of two warpgroups are an odd number of units apart: neighbouring threads copy those of one
// place.
constexpr int kTail = 9;
constexpr int kPatchUnits = kUnits * kBox + kTail;
static_assert(kPatchUnits % 2 == 1, "banks");

// One product's sums for each column of taps, as wgmma leaves them. Its columns are [kSide rows of taps, kChannels].
using GroupSums = float[kSide][kCols / 2];

struct Memory {
  unsigned char* patches;  // [2, warpgroups]: of this and the next frame
  unsigned char* chunks;   // [kRing]
  int* places;             // [kBox]: of the box
  int* offsets;            // [kBox]: bytes from a patch's beginning to a place's unit 0
  int* sites;              // [kPositions]: the first of a run
  int* first;              // [kPositions + 1]: a run's number in the list; the list's end behind the last
  int* active;             // [2, kChunk]: sites of a chunk inside the support, or -1
  uint32_t* pairs;         // [kPositions / 2]: of two runs, as in a descriptor, from a patch's beginning
  int* runs;               // how many
};

__host__ __device__ __forceinline__ int shared_bytes(int warpgroups) {
  return 2 * warpgroups * kPatchUnits * kUnitBytes + kRing * kChunkBytes +
         (2 * kBox + kPositions + kPositions + 1 + 2 * kChunk + kPositions / 2 + 1) * int(sizeof(int));
}

#ifdef HSTL_WGMMA

constexpr int kRun = 8;          // positions
constexpr int kStep = 2 * kRun;  // of a product
constexpr int kChunkRuns = kChunk / kRun;

__device__ __forceinline__ Memory memory_of(int warpgroups) {
  Memory m;
  m.patches = dynamic_shared();
  m.chunks = m.patches + 2 * warpgroups * kPatchUnits * kUnitBytes;
  m.places = reinterpret_cast<int*>(m.chunks + kRing * kChunkBytes);
  m.offsets = m.places + kBox;
  m.sites = m.offsets + kBox;
  m.first = m.sites + kPositions;
  m.active = m.first + kPositions + 1;
  m.pairs = reinterpret_cast<uint32_t*>(m.active + 2 * kChunk);
  m.runs = reinterpret_cast<int*>(m.pairs + kPositions / 2);
  return m;
}

// Columns of a patch. With 2 more than a multiple of 4 the copies of two places' units meet no bank twice.
__device__ __forceinline__ int pitch_of(const Tile& tile) {
  int pitch = (tile.cols + 1) / 4 * 4 + 2;
  return tile.rows * pitch <= kBox ? pitch : tile.cols;
}

__device__ __forceinline__ void list_places(const Memory& m, const Tile& tile, int pitch, int w) {
  for (int i = threadIdx.x; i < tile.rows * pitch; i += blockDim.x) {
    int row = i / pitch, col = i % pitch;
    store_shared(m.places + i, col < tile.cols ? place_of(tile, row, col, w) : -1);
    store_shared(m.offsets + i, (row * kUnits * pitch + col) * kUnitBytes);
  }
}

// Zeros behind the patches of a tile.
__device__ __forceinline__ void clear_tails(const Memory& m, int units, int patches) {
  for (int i = threadIdx.x; i < kTail * patches; i += blockDim.x)
    store_shared(reinterpret_cast<uint4*>(m.patches) + i / kTail * kPatchUnits + units + i % kTail,
                 make_uint4(0, 0, 0, 0));
}

// Divides a tile's list into runs. By a warp.
__device__ __forceinline__ void list_runs(const Memory& m, const int32_t* sites, int count, int w) {
  int lane = threadIdx.x % 32, before = -1, start = 0, runs = 0;
  for (int first = 0; first < count; first += 32) {
    int i = first + lane, site = sites[min(i, count - 1)];
    int left = __shfl_up_sync(kAllLanes, site, 1);
    if (lane == 0) left = before;
    bool breaks = i == 0 || site != left + 1 || site % w == 0;
    unsigned broken = __ballot_sync(kAllLanes, i < count && breaks), mine = broken & ((2u << lane) - 1);
    int at = mine == 0 ? start : first + 31 - __clz(mine);
    bool begins = i < count && (i - at) % kRun == 0;
    unsigned begun = __ballot_sync(kAllLanes, begins);
    int run = runs + __popc(begun & ((1u << lane) - 1));
    if (begins) {
      store_shared(m.sites + run, site);
      store_shared(m.first + run, i);
    }
    runs += __popc(begun);
    if (broken != 0) start = first + 31 - __clz(broken);
    before = __shfl_sync(kAllLanes, site, 31);
  }
  if (lane == 0) {
    store_shared(m.first + runs, count);
    store_shared(m.runs, runs);
  }
}

// Where a run's first neighbour lies in a patch, in units.
__device__ __forceinline__ int run_unit(const Memory& m, const Tile& tile, int pitch, int w, int run) {
  int site = load_shared(m.sites + run);
  return (site / w - tile.first_row - 1) * kUnits * pitch + site % w - tile.first_col - 1;
}

// A descriptor's low half: where the first run of a product begins, and how far behind it the second. Behind the last
// run comes anything that is finite.
__device__ __forceinline__ void list_pairs(const Memory& m, const Tile& tile, int pitch, int w, int runs) {
  for (int i = threadIdx.x; 2 * i < runs; i += blockDim.x) {
    int left = run_unit(m, tile, pitch, w, 2 * i);
    int right = 2 * i + 1 < runs ? run_unit(m, tile, pitch, w, 2 * i + 1) : left + 1;
    store_shared(m.pairs + i, uint32_t(left) | uint32_t(right - left) << 16);
  }
}

// Units of places in the warpgroups' patches.
struct Patches {
  unsigned char* to;
  const int* offsets;
  int pitch;
  __device__ __forceinline__ unsigned char* at(int i, int unit) const {
    return to + load_shared(offsets + i) + (unit / kUnits * kPatchUnits + unit % kUnits * pitch) * kUnitBytes;
  }
};

// What a warpgroup multiplies of a chunk.
struct Operands {
  const unsigned char* grad;  // where a lane reads the rows that it gives to ldmatrix
  const uint32_t* pairs;
  uint32_t low, high;  // halves of the descriptor of the patch's beginning
};

// sums += the gradient at two runs, transposed, times x at their neighbours; kProducts times. While one's products run,
// the gradient of the next is loaded. There is no branch on the way, else the compiler would let every product wait for
// the one before.
template <class Tag, int kProducts>
__device__ __forceinline__ void multiply_products(GroupSums& sums, const Operands& of) {
  uint32_t a[2][4];
  load_matrices_transposed(a[0], of.grad);
#pragma unroll
  for (int i = 0; i < kProducts; ++i) {
    uint32_t low = of.low + load_shared(of.pairs + i);
    wgmma_fence();
#pragma unroll
    for (int dx = 0; dx < kSide; ++dx)
      wgmma<Tag, kCols, true>(sums[dx], a[i % 2], uint64_t(of.high) << 32 | (low + dx));
    wgmma_commit();
    if (i + 1 == kProducts) break;
    if (i > 0) wgmma_wait<1>();
    load_matrices_transposed(a[(i + 1) % 2], of.grad + (i + 1) * kStep * kUnitBytes);
  }
  wgmma_wait<0>();
#pragma unroll
  for (int dx = 0; dx < kSide; ++dx) wgmma_hold(sums[dx]);
}

template <class Tag>
__device__ __forceinline__ void multiply_any(GroupSums& sums, const Operands& of, int products) {
  static_assert(kChunk / kStep == 8, "cases");
  switch (products) {
    case 8:
      return multiply_products<Tag, 8>(sums, of);
    case 7:
      return multiply_products<Tag, 7>(sums, of);
    case 6:
      return multiply_products<Tag, 6>(sums, of);
    case 5:
      return multiply_products<Tag, 5>(sums, of);
    case 4:
      return multiply_products<Tag, 4>(sums, of);
    case 3:
      return multiply_products<Tag, 3>(sums, of);
    case 2:
      return multiply_products<Tag, 2>(sums, of);
    case 1:
      return multiply_products<Tag, 1>(sums, of);
  }
}

// One tile of a segment for one time and the block's channels, whose x is that of frame t + shift.
template <class Tag>
struct TileOfBlock {
  const Wgrad& p;
  const Memory& m;
  const Tile& tile;
  Steps steps;
  int shift;
  int first_channel, first_col;
  int runs, pitch;
  int warpgroups;

  __device__ __forceinline__ int products(int chunk) const {
    return (min(kChunkRuns, runs - chunk * kChunkRuns) + 1) / 2;
  }
  __device__ __forceinline__ unsigned char* patches(int frame) const {
    return m.patches + (frame - steps.begin) % 2 * warpgroups * kPatchUnits * kUnitBytes;
  }

  __device__ __forceinline__ void copy_x(int frame, int part, int parts) const {
    copy_units<Tag>(Patches{patches(frame), m.offsets, pitch}, p.x, frame + shift, first_channel, warpgroups * kUnits,
                    m.places, tile.rows * pitch, part, parts);
  }
  // What arrived is read by wgmma.
  __device__ __forceinline__ void publish() const { fence_async_proxy(); }

  // This thread's site of a step, if it is listed and inside the support at that frame, else -1.
  __device__ __forceinline__ int find_active(Step s) const {
    int run = s.chunk * kChunkRuns + int(threadIdx.x) / kRun, at = threadIdx.x % kRun;
    if (threadIdx.x >= kChunk || run >= runs || s.frame >= steps.end) return -1;
    bool listed = load_shared(m.first + run) + at < load_shared(m.first + run + 1);
    return active_site(p.grad, s.frame, listed ? load_shared(m.sites + run) + at : -1);
  }
  __device__ __forceinline__ void store_active(int number, int site) const {
    if (threadIdx.x < kChunk) store_shared(m.active + number % 2 * kChunk + threadIdx.x, site);
  }
  // Copies the gradient at the active sites, and zeros up to a whole number of products.
  __device__ __forceinline__ void copy_grad(int number, Step s) const {
    if (s.frame >= steps.end) return;
    Planes to = {m.chunks + number % kRing * kChunkBytes, kChunkPlaneBytes};
    copy_units<Tag>(to, p.grad, s.frame, first_col, kGradUnits, m.active + number % 2 * kChunk,
                    products(s.chunk) * kStep, 0, 1);
  }

  // Adds the products of a warpgroup of a step.
  __device__ __forceinline__ void multiply(GroupSums& sums, int number, Step s) const {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    uint32_t patch = shared_address(patches(s.frame)) + int(threadIdx.x) / kWarpgroupThreads * kPatchUnits * kUnitBytes;
    uint64_t x = matrix_descriptor(patch, 0, pitch * kUnitBytes);
    // Matrices of ldmatrix, eight lanes each: units 0 and 1 of the warp's outputs at a run, then at the next.
    Operands of = {m.chunks + number % kRing * kChunkBytes + (2 * warp + lane / 8 % 2) * kChunkPlaneBytes +
                       (lane / 16 * kRun + lane % 8) * kUnitBytes,
                   m.pairs + s.chunk * (kChunkRuns / 2), uint32_t(x), uint32_t(x >> 32)};
    multiply_any<Tag>(sums, of, __shfl_sync(kAllLanes, products(s.chunk), 0));
  }
};

// Stores a warpgroup's sums as partial sums. Of two sums, lanes that hold outputs next to one another exchange one
// each, so that a warp stores 128 contiguous bytes.
__device__ __forceinline__ void store_sums(const Wgrad& p, const GroupSums& sums, const WgradWork& work,
                                           int first_group, int col_group) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  bool odd = lane / 4 % 2 != 0;
  int64_t groups = (int64_t(work.slot) * kTimes + work.time) * p.channel_groups;
  int at = (lane % 4 * 2 + odd) * 4 + lane / 8;
#pragma unroll
  for (int unit = 0; unit < kUnits; ++unit) {
    int group = first_group + unit / 2;
    if (group >= p.channel_groups) continue;
    float* to = p.sums + ((groups + group) * p.col_groups + col_group) * kWarpSums + at;
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* pair = sums[tap % kSide] + 4 * (tap / kSide * kUnits + unit) + 2 * half;
        float kept = odd ? pair[1] : pair[0], taken = __shfl_xor_sync(kAllLanes, odd ? pair[0] : pair[1], 4);
        int number = (tap * (kGroupCols / 8) + warp % 2 * 2 + half) * 4 + unit % 2 * 2;
        to[number * 32] = odd ? taken : kept;
        to[(number + 1) * 32] = odd ? kept : taken;
      }
  }
}

#endif  // HSTL_WGMMA

// A split of a region, for one time, 64 outputs and 32 channels per warpgroup, of which a multiprocessor has two: two
// blocks, or with more channels one, whose warpgroups share the gradient.
//   FLOPs: 54 C_in C_out per place of a run and frame. A row's stretch of n listed positions has n rounded up to eight
//     places, and a tile's are rounded up to 16: 1.15 per position where stretches are of 30. Single positions, eight
//     places each, would be slower than by mma.sync.
//   Tensor cores: a product of 16 places takes a warpgroup 3 times 48 cycles, 21 per position with 64 channels. By
//     mma.sync, at 63 % of the rate and with 3 % of rounding, it is 29. A chunk, at most 2304 cycles for both, ends
//     with some 150 until products run again, hidden where the other warpgroup is another block's.
//   Bytes from the second-level cache: those of arme_wgrad.cu's blocks, per position and frame 333 with 64 channels, 16
//     a cycle, or 230 with 32, 22 a cycle: of an H200's 24 or so.
//   Shared memory: x is read at 64 bytes a cycle, the gradient, once for nine taps, at 14; copies write 16 to 22. That
//     is 94 to 100 of 128 at the full rate. Neither copies nor ldmatrix conflict if the pitch is padded.
//   Registers: 144 sums, 8 of fragments, 232 in all.
//   Size of shared memory: 107 KB with one warpgroup, 160 KB with two.
template <class Tag>
HSTL_KERNEL(kThreads, 1)
accumulate_sm90(const __grid_constant__ Wgrad p) {
#ifdef HSTL_WGMMA
  WgradWork work = work_of_block(p);
  Share share = share_of_slot(p, work.slot);
  if (share.split >= share.splits) return;

  int warpgroups = int(blockDim.x) / kWarpgroupThreads;
  int warpgroup = __shfl_sync(kAllLanes, int(threadIdx.x) / kWarpgroupThreads, 0);
  int first_group = work.channel_block * p.block_groups + warpgroup * (kChannels / kGroup);
  int col_group = work.col_block * p.block_cols + int(threadIdx.x) % kWarpgroupThreads / 64;
  bool exists = first_group < p.channel_groups;

  Memory m = memory_of(warpgroups);
  GroupSums sums = {};
  for (int item = share.split; item < share.tiles * p.segments; item += share.splits) {
    int segment = item % p.segments;
    Segment s = find_segment(p.tiles, segment);
    Tile tile = p.tiles.tiles[int64_t(segment) * p.tiles.tiles_per_segment + share.first_tile + item / p.segments];
    Steps steps = {max(s.begin, s.first + 1 - work.time), min(s.end, s.last + 2 - work.time), 0};
    if (tile.count == 0 || steps.begin >= steps.end) continue;
    int pitch = pitch_of(tile);
    __syncthreads();  // what the tile before needs may still be read
    list_places(m, tile, pitch, p.w);
    clear_tails(m, tile.rows * kUnits * pitch, 2 * warpgroups);
    if (threadIdx.x < 32) list_runs(m, p.tiles.sites + int64_t(segment) * p.h * p.w + tile.begin, tile.count, p.w);
    __syncthreads();
    int runs = load_shared(m.runs);
    list_pairs(m, tile, pitch, p.w, runs);
    steps.chunks = (runs + kChunkRuns - 1) / kChunkRuns;
    TileOfBlock<Tag> t = {p,
                          m,
                          tile,
                          steps,
                          work.time - 1,
                          work.channel_block * p.block_groups * kGroup,
                          work.col_block * p.block_cols * kGroupCols,
                          runs,
                          pitch,
                          warpgroups};
    multiply_steps(t, sums, exists, warpgroup != 0);
  }
  if (exists && col_group < p.col_groups) store_sums(p, sums, work, first_group, col_group);
#endif
}

void launch_any(void (*kernel)(Wgrad), const Wgrad& p, dim3 blocks, int threads, size_t shared, void* stream) {
  launch("arme_wgrad_sm90", kernel, blocks, threads, shared, stream, p);
}

}  // namespace

// With 32 outputs half of the rows, with 16 channels half of the columns would be idle.
bool shape_block_sm90(Wgrad& p, int& warps, int& shared, int device) {
  int warpgroups = p.channel_groups > kChannels / kGroup ? 2 : 1;
  if (p.col_groups < 2 || p.channel_groups < 2 || !has_sm90(device) || shared_bytes(warpgroups) > shared_limit(device))
    return false;
  p.block_groups = warpgroups * (kChannels / kGroup);
  p.block_cols = kRows / kGroupCols;
  p.parts = 1;
  warps = warpgroups * (kWarpgroupThreads / 32);
  shared = shared_bytes(warpgroups);
  return true;
}

void launch_accumulate_sm90(Half, const Wgrad& p, dim3 blocks, int threads, size_t shared, void* stream) {
  launch_any(accumulate_sm90<Half>, p, blocks, threads, shared, stream);
}
void launch_accumulate_sm90(Bfloat16, const Wgrad& p, dim3 blocks, int threads, size_t shared, void* stream) {
  launch_any(accumulate_sm90<Bfloat16>, p, blocks, threads, shared, stream);
}

}  // namespace hstl
