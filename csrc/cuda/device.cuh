// The instructions that the kernels are made of: copies that run in the background, loads and products of fragments,
// warps, types. Each is one PTX instruction or an idiom of a few; the kernels hold no assembly of their own.
//
// tests/csrc/cuda compiles the kernels for the CPU with HSTL_HOST_SHIM, where hstl_shim.h has the same functions.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef HSTL_HOST_SHIM
#include <hstl_shim.h>
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace hstl {

using half_t = __half;
using bfloat16_t = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(half_t x) { return __half2float(x); }
__device__ __forceinline__ float to_float(bfloat16_t x) { return __bfloat162float(x); }

// To the nearest, ties to even.
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ half_t from_float<half_t>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ bfloat16_t from_float<bfloat16_t>(float x) {
  return __float2bfloat16_rn(x);
}

// To TF32's 10 bits of mantissa, to the nearest, ties away from zero.
__device__ __forceinline__ float round_to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

// The block's shared memory, as large as the launch says, aligned to 1024 bytes.
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return memory;
}

// An address in shared memory as PTX takes it.
__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Plain accesses to shared memory; T has 1, 2, 4, 8 or 16 bytes and is aligned.
template <class T>
__device__ __forceinline__ T load_shared(const T* p) {
  return *p;
}
template <class T>
__device__ __forceinline__ void store_shared(T* p, T value) {
  *p = value;
}

// Stores 16 bytes to global memory at once; p is aligned to 16. The compiler may take other stores apart.
__device__ __forceinline__ void store_16(void* p, const uint32_t (&words)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(p)), "r"(words[0]), "r"(words[1]),
               "r"(words[2]), "r"(words[3])
               : "memory");
}

// ---- cp.async: copies from global to shared memory in the background, 16 bytes each, both addresses aligned to 16.
// Without `exists` zeros are written and the source is not read. The thread's copies since the last commit are a
// group; wait<N> waits until at most the latest N groups of this thread are unfinished. Other threads see the data
// after a barrier.

__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool exists) {
  int bytes = exists ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- fragments. ldmatrix: four 8 x 8 matrices of 2-byte elements; lane i gives the address of row i % 8 of matrix
// i / 8, 16 bytes, aligned. Lane i gets, of every matrix, elements 2 (i % 4) and the next of row i / 4; transposed,
// of column i / 4. Elements of 4 bytes count as pairs: lane i gets element i % 4 of row i / 4.

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// mma.sync: d += a b with a of 16 rows, b of 8 columns, and 32 bytes of k: 16 elements of 2 bytes, or 8 of TF32. Of
// lane i, with g = i / 4 and c = i % 4:
//   d: rows g, g, g + 8, g + 8; columns 2c, 2c + 1, 2c, 2c + 1
//   a, 2 bytes: row g, g + 8, g, g + 8; k 2c, 2c (both and the next), 2c + 8, 2c + 8 (and the next)
//   b, 2 bytes: column g; k 2c and the next, 2c + 8 and the next
//   a, TF32: row g, g + 8, g, g + 8; k c, c, c + 4, c + 4;   b: column g; k c, c + 4
struct Half {
  using storage = half_t;
};
struct Bfloat16 {
  using storage = bfloat16_t;
};
struct Tf32 {
  using storage = float;  // rounded to TF32, else the hardware drops the bits
};
struct Float32 {
  using storage = float;  // multiplied without tensor cores
};

#define HSTL_MMA(Tag, instruction)                                                                               \
  __device__ __forceinline__ void multiply(Tag, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { \
    asm volatile("mma.sync.aligned." instruction " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"        \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                            \
  }
HSTL_MMA(Half, "m16n8k16.row.col.f32.f16.f16.f32")
HSTL_MMA(Bfloat16, "m16n8k16.row.col.f32.bf16.bf16.f32")
HSTL_MMA(Tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef HSTL_MMA

// ---- mbarrier and bulk copies (sm_90 and newer). A barrier's phase ends when `arrivals` threads have arrived and the
// bytes that were announced have come. wait_phase waits for the end of the phase of this parity, 0 the first.

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// Makes initialised barriers visible to the asynchronous proxy; by the thread that initialised them.
__device__ __forceinline__ void barrier_init_fence() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0]; }" ::"r"(shared_address(barrier))
               : "memory");
}
// Arrives, and announces bytes.
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{ .reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1; }" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
#endif
}
__device__ __forceinline__ void wait_phase(uint64_t* barrier, int parity) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#endif
}
// cp.async.bulk: copies a multiple of 16 bytes, by the asynchronous proxy; their arrival is counted by the barrier.
__device__ __forceinline__ void copy_bulk(void* shared, const void* global, int bytes, uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(global), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
#endif
}
// Orders this thread's accesses to shared memory before those of the asynchronous proxy (wgmma's b, bulk copies).
__device__ __forceinline__ void fence_async_proxy() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace hstl
#endif
