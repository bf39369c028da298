// The rate of mma.sync, from registers and with its operands loaded by ldmatrix, and the rate of ldmatrix itself.
#include "bench.cuh"

namespace micro {
namespace {

constexpr int kThreads = 256, kTerms = 64, kSteps = kTerms / 16;
// Planes of 8 channels, as the kernels keep a halo: an odd number of positions of 16 bytes.
constexpr int kPositions = 257, kPlane = kPositions * 16, kPatch = kTerms / 8 * kPlane;
// A warp's tile: 64 rows and 64 columns.
constexpr int kRowTiles = 4, kColumnTiles = 8;

struct Parameters {
  const uint4* patch;
  float* sums;
  Clock* clock;
  int passes;
  int listed;  // whether every fourth position is left out
};

__device__ __forceinline__ const unsigned char* load_patch(const Parameters& p) {
  unsigned char* shared = hstl::dynamic_shared();
  for (int i = threadIdx.x; i < kPatch / 16; i += kThreads)
    hstl::store_shared(reinterpret_cast<uint4*>(shared) + i, p.patch[i]);
  __syncthreads();
  int row = threadIdx.x / 32 % 2 * 64 + threadIdx.x % 16;
  return shared + threadIdx.x % 32 / 16 * kPlane + 16 * (p.listed ? row + row / 3 : row);
}

template <bool Loaded>
HSTL_KERNEL(kThreads, 1)
products(const __grid_constant__ Parameters p) {
  Clock start = clock_now();
  const unsigned char* own = load_patch(p);
  float sums[kRowTiles][kColumnTiles][4] = {};
  uint32_t a[kRowTiles][4], b[kColumnTiles / 2][4];
  for (int i = 0; i < kRowTiles; ++i) hstl::load_matrices(a[i], own + 256 * i);
  for (int i = 0; i < kColumnTiles / 2; ++i) hstl::load_matrices(b[i], own + 2 * kPlane + 256 * i);
  for (int pass = 0; pass < p.passes; ++pass) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (Loaded) {
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) hstl::load_matrices(a[i], own + 2 * step * kPlane + 256 * i);
#pragma unroll
        for (int i = 0; i < kColumnTiles / 2; ++i) hstl::load_matrices(b[i], own + 2 * (step ^ 1) * kPlane + 256 * i);
      }
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          const uint32_t pair[2] = {b[j / 2][j % 2], b[j / 2][j % 2 + 2]};
          hstl::multiply(hstl::Bfloat16{}, sums[i][j], a[i], pair);
        }
    }
  }
  clock_since(p.clock, start);
  float sum = 0;
  for (int i = 0; i < kRowTiles; ++i)
    for (int j = 0; j < kColumnTiles; ++j)
      for (int k = 0; k < 4; ++k) sum += sums[i][j][k];
  p.sums[blockIdx.x * kThreads + threadIdx.x] = sum;
}

HSTL_KERNEL(kThreads, 2) loads(const __grid_constant__ Parameters p) {
  Clock start = clock_now();
  const unsigned char* own = load_patch(p);
  uint32_t sum[4] = {};
  for (int pass = 0; pass < p.passes; ++pass) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        uint32_t a[4];
        hstl::load_matrices(a, own + 2 * step * kPlane + 256 * i);
        for (int k = 0; k < 4; ++k) sum[k] ^= a[k];
      }
  }
  clock_since(p.clock, start);
  p.sums[blockIdx.x * kThreads + threadIdx.x] = float(sum[0] ^ sum[1] ^ sum[2] ^ sum[3]);
}

Outcome run(const Gpu& gpu, void (*kernel)(Parameters), double per_pass, int blocks, int passes, bool listed) {
  Memory patch(kPatch), sums(size_t(blocks) * gpu.multiprocessors * kThreads * 4), clock(sizeof(Clock));
  fill(patch);
  Parameters p{patch.as<uint4>(), sums.as<float>(), clock.as<Clock>(), passes, listed};
  return timed(per_pass * passes * blocks * gpu.multiprocessors, clock, [&] {
    hstl::launch("mma", kernel, dim3(unsigned(blocks * gpu.multiprocessors)), kThreads, kPatch, nullptr, p);
  });
}

}  // namespace

std::vector<Case> mma_cases() {
  constexpr double kFlop = 2.0 * 64 * 64 * kTerms * (kThreads / 32), kBytes = 4.0 * kSteps * 512 * (kThreads / 32);
  const char* most = "at most 63 % of wgmma's rate on Hopper; on an A100 70 to 75 % of 312 TFLOP/s";
  return {
      {"mma.sync m16n8k16, from registers", "FLOP/s", 0.63 * kProducts, most, 80, kAny,
       [=](const Gpu& gpu) { return run(gpu, products<false>, kFlop, 1, 800, false); }},
      {"mma.sync m16n8k16, ldmatrix for each 64 x 64", "FLOP/s", 0.63 * kProducts, most, 80, kAny,
       [=](const Gpu& gpu) { return run(gpu, products<true>, kFlop, 1, 800, false); }},
      {"ldmatrix of neighbours", "byte/s", kShared, "128 bytes a cycle", 80, kAny,
       [=](const Gpu& gpu) { return run(gpu, loads, kBytes, 2, 4000, false); }},
      {"ldmatrix of a list", "byte/s", kShared / 2, "two passes: 8 listed positions meet others' banks", 80, kAny,
       [=](const Gpu& gpu) { return run(gpu, loads, kBytes, 2, 4000, true); }},
  };
}

}  // namespace micro
