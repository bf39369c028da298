// Products of a warpgroup, four consecutive warps of a block, by the tensor cores of sm_90a: d += a b with a of 64 rows
// in registers, b of N columns in shared memory, and 32 bytes of k, or 16 elements. They run in the background.
//
// Rows 16 w to 16 w + 15 belong to the warpgroup's warp w, whose lanes hold a and d as those of mma.sync: element
// 4 n + i of d is element i of the eight columns 8 n.
//
// wgmma_fence orders the warp's accesses to registers before the products that follow. The products since the last
// commit are a group; wgmma_wait<N> waits until at most the latest N groups are unfinished. Until then nobody may touch
// their d, their a, or what b names. All of these functions are called by all threads of a warpgroup.
#pragma once

#include "device.cuh"

// Whether these instructions exist where this is compiled for; a kernel's body that needs them stands within it.
#if defined(HSTL_HOST_SHIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HSTL_WGMMA 1
#endif

namespace hstl {

// b in shared memory without swizzle: matrices of 8 columns and 16 bytes of k, each 128 contiguous bytes, one column
// after another; so many bytes from one matrix to the next along k, and along the columns. Transposed, the matrices are
// of 8 columns and 8 of k, one k after another. Everything is a multiple of 16 bytes and less than 256 KB.
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, uint32_t along_k, uint32_t along_columns) {
  return uint64_t(address >> 4) | uint64_t(along_k >> 4) << 16 | uint64_t(along_columns >> 4) << 32;
}

// threadIdx.x, read here: what is made of it takes no registers before.
__device__ __forceinline__ int thread_index() {
#ifdef HSTL_HOST_SHIM
  return int(threadIdx.x);
#else
  int index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
#endif
}

#if defined(HSTL_WGMMA) && !defined(HSTL_HOST_SHIM)

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// The compiler must not move accesses to d across this.
template <int N>
__device__ __forceinline__ void wgmma_hold(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

template <class Tag, int N, bool kTransposed>
struct Wgmma;

#define HSTL_NAMES_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define HSTL_NAMES_32 HSTL_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define HSTL_NAMES_48 HSTL_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define HSTL_NAMES_64 HSTL_NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define HSTL_NAMES_80 HSTL_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define HSTL_NAMES_96 HSTL_NAMES_80 ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define HSTL_SUMS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define HSTL_SUMS_AT(i) HSTL_SUMS_4(i), HSTL_SUMS_4(i + 4), HSTL_SUMS_4(i + 8), HSTL_SUMS_4(i + 12)
#define HSTL_SUMS_16 HSTL_SUMS_AT(0)
#define HSTL_SUMS_32 HSTL_SUMS_16, HSTL_SUMS_AT(16)
#define HSTL_SUMS_48 HSTL_SUMS_32, HSTL_SUMS_AT(32)
#define HSTL_SUMS_64 HSTL_SUMS_48, HSTL_SUMS_AT(48)
#define HSTL_SUMS_96 HSTL_SUMS_64, HSTL_SUMS_AT(64), HSTL_SUMS_AT(80)

// `sums` is n / 2. `inputs` are the names of a and b; `flags` say: added to d, no factors, and where there is a choice
// whether b is transposed.
#define HSTL_WGMMA_ONE(Tag, n, transposed, instruction, sums, inputs, flags)                                        \
  template <>                                                                                                       \
  struct Wgmma<Tag, n, transposed> {                                                                                \
    __device__ __forceinline__ static void run(float (&d)[sums], const uint32_t (&a)[4], uint64_t b) {              \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #n instruction " {" HSTL_NAMES_##sums "}, " inputs flags ";" \
                   : HSTL_SUMS_##sums                                                                               \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                           \
    }                                                                                                               \
  };
#define HSTL_WGMMA_TYPES(n, sums, inputs)                                               \
  HSTL_WGMMA_ONE(Half, n, false, "k16.f32.f16.f16", sums, inputs, ", 1, 1, 1, 0")       \
  HSTL_WGMMA_ONE(Bfloat16, n, false, "k16.f32.bf16.bf16", sums, inputs, ", 1, 1, 1, 0") \
  HSTL_WGMMA_ONE(Tf32, n, false, "k8.f32.tf32.tf32", sums, inputs, ", 1, 1, 1")
HSTL_WGMMA_TYPES(32, 16, "{%16,%17,%18,%19}, %20")
HSTL_WGMMA_TYPES(64, 32, "{%32,%33,%34,%35}, %36")
HSTL_WGMMA_TYPES(96, 48, "{%48,%49,%50,%51}, %52")
HSTL_WGMMA_TYPES(128, 64, "{%64,%65,%66,%67}, %68")
HSTL_WGMMA_TYPES(192, 96, "{%96,%97,%98,%99}, %100")
HSTL_WGMMA_ONE(Half, 96, true, "k16.f32.f16.f16", 48, "{%48,%49,%50,%51}, %52", ", 1, 1, 1, 1")
HSTL_WGMMA_ONE(Bfloat16, 96, true, "k16.f32.bf16.bf16", 48, "{%48,%49,%50,%51}, %52", ", 1, 1, 1, 1")
#undef HSTL_WGMMA_TYPES
#undef HSTL_WGMMA_ONE
#undef HSTL_SUMS_96
#undef HSTL_SUMS_64
#undef HSTL_SUMS_48
#undef HSTL_SUMS_32
#undef HSTL_SUMS_16
#undef HSTL_SUMS_AT
#undef HSTL_SUMS_4
#undef HSTL_NAMES_96
#undef HSTL_NAMES_80
#undef HSTL_NAMES_64
#undef HSTL_NAMES_48
#undef HSTL_NAMES_32
#undef HSTL_NAMES_16

template <class Tag, int N, bool kTransposed = false>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b_descriptor) {
  Wgmma<Tag, N, kTransposed>::run(d, a, b_descriptor);
}

#endif

}  // namespace hstl
