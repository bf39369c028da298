#include <map>

#include "kernels.h"
#include "launch.cuh"

namespace hstl {
namespace {

using A = const Arguments;

template <class T>
T* at(A& a, int i) {
  return static_cast<T*>(a.p[i]);
}

// ---- fragments

// p0: 512 bytes, 4 matrices of 8 rows of 16 bytes; p1: uint32 [32 lanes][4]. n0: transposed.
HSTL_KERNEL(32, 1) ldmatrix(const __grid_constant__ Arguments a) {
  int lane = int(threadIdx.x);
  unsigned char* row = dynamic_shared() + 16 * lane;
  store_shared(reinterpret_cast<uint4*>(row), at<const uint4>(a, 0)[lane]);
  __syncwarp();
  uint32_t r[4];
  if (a.n[0])
    load_matrices_transposed(r, row);
  else
    load_matrices(r, row);
  for (int i = 0; i < 4; ++i) at<uint32_t>(a, 1)[4 * lane + i] = r[i];
}

// p0, p1, p2: the registers of a [32][4], b [32][2] and d [32][4].
template <class Tag>
HSTL_KERNEL(32, 1)
mma(const __grid_constant__ Arguments arguments) {
  int lane = int(threadIdx.x);
  uint32_t a[4], b[2];
  float d[4];
  for (int i = 0; i < 4; ++i) a[i] = at<uint32_t>(arguments, 0)[4 * lane + i];
  for (int i = 0; i < 2; ++i) b[i] = at<uint32_t>(arguments, 1)[2 * lane + i];
  for (int i = 0; i < 4; ++i) d[i] = at<float>(arguments, 2)[4 * lane + i];
  multiply(Tag(), d, a, b);
  for (int i = 0; i < 4; ++i) at<float>(arguments, 2)[4 * lane + i] = d[i];
}

enum WgmmaFault {
  kNoFence = 1,
  kFenceBeforeZeros,
  kWritesAccumulators,
  kReadsAccumulators,
  kWritesA,
  kNoWait,
  kNoPhase,
  kOneWarpLess,
  kTooMuchInFlight,
};

// p0: a's registers [128][4]; p1: the bytes of b; p2: d's registers [128][N / 2]. n0: bytes of b; n1: the descriptor
// without its address; n2: fault; n3: offset of b.
template <class Tag, int N, bool kTransposed>
HSTL_KERNEL(128, 1)
wgmma_once(const __grid_constant__ Arguments p) {
  int thread = int(threadIdx.x), bytes = int(p.n[0]), fault = int(p.n[2]);
  unsigned char* b = dynamic_shared() + p.n[3];
  auto* barrier = reinterpret_cast<uint64_t*>(dynamic_shared());
  if (thread == 0) {
    barrier_init(barrier, 1);
    barrier_init_fence();
  }
  __syncthreads();
  if (thread == 0) {
    barrier_expect(barrier, bytes);
    copy_bulk(b, p.p[1], bytes, barrier);
  }
  uint32_t a[4];
  float d[N / 2];
  for (int i = 0; i < 4; ++i) a[i] = at<uint32_t>(p, 0)[4 * thread + i];
  if (fault != kFenceBeforeZeros)
    for (int i = 0; i < N / 2; ++i) d[i] = at<float>(p, 2)[thread * (N / 2) + i];
  if (fault != kNoPhase) wait_phase(barrier, 0);
  uint64_t descriptor = uint64_t(p.n[1]) | shared_address(b) >> 4;
  if (fault != kNoFence) wgmma_fence();
  if (fault == kFenceBeforeZeros) {
    wgmma<Tag, N, kTransposed>(d, a, descriptor);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_fence();
    for (int i = 0; i < N / 2; ++i) d[i] = 0;
  }
  if (fault != kOneWarpLess || thread >= 32) wgmma<Tag, N, kTransposed>(d, a, descriptor);
  wgmma_commit();
  if (fault == kWritesAccumulators) d[1] = 0;
  if (fault == kWritesA) a[2] ^= 1;
  float early = d[0];
  if (fault == kTooMuchInFlight)
    wgmma_wait<1>();
  else if (fault != kNoWait)
    wgmma_wait<0>();
  if (fault == kReadsAccumulators) d[0] = early;
  for (int i = 0; i < N / 2; ++i) at<float>(p, 2)[thread * (N / 2) + i] = d[i];
}

// p0: d's registers [128][8]. b is written by the threads, in the no-swizzle layout. n0: 1: no proxy fence, 2: the
// fence comes after the barrier, 3: before the writes, 4: cp.async is fenced before it is waited for; p1: 16 x 32
// bytes.
HSTL_KERNEL(128, 1) wgmma_generic(const __grid_constant__ Arguments p) {
  int thread = int(threadIdx.x), fault = int(p.n[0]);
  unsigned char* b = dynamic_shared();
  if (fault == 3) fence_async_proxy();
  if (thread < 32) copy_async_16(b + 16 * thread, at<unsigned char>(p, 1) + 16 * thread, true);
  copy_async_commit();
  if (fault == 4) fence_async_proxy();
  copy_async_wait<0>();
  if (fault == 0) fence_async_proxy();
  __syncthreads();
  if (fault == 2) fence_async_proxy();
  uint32_t a[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
  float d[8] = {};
  wgmma_fence();
  wgmma<Bfloat16, 16>(d, a, shared_address(b) >> 4 | uint64_t(8) << 16 | uint64_t(16) << 32);
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < 8; ++i) at<float>(p, 0)[8 * thread + i] = d[i];
}

// b is overwritten by warp 0 while others may still read it. n0: 1: without a barrier.
HSTL_KERNEL(128, 1) wgmma_reuse(const __grid_constant__ Arguments p) {
  auto* b = reinterpret_cast<uint32_t*>(dynamic_shared());
  store_shared(b + threadIdx.x, 0u);
  fence_async_proxy();
  __syncthreads();
  uint32_t a[4] = {};
  float d[8] = {};
  wgmma_fence();
  wgmma<Half, 16>(d, a, shared_address(b) >> 4 | uint64_t(8) << 16 | uint64_t(16) << 32);
  wgmma_commit();
  if (p.n[0] != 2) wgmma_wait<0>();
  if (p.n[0] != 1) __syncthreads();
  if (threadIdx.x < 32) store_shared(b + threadIdx.x, 1u);
  if (p.n[0] == 2) wgmma_wait<0>();
}

// ---- copies

enum PipelineFault { kNoCopyWait = 1, kWaitTooFew, kNoBarrier, kNoBarrierBehind, kNoCommit, kBarrierBeforeWait };

// p1[i] = the sum of 4 neighbours' p0, 128 floats x n1 stages through a ring of 2. n0: fault.
HSTL_KERNEL(32, 1) pipeline(const __grid_constant__ Arguments a) {
  int lane = int(threadIdx.x), fault = int(a.n[0]), stages = int(a.n[1]);
  auto* ring = reinterpret_cast<float*>(dynamic_shared());
  auto start = [&](int stage) {
    if (stage < stages)
      copy_async_16(ring + stage % 2 * 128 + 4 * lane, at<float>(a, 0) + stage * 128 + 4 * lane, true);
    if (fault != kNoCommit) copy_async_commit();
  };
  start(0);
  for (int stage = 0; stage < stages; ++stage) {
    start(stage + 1);
    if (fault == kBarrierBeforeWait) __syncthreads();
    if (fault == kWaitTooFew)
      copy_async_wait<2>();
    else if (fault != kNoCopyWait)
      copy_async_wait<1>();
    if (fault != kNoBarrier && fault != kBarrierBeforeWait) __syncthreads();
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum += load_shared(ring + stage % 2 * 128 + (lane + i) % 32 * 4);
    at<float>(a, 1)[stage * 32 + lane] = sum;
    if (fault != kNoBarrierBehind) __syncthreads();
  }
}

// p0: source; p1: 16 bytes per thread. n0: whether the source exists.
HSTL_KERNEL(32, 1) zero_fill(const __grid_constant__ Arguments a) {
  auto* s = reinterpret_cast<uint4*>(dynamic_shared()) + threadIdx.x;
  copy_async_16(s, at<uint4>(a, 0) + threadIdx.x, threadIdx.x < unsigned(a.n[0]));
  copy_async_commit();
  copy_async_wait<0>();
  at<uint4>(a, 1)[threadIdx.x] = load_shared(s);
}

enum BulkFault {
  kOddBytes = 1,
  kOddAddress,
  kOddSource,
  kUnannounced,
  kNotInitialised,
  kNotFenced,
  kTwice,
  kNeverEnds,
  kNoPhaseWait,
  kTooManyArrivals,
  kOverBarrier,
  kNotConsumed,
  kNoEmptyWait,
};

// A producer's copies of 256 bytes go through a ring of 2 to 32 consumers; p1[stage] = p0[stage] + 1. n0: fault;
// n1: stages.
HSTL_KERNEL(64, 1) bulk(const __grid_constant__ Arguments a) {
  int thread = int(threadIdx.x), fault = int(a.n[0]), stages = int(a.n[1]);
  unsigned char* ring = dynamic_shared() + 64;
  auto* full = reinterpret_cast<uint64_t*>(dynamic_shared());
  uint64_t* empty = full + 2;
  if (thread == 0) {
    for (int i = 0; i < 2 && fault != kNotInitialised; ++i) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 32);
    }
    if (fault == kTwice) barrier_init(full, 1);
    if (fault != kNotFenced) barrier_init_fence();
  }
  __syncthreads();
  if (thread == 32) {
    for (int stage = 0; stage < stages; ++stage) {
      int slot = stage % 2, bytes = fault == kOddBytes ? 248 : 256;
      if (stage >= 2 && fault != kNoEmptyWait) wait_phase(empty + slot, (stage / 2 - 1) % 2);
      if (fault != kUnannounced) barrier_expect(full + slot, fault == kNeverEnds ? 272 : 256);
      unsigned char* to = ring + 256 * slot + (fault == kOddAddress ? 8 : 0) - (fault == kOverBarrier ? 48 : 0);
      copy_bulk(to, at<unsigned char>(a, 0) + 256 * stage + (fault == kOddSource ? 4 : 0), bytes, full + slot);
    }
  } else if (thread < 32) {
    for (int stage = 0; stage < stages; ++stage) {
      int slot = stage % 2;
      if (fault != kNoPhaseWait) wait_phase(full + slot, stage / 2 % 2);
      auto* from = reinterpret_cast<float2*>(ring + 256 * slot);
      float2 pair = load_shared(from + thread);
      at<float2>(a, 1)[32 * stage + thread] = make_float2(pair.x + 1, pair.y + 1);
      if (fault != kNotConsumed) barrier_arrive(empty + slot);
      if (fault == kTooManyArrivals && thread == 0) barrier_arrive(empty + slot);
    }
  }
}

// ---- threads

// Neighbours exchange numbers. n0: 1: no barrier, 2: a barrier that half of the warps reach, 3: two that half the lanes
// reach each, 4: through __syncwarp only, 5: the threads end before.
HSTL_KERNEL(128, 1) exchange(const __grid_constant__ Arguments a) {
  int thread = int(threadIdx.x), fault = int(a.n[0]);
  auto* s = reinterpret_cast<int*>(dynamic_shared());
  if (fault == 5 && thread >= 96) return;
  store_shared(s + thread, thread);
  if (fault == 0 || fault == 5) __syncthreads();
  if (fault == 2 && thread < 64) __syncthreads();
  if (fault == 3) {
    if (thread % 2)
      __syncthreads();
    else
      __syncthreads();
  }
  if (fault == 4) __syncwarp();
  at<int>(a, 0)[thread] = load_shared(s + (a.n[1] ? thread ^ 1 : (thread + 32) % 128));
}

// p0: int [8][32]: votes and shuffles. n0: 1: lanes diverge, 2: a lane does not come, 3: a mask without the lane, 4: a
// shuffle from a lane outside the mask.
HSTL_KERNEL(32, 1) collectives(const __grid_constant__ Arguments a) {
  int lane = int(threadIdx.x), fault = int(a.n[0]);
  auto put = [&](int row, int value) { at<int>(a, 0)[32 * row + lane] = value; };
  if (fault == 2 && lane == 7) return;
  if (fault == 1 && lane < 16) {
    put(0, __any_sync(0xffffffff, lane == 3));
  } else {
    put(0, int(__ballot_sync(fault == 3 ? 0xffff : 0xffffffff, lane % 3 == 0)));
  }
  put(1, __any_sync(0xffffffff, lane == 3) + 2 * __all_sync(0xffffffff, lane < 32) + 4 * __all_sync(0xffffffff, lane));
  put(2, __shfl_sync(0xffffffff, 100 + lane, 5));
  put(3, __shfl_up_sync(0xffffffff, lane, 3));
  put(4, __shfl_down_sync(0xffffffff, lane, 3, 8));
  put(5, __shfl_xor_sync(0xffffffff, lane, 9));
  put(6, int(__shfl_sync(0xffffffff, double(lane) / 2, lane + 1, 16) * 2));
  unsigned half = lane < 16 ? 0xffff : 0xffff0000;
  put(7, __shfl_sync(half, lane, fault == 4 ? 20 : lane ^ 1));
}

// p0: where each thread's turn is noted, by atomicAdd in p1.
HSTL_KERNEL(64, 1) order(const __grid_constant__ Arguments a) {
  int turn = atomicAdd(at<int>(a, 1), 1);
  at<int>(a, 0)[turn] = int(blockIdx.x * blockDim.x + threadIdx.x);
}

// p0: [16 threads] what is read. n0: which.
HSTL_KERNEL(16, 1) bounds(const __grid_constant__ Arguments a) {
  unsigned char* s = dynamic_shared();
  int thread = int(threadIdx.x);
  auto* word = reinterpret_cast<uint32_t*>(s) + thread;
  uint32_t value = 0;
  if (a.n[0] == 0) value = load_shared(word);
  if (a.n[0] == 1) value = load_shared(word + 1);
  if (a.n[0] == 2) value = load_shared(reinterpret_cast<uint32_t*>(s + 2));
  if (a.n[0] == 3) store_shared(word - 1, 0u);
  if (a.n[0] == 4) store_shared(reinterpret_cast<uint16_t*>(s + 64), uint16_t(0));
  if (a.n[0] == 5) copy_async_16(s + 8, a.p[0], true);
  if (a.n[0] == 6) copy_async_16(s + 64, a.p[0], true);
  if (a.n[0] == 7) copy_async_16(s, at<unsigned char>(a, 0) + 4, true);
  if (a.n[0] == 8) s[64] = 1;
  if (a.n[0] == 9) s[4096] = 1;
  if (a.n[0] == 10) s[-1] = 1;
  if (a.n[0] == 11) value = *at<uint32_t>(a, 1);
  at<uint32_t>(a, 0)[thread] = value;
}

// Lane i reads row i by ldmatrix; rows lie n0 bytes apart, n1 from the beginning.
HSTL_KERNEL(32, 1) rows(const __grid_constant__ Arguments a) {
  unsigned char* row = dynamic_shared() + a.n[1] + a.n[0] * int(threadIdx.x);
  uint32_t r[4];
  if (a.n[1] == 0) store_shared(reinterpret_cast<uint4*>(row), uint4{});
  __syncwarp();
  load_matrices(r, row);
}

// Warps count in shared memory; n0: 1: with plain loads and stores.
HSTL_KERNEL(64, 1) tickets(const __grid_constant__ Arguments a) {
  auto* counter = reinterpret_cast<int*>(dynamic_shared());
  if (threadIdx.x == 0) store_shared(counter, 0);
  __syncthreads();
  if (a.n[0] == 1)
    store_shared(counter, load_shared(counter) + 1);
  else
    atomicAdd(counter, 1);
  __syncthreads();
  if (threadIdx.x == 0) at<int>(a, 0)[0] = load_shared(counter);
}

// n0 numbers: p0 float; p1 half_t, p2 bfloat16_t, p3 TF32.
HSTL_KERNEL(256, 1) convert(const __grid_constant__ Arguments a) {
  for (int64_t i = blockIdx.x * 256 + threadIdx.x; i < a.n[0]; i += gridDim.x * 256) {
    float x = at<float>(a, 0)[i];
    at<half_t>(a, 1)[i] = from_float<half_t>(x);
    at<bfloat16_t>(a, 2)[i] = from_float<bfloat16_t>(x);
    at<float>(a, 3)[i] = round_to_tf32(x);
  }
}

// All 65536 numbers of each type: p0 of half_t, p1 of bfloat16_t, as float.
HSTL_KERNEL(256, 1) widen(const __grid_constant__ Arguments a) {
  int i = int(blockIdx.x * 256 + threadIdx.x);
  half_t h;
  bfloat16_t b;
  h.bits = b.bits = uint16_t(i);
  at<float>(a, 0)[i] = to_float(h);
  at<float>(a, 1)[i] = to_float(b);
}

using Kernel = void (*)(Arguments);

const std::map<std::string, Kernel> kKernels = {
    {"ldmatrix", ldmatrix},
    {"mma_f16", mma<Half>},
    {"mma_bf16", mma<Bfloat16>},
    {"mma_tf32", mma<Tf32>},
    {"wgmma_f16_8", wgmma_once<Half, 8, false>},
    {"wgmma_f16_64", wgmma_once<Half, 64, false>},
    {"wgmma_f16_64_transposed", wgmma_once<Half, 64, true>},
    {"wgmma_bf16_96", wgmma_once<Bfloat16, 96, false>},
    {"wgmma_bf16_256_transposed", wgmma_once<Bfloat16, 256, true>},
    {"wgmma_tf32_64", wgmma_once<Tf32, 64, false>},
    {"wgmma_generic", wgmma_generic},
    {"wgmma_reuse", wgmma_reuse},
    {"pipeline", pipeline},
    {"zero_fill", zero_fill},
    {"bulk", bulk},
    {"exchange", exchange},
    {"collectives", collectives},
    {"order", order},
    {"bounds", bounds},
    {"rows", rows},
    {"tickets", tickets},
    {"convert", convert},
    {"widen", widen},
};

}  // namespace

void run(const std::string& name, unsigned blocks, int threads, size_t shared_bytes, const Arguments& arguments) {
  launch(name.c_str(), kKernels.at(name), dim3(blocks), threads, shared_bytes, nullptr, arguments);
}

}  // namespace hstl
