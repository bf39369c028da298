// Copies as the kernels make them: halos gathered by cp.async, weights by bulk copies, outputs written by rows.
#include "bench.cuh"

namespace micro {
namespace {

// ---- cp.async, 16 bytes a lane: the halo of a band of rows, frame by frame, three frames on their way. The map is
// small enough for the second-level cache. Positions beyond the map's columns are filled with zeros and not counted.

constexpr int kThreads = 256, kColumns = 44, kRows = 64, kRing = 3;

struct HaloParameters {
  const unsigned char* map;  // [frames][64][44][channels] of 2 bytes
  Clock* clock;
  int frames, chunk_bits, band, steps;  // 1 << chunk_bits chunks of 16 bytes of every position are copied
  int pitch;                            // bytes from position to position
};

HSTL_KERNEL(kThreads, 1) gather_halo(const __grid_constant__ HaloParameters p) {
  Clock start = clock_now();
  unsigned char* shared = hstl::dynamic_shared();
  int positions = (p.band + 2) * (kColumns + 2), plane = (positions | 1) * 16;
  int chunks = positions << p.chunk_bits, slot = plane << p.chunk_bits;
  int bands = kRows / p.band - 2;  // the outermost have no rows around them
  int row = (1 + int(blockIdx.x) % bands) * p.band - 1;
  for (int step = 0; step < p.steps; ++step) {
    size_t frame = (blockIdx.x / bands + size_t(step)) % p.frames;
    const unsigned char* from = p.map + (frame * kRows + row) * kColumns * p.pitch;
    unsigned char* to = shared + step % kRing * slot;
    for (int i = threadIdx.x; i < chunks; i += kThreads) {
      int at = i >> p.chunk_bits, chunk = i & ((1 << p.chunk_bits) - 1);
      int y = at / (kColumns + 2), x = at % (kColumns + 2) - 1;
      bool exists = unsigned(x) < unsigned(kColumns);
      int offset = (y * kColumns + (exists ? x : 0)) * p.pitch + chunk * 16;
      hstl::copy_async_16(to + chunk * plane + at * 16, from + offset, exists);
    }
    hstl::copy_async_commit();
    hstl::copy_async_wait<kRing - 1>();
    __syncthreads();
  }
  hstl::copy_async_wait<0>();
  clock_since(p.clock, start);
}

Outcome run_halo(const Gpu& gpu, int channels, int of, int band) {
  int chunk_bits = channels == 32 ? 2 : 3;
  size_t frame = size_t(kRows) * kColumns * of * 2;
  int frames = int((size_t(16) << 20) / frame), blocks = 2 * gpu.multiprocessors, steps = 256;
  int positions = (band + 2) * (kColumns + 2);
  size_t slot = size_t((positions | 1) * 16) << chunk_bits;
  Memory map(frame * size_t(frames)), clock(sizeof(Clock));
  fill(map);
  HaloParameters p{map.as<unsigned char>(), clock.as<Clock>(), frames, chunk_bits, band, steps, 2 * of};
  double bytes = double(band + 2) * kColumns * channels * 2 * steps * blocks;
  return timed(bytes, clock, [&] {
    hstl::launch("gather_halo", gather_halo, dim3(unsigned(blocks)), kThreads, kRing * slot, nullptr, p);
  });
}

// ---- bulk copies of weights that all blocks share, into a ring of slots that one thread fills and empties. With
// multicast, each of two blocks of a cluster fetches half of every slot for both.

constexpr int kRingBytes = 192 * 1024, kMostSlots = 64, kBarriers = 2 * kMostSlots * 8;
constexpr int kWeights = 864 * 1024;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define MICRO_CLUSTER_OF_TWO
#else
#define MICRO_CLUSTER_OF_TWO __cluster_dims__(2, 1, 1)
#endif

struct BulkParameters {
  const unsigned char* weights;
  Clock* clock;
  int size, slots, copies;
};

HSTL_KERNEL(128, 1) bulk_copies(const __grid_constant__ BulkParameters p) {
  Clock start = clock_now();
  unsigned char* shared = hstl::dynamic_shared();
  auto* full = reinterpret_cast<uint64_t*>(shared + kRingBytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.slots; ++i) hstl::barrier_init(full + i, 1);
    hstl::barrier_init_fence();
    hstl::fence_async_proxy();
    for (int i = 0; i < p.copies + p.slots; ++i) {
      int slot = i % p.slots, round = i / p.slots;
      if (round > 0) hstl::wait_phase(full + slot, (round - 1) & 1);
      if (i >= p.copies) continue;
      size_t at = size_t(i) * p.size % (kWeights / p.size * p.size);
      hstl::barrier_expect(full + slot, p.size);
      hstl::copy_bulk(shared + slot * p.size, p.weights + at, p.size, full + slot);
    }
  }
  __syncthreads();
  clock_since(p.clock, start);
}

__device__ __forceinline__ void cluster_barrier() {
  __syncwarp();
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ int rank_in_cluster() {
  int rank = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return rank;
}

// Arrives at the barrier at the same place in another block of the cluster.
__device__ __forceinline__ void arrive_at(uint64_t* barrier, int rank) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{ .reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote]; }" ::"r"(hstl::shared_address(barrier)),
      "r"(rank)
      : "memory");
#endif
}

// To the same place in both blocks of a cluster; each one's own barrier counts what comes to it.
__device__ __forceinline__ void copy_to_both(void* to, const void* from, int bytes, uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], "
      "%4;" ::"r"(hstl::shared_address(to)),
      "l"(from), "r"(bytes), "r"(hstl::shared_address(barrier)), "h"(uint16_t(3))
      : "memory");
#endif
}

MICRO_CLUSTER_OF_TWO HSTL_KERNEL(128, 1) multicast_copies(const __grid_constant__ BulkParameters p) {
  Clock start = clock_now();
  unsigned char* shared = hstl::dynamic_shared();
  auto* full = reinterpret_cast<uint64_t*>(shared + kRingBytes);
  uint64_t* empty = full + kMostSlots;
  int rank = rank_in_cluster(), half = p.size / 2;
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.slots; ++i) {
      hstl::barrier_init(full + i, 1);
      hstl::barrier_init(empty + i, 2);
    }
    hstl::barrier_init_fence();
    hstl::fence_async_proxy();
  }
  cluster_barrier();
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.copies + p.slots; ++i) {
      int slot = i % p.slots, round = i / p.slots;
      if (round > 0) {
        hstl::wait_phase(full + slot, (round - 1) & 1);
        arrive_at(empty + slot, 0);
        arrive_at(empty + slot, 1);
        hstl::wait_phase(empty + slot, (round - 1) & 1);
      }
      if (i >= p.copies) continue;
      size_t at = size_t(i) * p.size % (kWeights / p.size * p.size) + size_t(rank) * half;
      hstl::barrier_expect(full + slot, p.size);
      copy_to_both(shared + slot * p.size + rank * half, p.weights + at, half, full + slot);
    }
  }
  cluster_barrier();
  clock_since(p.clock, start);
}

Outcome run_bulk(const Gpu& gpu, int size, bool multicast) {
  Memory weights(kWeights), clock(sizeof(Clock));
  fill(weights);
  int blocks = gpu.multiprocessors / 2 * 2, copies = (64 << 20) / size;
  BulkParameters p{weights.as<unsigned char>(), clock.as<Clock>(), size, std::min(kMostSlots, kRingBytes / size),
                   copies};
  return timed(double(size) * copies * blocks, clock, [&] {
    hstl::launch("bulk", multicast ? multicast_copies : bulk_copies, dim3(unsigned(blocks)), 128,
                 kRingBytes + kBarriers, nullptr, p);
  });
}

// ---- writes of 16 bytes a lane: all of the memory, or rows of a list that leaves every fourth row out.

struct WriteParameters {
  uint4* memory;
  Clock* clock;
  size_t chunks;
  int row_bits;  // 1 << row_bits chunks are a row
  int listed;
};

HSTL_KERNEL(256, 4) write_rows(const __grid_constant__ WriteParameters p) {
  Clock start = clock_now();
  size_t step = size_t(gridDim.x) * blockDim.x;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.chunks; i += step) {
    size_t row = i >> p.row_bits;
    if (p.listed) row += row / 3;
    size_t at = (row << p.row_bits) + (i & ((size_t(1) << p.row_bits) - 1));
    uint32_t x = uint32_t(i) * 2654435761u;
    p.memory[at] = uint4{x, x ^ 0x5bd1e995u, x * 69069u, ~x};
  }
  clock_since(p.clock, start);
}

Outcome run_write(const Gpu& gpu, int row_bits, bool listed) {
  Memory memory(size_t(2) << 30), clock(sizeof(Clock));
  size_t chunks = memory.bytes() / 16;
  if (listed) chunks = chunks / 4 * 3 - 1024;
  WriteParameters p{memory.as<uint4>(), clock.as<Clock>(), chunks, row_bits, listed};
  return timed(16.0 * double(chunks), clock, [&] {
    hstl::launch("write_rows", write_rows, dim3(unsigned(4 * gpu.multiprocessors)), 256, 0, nullptr, p);
  });
}

Case halo(int channels, int of, int band) {
  std::string name = "cp.async halo, " + std::to_string(channels) + " of " + std::to_string(of) + " channels";
  return {name, "byte/s", kL2, "the second-level cache", 80, kAny, [=](const Gpu& gpu) {
            return run_halo(gpu, channels, of, band);
          }};
}

Case bulk(int kilobytes, bool multicast) {
  const char* model = kilobytes == 1 ? "small copies are slow: 0.2 to 0.8 TB/s by tensor maps of 1 KB elsewhere"
                      : multicast    ? "twice the second-level cache, as each byte is read once for two blocks"
                                     : "the second-level cache; tensor maps of 8 KB gave 1.8 TB/s elsewhere";
  double predicted = kilobytes == 1 ? 0.8e12 : multicast ? 2 * kL2 : kL2;
  std::string name = "bulk copies of " + std::to_string(kilobytes) + " KB" + (multicast ? ", multicast to two" : "");
  return {name,
          "byte/s",
          predicted,
          model,
          90,
          kAny,
          [=](const Gpu& gpu) { return run_bulk(gpu, kilobytes * 1024, multicast); }};
}

Case writes(const std::string& name, int row_bits, bool listed) {
  return {name, "byte/s", kCopies, "as a copy, which counts what it reads and writes", 80, kAny, [=](const Gpu& gpu) {
            return run_write(gpu, row_bits, listed);
          }};
}

}  // namespace

std::vector<Case> copy_cases() {
  std::vector<Case> cases = {halo(32, 32, 8), halo(64, 64, 4), halo(32, 64, 8), halo(32, 128, 8)};
  for (int kilobytes : {1, 6, 8, 12, 16, 24})
    for (bool multicast : {false, true}) cases.push_back(bulk(kilobytes, multicast));
  cases.push_back(writes("writes, all", 0, false));
  cases.push_back(writes("writes, listed rows of 64 bytes", 2, true));
  cases.push_back(writes("writes, listed rows of 256 bytes", 4, true));
  return cases;
}

}  // namespace micro
