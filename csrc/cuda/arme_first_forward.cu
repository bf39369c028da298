// The forward pass of the first layer: 27 products an output are too few for tensor cores, which take 16 channels.
#include "arme_first.cuh"
#include "arme_first_patch.cuh"
#include "launch.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kChannels = 8;                   // of a thread
constexpr int kMostChannels = 128;             // of a block
constexpr int kMostFrames = 4, kMostRows = 8;  // of a tile

template <class T, class X>
struct ForwardParameters {
  T* y;
  const X* x;
  const T* weights;
  const uint8_t* support;
  const int32_t* ends;
  const int32_t* regions;
  FirstTiles tiles;
  int row_tiles;  // of all regions
  int c_out;
  int channels, channel_blocks;  // of a block, a multiple of 8, and the blocks that share a tile
  float slope;
  bool vectors;  // whether 8 channels of y are aligned to 16 bytes
};

// A quad of columns of a tile: its frame, row and column / 4, which of its positions are inside the support, and which
// exist at all.
struct Quad {
  int frame, row, col, active, exists;
};
__device__ __forceinline__ uint32_t packed(const Quad& q) {
  return uint32_t(q.frame | q.row << 4 | q.col << 8 | q.active << 12 | q.exists << 16);
}
__device__ __forceinline__ Quad unpacked(uint32_t q) {
  return {int(q & 15), int(q >> 4 & 15), int(q >> 8 & 15), int(q >> 12 & 15), int(q >> 16)};
}

template <class T, class X>
__device__ __forceinline__ int64_t position_of(const ForwardParameters<T, X>& p, const FirstTile& tile, const Quad& q) {
  const FirstTiles& t = p.tiles;
  return (int64_t(tile.frame + q.frame) * t.h + tile.row + q.row) * t.w + tile.col + q.col * kQuad;
}

template <class T, class X>
__device__ __forceinline__ Quad quad_at(const ForwardParameters<T, X>& p, const FirstTile& tile, int index) {
  const int quads = p.tiles.cols / kQuad, line = index / quads;
  Quad q = {line / p.tiles.rows, line % p.tiles.rows, index - line * quads, 0, 0};
  const int col = tile.col + q.col * kQuad;
  if (q.frame >= p.tiles.frames || tile.frame + q.frame >= p.tiles.all_frames || tile.row + q.row >= tile.region_end)
    return q;
  q.exists = col + 4 <= p.tiles.w ? 15 : col < p.tiles.w ? (1 << (p.tiles.w - col)) - 1 : 0;
  q.active = q.exists;
  if (p.support == nullptr) return q;
  const uint8_t* support = p.support + position_of(p, tile, q);
  q.active = 0;
#pragma unroll
  for (int i = 0; i < kQuad; ++i)
    if ((q.exists >> i & 1) != 0 && support[i] != 0) q.active |= 1 << i;
  return q;
}

// Lists the tile's quads in shared memory: those with active positions from the front, the others from the back.
struct Lists {
  int front, back;
};
template <class T, class X>
__device__ __forceinline__ Lists list_quads(uint32_t* list, int* counts, const ForwardParameters<T, X>& p,
                                            const FirstTile& tile, int all) {
  const int warp = threadIdx.x / 32;
  const uint32_t lower = (1u << threadIdx.x % 32) - 1;
  Lists found = {0, 0};
  for (int begin = 0; begin < all; begin += kThreads) {
    const Quad q = quad_at(p, tile, begin + int(threadIdx.x));
    const uint32_t active = __ballot_sync(0xffffffffu, q.active != 0);
    const uint32_t blank = __ballot_sync(0xffffffffu, q.active == 0 && q.exists != 0);
    if (threadIdx.x % 32 == 0) store_shared(counts + warp, __popc(active) | __popc(blank) << 16);
    __syncthreads();
    int before = 0, total = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      const int count = load_shared(counts + i);
      before += i < warp ? count : 0;
      total += count;
    }
    const int front = found.front + (before & 0xffff) + __popc(active & lower);
    const int back = found.back + (before >> 16) + __popc(blank & lower);
    if (q.exists != 0) store_shared(list + (q.active != 0 ? front : all - 1 - back), packed(q));
    found.front += total & 0xffff;
    found.back += total >> 16;
    __syncthreads();
  }
  return found;
}

// The sums of a quad's four positions and eight channels. For 96 multiplications eight loads from shared memory: two of
// x, which the warp's channels share, and six of weights, which its quads share. If a load of 16 bytes takes four
// rounds whatever is shared, these are 30 rounds where the multiplications have time for 24.
__device__ __forceinline__ void multiply(float (&sums)[kQuad][kChannels], const float* patch, const float* weights,
                                         const FirstTiles& p, int channels, const Quad& q, int first_time,
                                         int last_time) {
#pragma unroll 1
  for (int dt = first_time; dt <= last_time; ++dt) {
    const float* rows = patch + ((q.frame + dt) * (p.rows + 2) + q.row) * p.stride + q.col * kQuad;
    const float* taps = weights + dt * 9 * channels;
#pragma unroll 1
    for (int dh = 0; dh < 3; ++dh) {
      float x[kQuad + 2];
      load_six(x, rows + dh * p.stride);
#pragma unroll
      for (int dw = 0; dw < 3; ++dw)
#pragma unroll
        for (int half = 0; half < kChannels; half += 4) {
          const auto w = load_shared(reinterpret_cast<const Vector<float, 4>*>(taps + (3 * dh + dw) * channels + half));
#pragma unroll
          for (int i = 0; i < kQuad; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) sums[i][half + j] += x[i + dw] * w.at[j];
        }
    }
  }
}

template <class T, class X>
__device__ __forceinline__ FirstTile forward_tile(const ForwardParameters<T, X>& p, int tile, int& region) {
  const int frame_tile = tile / (p.row_tiles * p.tiles.col_tiles);
  tile -= frame_tile * p.row_tiles * p.tiles.col_tiles;
  const int col_tile = tile % p.tiles.col_tiles;
  int row_tile = tile / p.tiles.col_tiles, first, rows;
  for (region = 0;; ++region) {
    first = __ldg(p.regions + 2 * region);
    rows = __ldg(p.regions + 2 * region + 1);
    const int here = (rows + p.tiles.rows - 1) / p.tiles.rows;
    if (row_tile < here) break;
    row_tile -= here;
  }
  return {frame_tile * p.tiles.frames, first + row_tile * p.tiles.rows, col_tile * p.tiles.cols, first, first + rows};
}

// A block computes a tile of up to 4 x 8 x 64 positions for up to 128 channels, a thread four neighbouring columns and
// eight channels. FLOPs: 54 an output of an active quad; quads without active positions are only stored. Bytes: y
// written; x comes in, 1.9 times, as one byte. With 32 channels in 16 bits, for 64 dense clips on an H200, y takes
// 80 us to write; the multiplications take 160 us, or 80 us if half of the quads are active. Shared memory: patch 16
// KB, weights 108 c_out; registers: 32 sums, 14 operands.
template <class T, class X>
HSTL_KERNEL(kThreads, 3)
first_forward(const __grid_constant__ ForwardParameters<T, X> p) {
  float* weights = reinterpret_cast<float*>(dynamic_shared());
  float* patch = weights + kTaps * p.channels;
  int* counts = reinterpret_cast<int*>(patch + p.tiles.patch_floats());
  uint32_t* list = reinterpret_cast<uint32_t*>(counts + kWarps);
  const int tile_index = blockIdx.x / p.channel_blocks;
  const int first_channel = (blockIdx.x - tile_index * p.channel_blocks) * p.channels;
  int region;
  const FirstTile tile = forward_tile(p, tile_index, region);

  for (int i = threadIdx.x; i < kTaps * p.channels; i += kThreads) {
    const int tap = i / p.channels, channel = first_channel + i - tap * p.channels;
    const int64_t at = (int64_t(region) * p.c_out + channel) * kTaps + tap;
    store_shared(weights + i, channel < p.c_out ? to_float(p.weights[at]) : 0.f);
  }
  stage_patch(patch, p.x, p.tiles, tile);
  const int all = p.tiles.frames * p.tiles.rows * (p.tiles.cols / kQuad);
  const Lists found = list_quads(list, counts, p, tile, all);
  __syncthreads();

  const int groups = p.channels / kChannels, quads = found.front + found.back;
  for (int item = threadIdx.x; item < quads * groups; item += kThreads) {
    const int which = item / groups, channel = (item - which * groups) * kChannels;
    const uint32_t* entry = list + (which < found.front ? which : all - quads + which);
    const Quad q = unpacked(load_shared(entry));
    float sums[kQuad][kChannels] = {};
    if (q.active != 0) {
      const int frame = tile.frame + q.frame;
      const int first_time = frame > __ldg(p.ends + 2 * int64_t(frame)) ? 0 : 1;
      const int last_time = frame < __ldg(p.ends + 2 * int64_t(frame) + 1) ? 2 : 1;
      multiply(sums, patch, weights + channel, p.tiles, p.channels, q, first_time, last_time);
    }
    T* y = p.y + position_of(p, tile, q) * p.c_out + first_channel + channel;
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      if ((q.exists >> i & 1) == 0) continue;
      const bool active = (q.active >> i & 1) != 0;
#pragma unroll
      for (int j = 0; j < kChannels; ++j) {
        const float sum = sums[i][j];
        sums[i][j] = active ? (sum > 0.f ? sum : sum * p.slope) : 0.f;
      }
      store_floats(y + int64_t(i) * p.c_out, sums[i], p.c_out - first_channel - channel, p.vectors);
    }
  }
}

template <class T, class X>
void enqueue(const ArmeForward& a) {
  const int64_t h = total(a.split), most_rows = largest(a.split);
  ForwardParameters<T, X> p{static_cast<T*>(a.y),
                            static_cast<const X*>(a.x),
                            static_cast<const T*>(a.weights),
                            a.y_support,
                            a.ends,
                            a.regions};
  const int rows = int(most_rows < kMostRows ? most_rows : kMostRows);
  for (int64_t r = 0; r < a.split.size; ++r) p.row_tiles += int(blocks_for(a.split.data[r], rows));
  p.c_out = int(a.c_out);
  p.channel_blocks = int(blocks_for(a.c_out, kMostChannels));
  p.channels = int(blocks_for(blocks_for(a.c_out, p.channel_blocks), kChannels) * kChannels);
  p.slope = a.negative_slope;
  p.vectors = a.c_out * int64_t(sizeof(T)) % 16 == 0 && aligned(a.y, 16);
  // Shorter tiles read more frames twice, but are more.
  const int64_t enough = 4 * int64_t(multiprocessors(a.device));
  int64_t blocks = 0;
  for (int frames = kMostFrames; frames >= 1 && blocks < enough; frames /= 2) {
    p.tiles = first_tiles(a.frames, h, a.w, frames, rows);
    blocks = int64_t(p.tiles.frame_tiles) * p.row_tiles * p.tiles.col_tiles * p.channel_blocks;
  }
  const int quads = p.tiles.frames * rows * (p.tiles.cols / kQuad);
  const size_t floats = size_t(kTaps) * p.channels + p.tiles.patch_floats() + kWarps + quads;
  launch("arme_first_forward", first_forward<T, X>, grid_of(blocks), kThreads, 4 * floats, a.stream, p);
}

}  // namespace

void arme_first_forward(const ArmeForward& a) {
  with_input(a.type, a.x_type, [&](auto y, auto x) { enqueue<decltype(y), decltype(x)>(a); });
}

}  // namespace hstl
