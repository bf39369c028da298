// wgmma for every width and source of A that the micro-benchmarks compare. The kernels of the package need one form
// only.
#pragma once

#include "bench.cuh"

namespace micro {

// A matrix in shared memory, K innermost: groups of 8 rows of 16 bytes, 128 bytes each, `leading` bytes apart along K
// and `stride` bytes apart along rows. Swizzled: rows of 128 bytes, whose 16-byte chunks are exchanged by row % 8,
// groups of 8 rows `stride` bytes apart.
__device__ __forceinline__ uint64_t descriptor(const void* p, int leading, int stride, bool swizzled) {
  auto field = [](uint32_t bytes) { return uint64_t(bytes >> 4 & 0x3fff); };
  return field(hstl::shared_address(p)) | field(uint32_t(leading)) << 16 | field(uint32_t(stride)) << 32 |
         uint64_t(swizzled ? 1 : 0) << 62;
}

__device__ __forceinline__ void wgmma_fence() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void wgmma_commit() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
#endif
}

#define MICRO_R16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define MICRO_R32 MICRO_R16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define MICRO_R48 MICRO_R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define MICRO_R64 MICRO_R48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define MICRO_R96                                                                \
  MICRO_R64                                                                      \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82" \
  ",%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define MICRO_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define MICRO_D16(i) MICRO_D4(i), MICRO_D4(i + 4), MICRO_D4(i + 8), MICRO_D4(i + 12)
#define MICRO_D32 MICRO_D16(0), MICRO_D16(16)
#define MICRO_D48 MICRO_D32, MICRO_D16(32)
#define MICRO_D64 MICRO_D48, MICRO_D16(48)
#define MICRO_D96 MICRO_D64, MICRO_D16(64), MICRO_D16(80)

// d += a b, of 64 rows, N columns and 16 terms. a: a fragment in registers, or a descriptor.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define MICRO_WGMMA(N, registers, operands, a0, a1, a2, a3, b)                                                        \
  __device__ __forceinline__ void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b_descriptor) {           \
    asm volatile("{ .reg .pred add; setp.eq.u32 add, 0, 0;\n wgmma.mma_async.sync.aligned.m64n" #N                    \
                 "k16.f32.bf16.bf16 {" registers "}, {%" #a0 ",%" #a1 ",%" #a2 ",%" #a3 "}, %" #b ", add, 1, 1, 0; }" \
                 : operands                                                                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_descriptor));                                    \
  }                                                                                                                   \
  __device__ __forceinline__ void wgmma(float (&d)[N / 2], uint64_t a_descriptor, uint64_t b_descriptor) {            \
    asm volatile("{ .reg .pred add; setp.eq.u32 add, 0, 0;\n wgmma.mma_async.sync.aligned.m64n" #N                    \
                 "k16.f32.bf16.bf16 {" registers "}, %" #a0 ", %" #a1 ", add, 1, 1, 0, 0; }"                          \
                 : operands                                                                                           \
                 : "l"(a_descriptor), "l"(b_descriptor));                                                             \
  }
#else
#define MICRO_WGMMA(N, registers, operands, a0, a1, a2, a3, b)                                \
  __device__ __forceinline__ void wgmma(float (&)[N / 2], const uint32_t (&)[4], uint64_t) {} \
  __device__ __forceinline__ void wgmma(float (&)[N / 2], uint64_t, uint64_t) {}
#endif
MICRO_WGMMA(32, MICRO_R16, MICRO_D16(0), 16, 17, 18, 19, 20)
MICRO_WGMMA(64, MICRO_R32, MICRO_D32, 32, 33, 34, 35, 36)
MICRO_WGMMA(96, MICRO_R48, MICRO_D48, 48, 49, 50, 51, 52)
MICRO_WGMMA(128, MICRO_R64, MICRO_D64, 64, 65, 66, 67, 68)
MICRO_WGMMA(192, MICRO_R96, MICRO_D96, 96, 97, 98, 99, 100)
#undef MICRO_WGMMA

}  // namespace micro
