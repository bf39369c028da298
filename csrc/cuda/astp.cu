// ASTP and strip pooling after the frame maximum: the projection and the generalised mean of every region at once.
#include "launch.cuh"
#include "operators.h"
#include "types.cuh"
#include "vector.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 256;

// ---- the projection

constexpr float kSmallest = 1e-6f;
// A thread computes 4 x 4: 4 positions, threads / groups apart, and a group of 4 output channels.
constexpr int kPositions = 4;
constexpr int kChannels = 4;
constexpr int kMostGroupBits = 5;
constexpr int kMatrixFloats = 8192;  // of a chunk of the projection's matrix in shared memory

template <class T>
struct Projection {
  const T* maximum;
  const float* proj;  // or null
  int c_in, c_out;
  int group_bits;     // a block has 2^group_bits groups of output channels
  int chunk;          // input channels of a chunk of the matrix, a multiple of 8
  bool x_vectors;     // maximum is aligned to what a thread reads at once
  bool y_vectors;     // so are the maps of c_out channels
  int column_blocks;  // blocks that share positions
};

// The thread's group of output channels.
template <class T>
__device__ __forceinline__ int group_of(const Projection<T>& p) {
  return threadIdx.x & ((1 << p.group_bits) - 1);
}

// Floats from one row of the matrix in shared memory to the next: the block's output channels, and four more, so that
// eight rows at four channels lie in different banks.
__host__ __device__ __forceinline__ int matrix_stride(int group_bits) { return (kChannels << group_bits) + 4; }

// Rows k0.. of the matrix for the block's output channels, [chunk][stride], with zeros around. A warp takes eight rows
// of four channels: the eight are neighbours in memory.
template <class T>
__device__ __forceinline__ void stage_matrix(float* matrix, const Projection<T>& p, int column, int k0) {
  const int bits = p.group_bits + 2, rows = min(p.chunk, (p.c_in - k0 + 7) / 8 * 8);
  for (int i = threadIdx.x; i < rows << bits; i += kThreads) {
    const int row = (i >> (bits + 3)) * 8 + (i & 7), col = (i >> 3) & ((1 << bits) - 1);
    const int k = k0 + row, n = column + col;
    store_shared(matrix + row * matrix_stride(p.group_bits) + col,
                 k < p.c_in && n < p.c_out ? __ldg(p.proj + int64_t(n) * p.c_in + k) : 0.f);
  }
}

// u: the projections of the maxima at four positions behind `first`, or the maxima themselves. The matrix stays in
// shared memory from call to call if one chunk holds it; all threads of the block call together. FLOPs: 2 c_in per
// element. For 16 multiplications: one 16-byte load of the matrix, of which a warp reads 16 x groups bytes, and one of
// four maxima, which the warp's groups share.
template <class T>
__device__ __forceinline__ void project(float (&u)[kPositions][kChannels], const T* first,
                                        const int (&positions)[kPositions], const Projection<T>& p, float* matrix,
                                        int column, bool& staged) {
  const int group = group_of(p);
  if (p.proj == nullptr) {
    const int own = column + group * kChannels;
#pragma unroll
    for (int i = 0; i < kPositions; ++i)
      load_floats(u[i], first + int64_t(positions[i]) * p.c_in + own, p.c_in - own, p.x_vectors);
    return;
  }
#pragma unroll
  for (int i = 0; i < kPositions; ++i)
#pragma unroll
    for (int j = 0; j < kChannels; ++j) u[i][j] = 0;
  constexpr int kStep = 4;  // input channels read at once
  for (int k0 = 0; k0 < p.c_in; k0 += p.chunk) {
    if (!staged || p.chunk < p.c_in) {
      __syncthreads();
      stage_matrix(matrix, p, column, k0);
      __syncthreads();
      staged = true;
    }
    const int end = min(p.chunk, p.c_in - k0);
    for (int k = 0; k < end; k += kStep) {
      float x[kPositions][kStep];
#pragma unroll
      for (int i = 0; i < kPositions; ++i)
        load_floats(x[i], first + int64_t(positions[i]) * p.c_in + k0 + k, p.c_in - k0 - k, p.x_vectors);
#pragma unroll
      for (int s = 0; s < kStep; ++s) {
        const auto weights = load_shared(reinterpret_cast<const Vector<float, kChannels>*>(
            matrix + (k + s) * matrix_stride(p.group_bits) + group * kChannels));
#pragma unroll
        for (int i = 0; i < kPositions; ++i)
#pragma unroll
          for (int j = 0; j < kChannels; ++j) u[i][j] += x[i][s] * weights.at[j];
      }
    }
  }
}

// ---- the generalised mean

// A part of a region's mean: the largest exponent p log u, the sum of all powers relative to it, and that of the
// powers times their logarithms.
struct Mean {
  float top, total, levels;
};

// The factor by which sums relative to `top` become relative to `higher`; both are -inf where nothing was added.
__device__ __forceinline__ float rescaled(float top, float higher) { return top == higher ? 1.f : expf(top - higher); }

__device__ __forceinline__ Mean joined(const Mean& a, const Mean& b) {
  const float higher = b.top > a.top ? b.top : a.top;
  const float of_a = rescaled(a.top, higher), of_b = rescaled(b.top, higher);
  return {higher, a.total * of_a + b.total * of_b, a.levels * of_a + b.levels * of_b};
}

// Adds the first `count` of four values.
__device__ __forceinline__ void add(Mean& mean, const float (&u)[kPositions], int count, float power) {
  float level[kPositions], higher = mean.top;
#pragma unroll
  for (int i = 0; i < kPositions; ++i) {
    level[i] = logf(u[i] < kSmallest ? kSmallest : u[i]);  // NaN stays
    if (i < count && power * level[i] > higher) higher = power * level[i];
  }
  const float factor = rescaled(mean.top, higher);
  mean.top = higher;
  mean.total *= factor;
  mean.levels *= factor;
#pragma unroll
  for (int i = 0; i < kPositions; ++i) {
    const float share = i < count ? expf(power * level[i] - higher) : 0.f;
    mean.total += share;
    mean.levels += i < count ? share * level[i] : 0.f;
  }
}

template <class T>
struct PoolParameters {
  Projection<T> u;
  float* pooled;
  float* by_power;
  const float* p;
  const int32_t* regions;
  int region_count, h, w;
};

// A block pools one region of one sequence into 4 x groups output channels, with all its threads side by side in the
// positions. FLOPs per output channel and position: 2 c_in, and about 50 for one logarithm and 5 / 4 exponentials. The
// maxima are read once for every block of channels, from caches but for the first. The registers hold 16 sums, 12
// partial means and 16 maxima; shared memory about 34 KB.
template <class T>
HSTL_KERNEL(kThreads, 2)
pool(const __grid_constant__ PoolParameters<T> p) {
  float* shared = reinterpret_cast<float*>(dynamic_shared());
  const int unit = blockIdx.x / p.u.column_blocks, groups = 1 << p.u.group_bits;
  const int column = (blockIdx.x - unit * p.u.column_blocks) * groups * kChannels;
  const int sequence = unit / p.region_count, region = unit - sequence * p.region_count;
  const int group = group_of(p.u), apart = kThreads >> p.u.group_bits;
  const int positions = __ldg(p.regions + 2 * region + 1) * p.w;
  const float power = __ldg(p.p + region);
  const T* first = p.u.maximum + (int64_t(sequence) * p.h + __ldg(p.regions + 2 * region)) * p.w * p.u.c_in;

  Mean means[kChannels];
#pragma unroll
  for (int j = 0; j < kChannels; ++j) means[j] = {-INFINITY, 0, 0};
  bool staged = false;
  for (int begin = 0; begin < positions; begin += kPositions * apart) {
    const int own = begin + int(threadIdx.x >> p.u.group_bits);
    int at[kPositions], count = 0;
#pragma unroll
    for (int i = 0; i < kPositions; ++i) {
      count += own + i * apart < positions;
      at[i] = min(own + i * apart, positions - 1);
    }
    float u[kPositions][kChannels];
    project(u, first, at, p.u, shared, column, staged);
    if (count == 0) continue;
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
      const float values[kPositions] = {u[0][j], u[1][j], u[2][j], u[3][j]};
      add(means[j], values, count, power);
    }
  }

  // Joined in a fixed order: the lanes of a warp that have the same channels, then the warps.
#pragma unroll
  for (int j = 0; j < kChannels; ++j)
    for (int other = groups; other < 32; other *= 2) {
      const Mean theirs = {__shfl_xor_sync(0xffffffffu, means[j].top, other),
                           __shfl_xor_sync(0xffffffffu, means[j].total, other),
                           __shfl_xor_sync(0xffffffffu, means[j].levels, other)};
      means[j] = joined(means[j], theirs);
    }
  const int columns = groups * kChannels;
  __syncthreads();
  if (threadIdx.x % 32 < groups)
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
      float* mine = shared + 3 * (threadIdx.x / 32 * columns + group * kChannels + j);
      store_shared(mine, means[j].top);
      store_shared(mine + 1, means[j].total);
      store_shared(mine + 2, means[j].levels);
    }
  __syncthreads();
  const int own = threadIdx.x;
  if (own >= columns || column + own >= p.u.c_out) return;
  Mean mean = {-INFINITY, 0, 0};
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    const float* part = shared + 3 * (warp * columns + own);
    mean = joined(mean, {load_shared(part), load_shared(part + 1), load_shared(part + 2)});
  }
  const float level = (mean.top + logf(mean.total / positions)) / power;
  const float y = expf(level);
  const int64_t at = int64_t(unit) * p.u.c_out + column + own;
  p.pooled[at] = y;
  p.by_power[at] = y * (mean.levels / mean.total - level) / power;
}

template <class T>
struct PoolBackwardParameters {
  Projection<T> u;
  float* gu;
  const float* grad;
  const float* pooled;
  const float* p;
  const int32_t* regions;
  const int32_t* region_of_row;
  int region_count, h, w;
  int tiles;  // of a sequence
};

// A block takes 1024 / groups positions of one sequence, whatever their regions. FLOPs per output channel and position:
// 2 c_in, and about 50 for a quotient, a logarithm and an exponential. Bytes: the maxima, and gu written.
template <class T>
HSTL_KERNEL(kThreads, 3)
pool_backward(const __grid_constant__ PoolBackwardParameters<T> p) {
  float* matrix = reinterpret_cast<float*>(dynamic_shared());
  const int apart = kThreads >> p.u.group_bits;
  const int block = blockIdx.x / p.u.column_blocks, sequence = block / p.tiles;
  const int column = ((blockIdx.x - block * p.u.column_blocks) << p.u.group_bits) * kChannels;
  const int positions = p.h * p.w;
  const int own = (block - sequence * p.tiles) * kPositions * apart + int(threadIdx.x >> p.u.group_bits);
  const T* first = p.u.maximum + int64_t(sequence) * positions * p.u.c_in;
  int at[kPositions];
#pragma unroll
  for (int i = 0; i < kPositions; ++i) at[i] = min(own + i * apart, positions - 1);
  float u[kPositions][kChannels];
  bool staged = false;
  project(u, first, at, p.u, matrix, column, staged);

  const int col = column + group_of(p.u) * kChannels, cols = p.u.c_out - col;
  if (cols <= 0) return;
#pragma unroll
  for (int i = 0; i < kPositions; ++i) {
    const int position = own + i * apart;
    if (position >= positions) return;
    const int region = __ldg(p.region_of_row + position / p.w);
    const float power = __ldg(p.p + region), size = float(__ldg(p.regions + 2 * region + 1)) * p.w;
    const int64_t at = (int64_t(sequence) * p.region_count + region) * p.u.c_out + col;
    float grad[kChannels], pooled[kChannels], gu[kChannels];
    load_floats(grad, p.grad + at, cols, p.u.y_vectors);
    load_floats(pooled, p.pooled + at, cols, p.u.y_vectors);
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
      const float ratio = (u[i][j] < kSmallest ? kSmallest : u[i][j]) / pooled[j];
      gu[j] = u[i][j] < kSmallest ? 0.f : grad[j] / size * expf((power - 1) * logf(ratio));
    }
    store_floats(p.gu + (int64_t(sequence) * positions + position) * p.u.c_out + col, gu, cols, p.u.y_vectors);
  }
}

// ---- the host's side

// How many groups of 4 output channels a block has, as a power of two: all of them, up to 32, unless fewer spread the
// work over more of the multiprocessors.
int group_bits_for(int64_t c_out, int64_t units, int64_t positions, int device) {
  int bits = 0;
  while (bits < kMostGroupBits && kChannels << bits < c_out) ++bits;
  const int64_t enough = 4 * int64_t(multiprocessors(device));
  while (bits > 0 && units * blocks_for(c_out, kChannels << bits) < enough && positions > kPositions * kThreads >> bits)
    --bits;
  return bits;
}

template <class T, class Arguments>
Projection<T> projection_of(const Arguments& a, int group_bits) {
  Projection<T> u{static_cast<const T*>(a.maximum), a.proj, int(a.c_in), int(a.c_out), group_bits, 0, false, false, 0};
  const int most = kMatrixFloats / kChannels >> group_bits;  // a multiple of 8
  u.chunk = int(a.c_in + 7 < most ? (a.c_in + 7) / 8 * 8 : most);
  u.x_vectors = a.c_in % 4 == 0 && vector_aligned(a.maximum);
  u.column_blocks = int(blocks_for(a.c_out, kChannels << group_bits));
  return u;
}

template <class T>
size_t matrix_bytes(const Projection<T>& u) {
  return u.proj == nullptr ? 0 : sizeof(float) * u.chunk * matrix_stride(u.group_bits);
}

}  // namespace

void run(const AstpForward& a) {
  OnDevice on(a.device);
  with_storage(a.type, [&](auto tag) {
    using T = storage_of<decltype(tag)>;
    const int64_t units = a.sequences * a.region_count;
    const int group_bits = group_bits_for(a.c_out, units, a.h * a.w / a.region_count, a.device);
    PoolParameters<T> p{
        projection_of<T>(a, group_bits), a.pooled, a.by_power, a.p, a.regions, int(a.region_count), int(a.h), int(a.w)};
    const size_t means = sizeof(Mean) * kThreads / 32 * kChannels << group_bits, matrix = matrix_bytes(p.u);
    launch("astp_forward", pool<T>, grid_of(units * p.u.column_blocks), kThreads, means > matrix ? means : matrix,
           a.stream, p);
  });
}

void run(const AstpBackward& a) {
  OnDevice on(a.device);
  with_storage(a.type, [&](auto tag) {
    using T = storage_of<decltype(tag)>;
    const int group_bits = group_bits_for(a.c_out, a.sequences, 0, a.device);
    PoolBackwardParameters<T> p{projection_of<T>(a, group_bits),
                                a.gu,
                                a.grad,
                                a.pooled,
                                a.p,
                                a.regions,
                                a.region_of_row,
                                int(a.region_count),
                                int(a.h),
                                int(a.w),
                                int(blocks_for(a.h * a.w, kPositions * kThreads >> group_bits))};
    p.u.y_vectors = a.c_out % kChannels == 0 && vector_aligned(a.gu, a.grad, a.pooled);
    launch("astp_backward", pool_backward<T>, grid_of(a.sequences * p.tiles * p.u.column_blocks), kThreads,
           matrix_bytes(p.u), a.stream, p);
  });
}

}  // namespace hstl
