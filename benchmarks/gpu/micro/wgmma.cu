// The rate of wgmma: its width, where A comes from, how B lies, and whether A may be shifted by 16 bytes.
#include <cmath>
#include <cstring>

#include "wgmma.cuh"

namespace micro {
namespace {

// Where A comes from: registers that stay as they are; ldmatrix of neighbouring positions, or of a list that leaves
// every fourth out; a descriptor of neighbouring positions, whose start is shifted by whole positions.
enum class A { kConstant, kContiguous, kListed, kDescriptor };

// The sum of one pass has 192 terms: 24 planes of 8 channels, of 257 positions each, so that a plane's step is an odd
// number of 16 bytes. Two warpgroups have 64 rows each; a second tile of theirs begins 8 positions later.
constexpr int kTerms = 192, kSteps = kTerms / 16, kPositions = 257, kPlane = kPositions * 16;
constexpr int kPatch = kTerms / 8 * kPlane;
constexpr int kPatchSpace = (kPatch + 1023) / 1024 * 1024;
constexpr int kThreads = 256;

struct Parameters {
  const uint4* patch;    // [24][257][8]
  const uint4* weights;  // in shared memory's order
  float* sums;           // [threads][products of all tiles], of the first block
  Clock* clock;
  int passes;
  int shift;  // positions by which A is shifted
};

__host__ __device__ constexpr int position(A a, int row) { return a == A::kListed ? row + row / 3 : row; }

template <int N, int Products, int Tiles, A Source, bool Swizzled>
HSTL_KERNEL(kThreads, 1)
rate(const __grid_constant__ Parameters p) {
  Clock start = clock_now();
  constexpr int kWidth = N * Products;
  unsigned char* shared = hstl::dynamic_shared();
  unsigned char* weights = shared + kPatchSpace;
  for (int i = threadIdx.x; i < kPatch / 16; i += kThreads)
    hstl::store_shared(reinterpret_cast<uint4*>(shared) + i, p.patch[i]);
  for (int i = threadIdx.x; i < kTerms * kWidth / 8; i += kThreads)
    hstl::store_shared(reinterpret_cast<uint4*>(weights) + i, p.weights[i]);
  hstl::fence_async_proxy();
  __syncthreads();

  int group = threadIdx.x / 128, warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
  int row = 64 * group + 16 * warp + lane % 16;
  const unsigned char* own = shared + lane / 16 * kPlane + 16 * (position(Source, row) + p.shift);
  const unsigned char* first = shared + 16 * (64 * group + p.shift);
  float sums[Tiles][Products][N / 2] = {};
  uint32_t a[2][Tiles][4];
  for (int i = 0; i < 2; ++i)
    for (int tile = 0; tile < Tiles; ++tile) hstl::load_matrices(a[i][tile], own + 128 * tile + 2 * i * kPlane);

  for (int pass = 0; pass < p.passes; ++pass) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (Source == A::kContiguous || Source == A::kListed)
#pragma unroll
        for (int tile = 0; tile < Tiles; ++tile)
          hstl::load_matrices(a[step & 1][tile], own + 128 * tile + 2 * step * kPlane);
      wgmma_fence();
#pragma unroll
      for (int tile = 0; tile < Tiles; ++tile)
#pragma unroll
        for (int product = 0; product < Products; ++product) {
          uint64_t b = Swizzled ? descriptor(weights + step / 4 * kWidth * 128 + product * N * 128 + step % 4 * 32, 16,
                                             1024, true)
                                : descriptor(weights + step * kWidth * 32 + product * N * 16, kWidth * 16, 128, false);
          if (Source == A::kDescriptor)
            wgmma(sums[tile][product], descriptor(first + 128 * tile + 2 * step * kPlane, kPlane, 128, false), b);
          else
            wgmma(sums[tile][product], a[step & 1][tile], b);
        }
      wgmma_commit();
      wgmma_wait<1>();
    }
  }
  wgmma_wait<0>();
  clock_since(p.clock, start);
  if (blockIdx.x != 0) return;
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile)
#pragma unroll
    for (int product = 0; product < Products; ++product)
#pragma unroll
      for (int i = 0; i < N / 2; ++i)
        p.sums[((threadIdx.x * Tiles + tile) * Products + product) * (N / 2) + i] = sums[tile][product][i];
}

float value(uint16_t bits) {
  uint32_t wide = uint32_t(bits) << 16;
  float x;
  std::memcpy(&x, &wide, 4);
  return x;
}

// Where the weight of a term and a column lies, in elements.
int weight_at(int term, int column, int width, bool swizzled) {
  if (!swizzled) return term / 8 * width * 8 + column * 8 + term % 8;
  int chunk = term % 64 / 8 ^ column % 8;
  return (term / 64 * width + column) * 64 + chunk * 8 + term % 8;
}

// The largest difference from the host's sums of one pass, relative to the largest sum.
template <int N, int Products, int Tiles, A Source, bool Swizzled>
double error_of(const std::vector<float>& sums, const std::vector<uint16_t>& patch,
                const std::vector<uint16_t>& weights, int shift) {
  constexpr int kWidth = N * Products;
  double worst = 0, largest = 0;
  for (int thread = 0; thread < kThreads; ++thread)
    for (int tile = 0; tile < Tiles; ++tile)
      for (int product = 0; product < Products; ++product)
        for (int i = 0; i < N / 2; ++i) {
          int row = thread / 32 * 16 + thread % 32 / 4 + i % 4 / 2 * 8;
          int column = product * N + i / 4 * 8 + thread % 4 * 2 + i % 2;
          int at = position(Source, row) + shift + 8 * tile;
          double sum = 0;
          for (int term = 0; term < kTerms; ++term) {
            int plane = Source == A::kConstant ? term / 8 % 4 : term / 8;
            sum += double(value(patch[size_t(plane * kPositions + at) * 8 + term % 8])) *
                   value(weights[size_t(weight_at(term, column, kWidth, Swizzled))]);
          }
          double got = sums[size_t(((thread * Tiles + tile) * Products + product) * (N / 2) + i)];
          worst = std::max(worst, std::isnan(got) ? 1e9 : std::abs(got - sum));
          largest = std::max(largest, std::abs(sum));
        }
  return worst / largest;
}

template <int N, int Products, int Tiles, A Source, bool Swizzled>
Outcome run(const Gpu& gpu, int shift) {
  constexpr int kWidth = N * Products, kSums = kThreads * Tiles * kWidth / 2;
  constexpr size_t kShared = kPatchSpace + kTerms * kWidth * 2;
  Memory patch(kPatch), weights(kTerms * kWidth * 2), sums(kSums * 4), clock(sizeof(Clock));
  fill(patch);
  fill(weights);
  Parameters p{patch.as<uint4>(), weights.as<uint4>(), sums.as<float>(), clock.as<Clock>(), 1, shift};
  auto launch = [&] {
    hstl::launch("rate", rate<N, Products, Tiles, Source, Swizzled>, dim3(unsigned(gpu.multiprocessors)), kThreads,
                 kShared, nullptr, p);
  };
  launch();
  std::vector<float> got(kSums);
  std::vector<uint16_t> a(kPatch / 2), b(kTerms * kWidth);
  check(cudaMemcpy(got.data(), sums.as<float>(), kSums * 4, cudaMemcpyDeviceToHost), "one pass");
  check(cudaMemcpy(a.data(), patch.as<uint16_t>(), kPatch, cudaMemcpyDeviceToHost), "cudaMemcpy");
  check(cudaMemcpy(b.data(), weights.as<uint16_t>(), b.size() * 2, cudaMemcpyDeviceToHost), "cudaMemcpy");
  p.passes = 200000 / (Tiles * kWidth);
  double flop = 2.0 * 128 * Tiles * kWidth * kTerms * p.passes * gpu.multiprocessors;
  Outcome found = timed(flop, clock, launch);
  found.error = error_of<N, Products, Tiles, Source, Swizzled>(got, a, b, shift);
  return found;
}

// Shared memory delivers 128 bytes a cycle. A product of 64 rows, N columns and 16 terms takes N / 2 cycles, its B
// N / 4, and 64 rows of A 16 cycles, times the conflicts of their positions.
double share(int n, double a_cycles) { return std::min(1.0, n / 2.0 / (n / 4.0 + a_cycles)); }

template <int N, int Products, int Tiles, A Source, bool Swizzled>
Case a_case(const std::string& name, double a_cycles, const std::string& model, int shift = 0) {
  double predicted = kProducts * share(N * Products, a_cycles);
  return {name, "FLOP/s", predicted, model, 90, 90, [=](const Gpu& gpu) {
            return run<N, Products, Tiles, Source, Swizzled>(gpu, shift);
          }};
}

}  // namespace

std::vector<Case> wgmma_cases() {
  const char* alone = "tensor cores alone: B takes half the time in shared memory";
  const char* loaded = "0.5 + 32/N of the time in shared memory";
  const char* listed = "0.5 + 64/N: 8 listed positions lie within 10 or 11, where 2 or 3 meet the banks of others";
  return {
      a_case<32, 1, 2, A::kConstant, false>("wgmma n32, A in registers", 0, alone),
      a_case<64, 1, 2, A::kConstant, false>("wgmma n64, A in registers", 0, alone),
      a_case<96, 1, 2, A::kConstant, false>("wgmma n96, A in registers", 0, alone),
      a_case<128, 1, 2, A::kConstant, false>("wgmma n128, A in registers", 0, alone),
      a_case<192, 1, 1, A::kConstant, false>("wgmma n192, A in registers", 0, alone),
      a_case<32, 1, 2, A::kContiguous, false>("wgmma n32, ldmatrix for each", 16, loaded),
      a_case<64, 1, 2, A::kContiguous, false>("wgmma n64, ldmatrix for each", 16, loaded),
      a_case<96, 1, 2, A::kContiguous, false>("wgmma n96, ldmatrix for each", 16, loaded),
      a_case<128, 1, 2, A::kContiguous, false>("wgmma n128, ldmatrix for each", 16, loaded),
      a_case<192, 1, 1, A::kContiguous, false>("wgmma n192, ldmatrix for each", 16, loaded),
      a_case<64, 3, 1, A::kContiguous, false>("wgmma 3 x n64, ldmatrix for three", 16, "as one of n192"),
      a_case<64, 3, 2, A::kContiguous, false>("wgmma 3 x n64 for two tiles, ldmatrix for three", 16, "as one of n192"),
      a_case<64, 3, 2, A::kListed, false>("wgmma 3 x n64 for two tiles, ldmatrix of a list", 32, "as one of n192"),
      a_case<64, 1, 2, A::kListed, false>("wgmma n64, ldmatrix of a list", 32, listed),
      a_case<96, 1, 2, A::kListed, false>("wgmma n96, ldmatrix of a list", 32, listed),
      a_case<128, 1, 2, A::kListed, false>("wgmma n128, ldmatrix of a list", 32, listed),
      a_case<192, 1, 1, A::kListed, false>("wgmma n192, ldmatrix of a list", 32, listed),
      a_case<128, 1, 2, A::kConstant, true>("wgmma n128, A in registers, B swizzled", 0, "as without swizzle"),
      a_case<128, 1, 2, A::kContiguous, true>("wgmma n128, ldmatrix for each, B swizzled", 16, "as without swizzle"),
      a_case<128, 1, 2, A::kDescriptor, false>("wgmma n128, A by descriptor", 16, loaded),
      a_case<128, 1, 2, A::kDescriptor, false>("wgmma n128, A by descriptor shifted by 16 bytes", 16, loaded, 1),
      a_case<128, 1, 2, A::kDescriptor, false>("wgmma n128, A by descriptor shifted by 80 bytes", 16, loaded, 5),
      a_case<64, 1, 2, A::kDescriptor, false>("wgmma n64, A by descriptor shifted by 16 bytes", 16, loaded, 1),
  };
}

}  // namespace micro
