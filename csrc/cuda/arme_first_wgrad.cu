// The gradient of the first layer's weights: partial sums of stretches of the maps, then their sum.
#include "arme_first.cuh"
#include "arme_first_patch.cuh"
#include "launch.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 128;
constexpr int kFrames = kThreads / 32;  // of a tile, one for each warp
constexpr int kRows = 4;                // of a tile, each for eight lanes
constexpr int kGroups = 8;              // of four channels
constexpr int kChannels = 4 * kGroups;  // of a block
constexpr int kBlockSums = kTaps * kChannels;

template <class T, class X>
struct WgradParameters {
  float* partial;  // [chunks, m, c_out, 27]
  const T* grad;
  const X* x;
  const uint8_t* support;
  const int32_t* ends;
  const int32_t* regions;
  FirstTiles tiles;
  int region_count, c_out, channel_blocks, chunks;
  bool vectors;  // whether four channels of grad are aligned
};

// Bit i: the warp's lanes read column i of a row of the tile, and it is inside the support.
template <class T, class X>
__device__ __forceinline__ uint64_t active_columns(const WgradParameters<T, X>& p, const FirstTile& tile, int frame,
                                                   int row) {
  uint64_t active = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = 32 * half + threadIdx.x % 32, col = tile.col + i;
    bool inside = frame < p.tiles.all_frames && row < tile.region_end && i < p.tiles.cols && col < p.tiles.w;
    if (inside && p.support != nullptr) inside = p.support[(int64_t(frame) * p.tiles.h + row) * p.tiles.w + col] != 0;
    active |= uint64_t(__ballot_sync(0xffffffffu, inside)) << 32 * half;
  }
  return active;
}

// The first quad with an active column.
__device__ __forceinline__ int next_quad(uint64_t active) { return (__ffsll(int64_t(active)) - 1) / kQuad; }

// The gradients of the positions of a quad that are active, else zeros.
template <class T, class X>
__device__ __forceinline__ void load_quad(Vector<T, 4> (&g)[kQuad], const T* grad, uint64_t active, int quad,
                                          const WgradParameters<T, X>& p, int channels) {
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    g[i] = {};
    if ((active >> (quad * kQuad + i) & 1) == 0) continue;
    const T* at = grad + int64_t(quad * kQuad + i) * p.c_out;
    if (p.vectors && channels >= 4) {
      g[i] = load_vector<4>(at);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (j < channels) g[i].at[j] = at[j];
    }
  }
}

// Adds the products of one quad: 432 multiplications, for them 18 loads of x from shared memory.
__device__ __forceinline__ void add_quad(float (&sums)[kTaps][4], const float (&g)[kQuad][4], const float* patch,
                                         const int (&planes)[3], int stride, int quad) {
#pragma unroll
  for (int dt = 0; dt < 3; ++dt)
#pragma unroll
    for (int dh = 0; dh < 3; ++dh) {
      float x[kQuad + 2];
      load_six(x, patch + planes[dt] + dh * stride + quad * kQuad);
#pragma unroll
      for (int dw = 0; dw < 3; ++dw)
#pragma unroll
        for (int i = 0; i < kQuad; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[9 * dt + 3 * dh + dw][j] += x[i + dw] * g[i][j];
    }
}

// Writes the block's sums: the sum over the four rows of a warp and over the warps, in a fixed order.
__device__ __forceinline__ void write_sums(float* to, float (&sums)[kTaps][4], float* shared, int channels) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float sum = sums[tap][j];
      sum += __shfl_xor_sync(0xffffffffu, sum, kGroups);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2 * kGroups);
      if (lane < kGroups) store_shared(shared + warp * kBlockSums + (lane * 4 + j) * kTaps + tap, sum);
    }
  __syncthreads();
  for (int i = threadIdx.x; i < min(channels, kChannels) * kTaps; i += kThreads) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kFrames; ++w) sum += load_shared(shared + w * kBlockSums + i);
    to[i] = sum;
  }
}

// A block adds up every chunks-th tile of one region, 4 frames x 4 rows x up to 64 columns, for 32 channels: a thread
// one frame and row, all 27 taps of four channels. Each row walks over its own active quads. FLOPs: 54 an output of an
// active quad. Bytes: grad where it is active, x 2.3 times as one byte. Registers: 108 sums, 16 gradients and as many
// on their way, 6 of x: three blocks fit on a multiprocessor. Shared memory: 14 KB.
template <class T, class X>
HSTL_KERNEL(kThreads, 3)
first_wgrad(const __grid_constant__ WgradParameters<T, X> p) {
  float* patch = reinterpret_cast<float*>(dynamic_shared());
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, own_row = lane / kGroups;
  const int unit = blockIdx.x / p.chunks, chunk = blockIdx.x - unit * p.chunks;
  const int region = unit / p.channel_blocks;
  const int first_channel = (unit - region * p.channel_blocks) * kChannels;
  const int channel = first_channel + lane % kGroups * 4, channels = p.c_out - channel;
  const int region_begin = __ldg(p.regions + 2 * region), region_rows = __ldg(p.regions + 2 * region + 1);
  const int row_tiles = (region_rows + kRows - 1) / kRows;
  const int plane = (kRows + 2) * p.tiles.stride;
  for (int i = threadIdx.x; i < plane; i += kThreads) store_shared(patch + p.tiles.patch_floats() + i, 0.f);

  float sums[kTaps][4] = {};
  const int tiles = p.tiles.frame_tiles * row_tiles * p.tiles.col_tiles;
  for (int index = chunk; index < tiles; index += p.chunks) {
    const int line = index / p.tiles.col_tiles, frame_tile = line / row_tiles;
    const FirstTile tile = {frame_tile * kFrames, region_begin + (line - frame_tile * row_tiles) * kRows,
                            (index - line * p.tiles.col_tiles) * p.tiles.cols, region_begin,
                            region_begin + region_rows};
    __syncthreads();
    stage_patch(patch, p.x, p.tiles, tile);
    __syncthreads();
    const int frame = tile.frame + warp;
    uint64_t active = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint64_t columns = active_columns(p, tile, frame, tile.row + r);
      if (r == own_row) active = columns;
    }
    if (active == 0 || channels <= 0) continue;

    const uint32_t ends = 2u * uint32_t(frame);
    const bool before = frame > __ldg(p.ends + ends), after = frame < __ldg(p.ends + ends + 1);
    const int own = warp * plane + own_row * p.tiles.stride, zeros = p.tiles.patch_floats();
    const int planes[3] = {before ? own : zeros, own + plane, after ? own + 2 * plane : zeros};
    const T* grad =
        p.grad + ((int64_t(frame) * p.tiles.h + tile.row + own_row) * p.tiles.w + tile.col) * p.c_out + channel;
    int quad = next_quad(active);
    Vector<T, 4> next[kQuad];
    load_quad(next, grad, active, quad, p, channels);
    while (active != 0) {
      float here[kQuad][4];
#pragma unroll
      for (int i = 0; i < kQuad; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) here[i][j] = to_float(next[i].at[j]);
      const int this_quad = quad;
      active &= ~(uint64_t(15) << this_quad * kQuad);
      if (active != 0) {
        quad = next_quad(active);
        load_quad(next, grad, active, quad, p, channels);
      }
      add_quad(sums, here, patch, planes, p.tiles.stride, this_quad);
    }
  }
  __syncthreads();
  float* to = p.partial + ((int64_t(chunk) * p.region_count + region) * p.c_out + first_channel) * kTaps;
  write_sums(to, sums, patch, p.c_out - first_channel);
}

constexpr int kSlices = 8;
constexpr int kSliceElements = 32;

struct SumParameters {
  float* gw;
  const float* partial;
  int64_t elements;
  int chunks;
};

// Adds the chunks' partial sums, in a fixed order: eight threads an element. Bytes: the partial sums, 1.4 MB for 32
// channels on an H200, from the cache.
HSTL_KERNEL(kSlices* kSliceElements, 4) first_wgrad_sum(const __grid_constant__ SumParameters p) {
  float* shared = reinterpret_cast<float*>(dynamic_shared());
  const int64_t element = int64_t(blockIdx.x) * kSliceElements + threadIdx.x % kSliceElements;
  float sum = 0;
  if (element < p.elements)
    for (int chunk = threadIdx.x / kSliceElements; chunk < p.chunks; chunk += kSlices)
      sum += p.partial[chunk * p.elements + element];
  store_shared(shared + threadIdx.x, sum);
  __syncthreads();
  if (threadIdx.x >= kSliceElements || element >= p.elements) return;
  sum = 0;
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) sum += load_shared(shared + slice * kSliceElements + threadIdx.x);
  p.gw[element] = sum;
}

// How wgrad's work is divided.
struct WgradPlan {
  FirstTiles tiles;
  int channel_blocks, chunks;
  int64_t elements;  // of the gradient
};

// One wave of blocks, which go through the tiles in turn.
template <class Arguments>
WgradPlan plan_of(const Arguments& a) {
  WgradPlan plan{first_tiles(a.frames, total(a.split), a.w, kFrames, kRows), int(blocks_for(a.c_out, kChannels)), 1,
                 a.split.size * a.c_out * kTaps};
  const int64_t most = plan.tiles.frame_tiles * blocks_for(largest(a.split), kRows) * plan.tiles.col_tiles;
  const int64_t wave = 3 * multiprocessors(a.device) / (a.split.size * plan.channel_blocks);
  plan.chunks = int(wave < 1 || most < 1 ? 1 : wave < most ? wave : most);
  return plan;
}

template <class T, class X>
void enqueue(const ArmeWgrad& a) {
  const WgradPlan plan = plan_of(a);
  float* partial = static_cast<float*>(a.workspace);
  WgradParameters<T, X> p{partial,
                          static_cast<const T*>(a.grad),
                          static_cast<const X*>(a.x),
                          a.y_support,
                          a.ends,
                          a.regions,
                          plan.tiles,
                          int(a.split.size),
                          int(a.c_out),
                          plan.channel_blocks,
                          plan.chunks,
                          a.c_out % 4 == 0 && aligned(a.grad, 16)};
  const int patch = plan.tiles.patch_floats() + (kRows + 2) * plan.tiles.stride;
  const int sums = kFrames * kBlockSums;
  launch("arme_first_wgrad", first_wgrad<T, X>, grid_of(a.split.size * plan.channel_blocks * plan.chunks), kThreads,
         sizeof(float) * (patch > sums ? patch : sums), a.stream, p);
  launch("arme_first_wgrad_sum", first_wgrad_sum, grid_of(blocks_for(plan.elements, kSliceElements)),
         kSlices * kSliceElements, sizeof(float) * kSlices * kSliceElements, a.stream,
         SumParameters{a.gw, partial, plan.elements, plan.chunks});
}

}  // namespace

void arme_first_wgrad(const ArmeWgrad& a) {
  with_input(a.type, a.x_type, [&](auto y, auto x) { enqueue<decltype(y), decltype(x)>(a); });
}

size_t arme_first_wgrad_workspace(const ArmeWorkspace& a) {
  const WgradPlan plan = plan_of(a);
  return sizeof(float) * plan.chunks * plan.elements;
}

}  // namespace hstl
