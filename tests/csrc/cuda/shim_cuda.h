// What CUDA itself gives to a kernel and to its launcher, for the CPU: qualifiers, vectors, intrinsics, runtime.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

// ---- where a primitive is called: file and line of the kernel's source.

namespace hstl::shim {

struct Where {
  const char* file;
  int line;
  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

}  // namespace hstl::shim
namespace shim = hstl::shim;

// The last parameter of every primitive: where it is called.
#define HSTL_HERE ::hstl::shim::Where where = ::hstl::shim::Where::here()

// ---- vectors

#define HSTL_VECTORS(name, T, bytes2, bytes4)                        \
  struct name##1 { T x; };                                           \
  struct alignas(bytes2) name##2 { T x, y; };                        \
  struct name##3 { T x, y, z; };                                     \
  struct alignas(bytes4) name##4 { T x, y, z, w; };                  \
  inline name##1 make_##name##1(T x) { return {x}; }                 \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HSTL_VECTORS(char, signed char, 2, 4)
HSTL_VECTORS(uchar, unsigned char, 2, 4)
HSTL_VECTORS(short, short, 4, 8)
HSTL_VECTORS(ushort, unsigned short, 4, 8)
HSTL_VECTORS(int, int, 8, 16)
HSTL_VECTORS(uint, unsigned, 8, 16)
HSTL_VECTORS(float, float, 8, 16)
HSTL_VECTORS(longlong, long long, 16, 16)
HSTL_VECTORS(ulonglong, unsigned long long, 16, 16)
HSTL_VECTORS(double, double, 16, 16)
#undef HSTL_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---- barriers, warps

void __syncthreads(HSTL_HERE);
void __syncwarp(unsigned mask = 0xffffffffu, HSTL_HERE);
unsigned __ballot_sync(unsigned mask, int predicate, HSTL_HERE);
inline int __any_sync(unsigned mask, int predicate, HSTL_HERE) { return __ballot_sync(mask, predicate, where) != 0; }
inline int __all_sync(unsigned mask, int predicate, HSTL_HERE) { return __ballot_sync(mask, !predicate, where) == 0; }

namespace hstl::shim {

// The lane that a shuffle reads: absolute, or relative to the caller's.
enum class Shuffle { lane, up, down, exclusive_or };
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int operand, int width, Where where);

template <class T>
T shuffle(Shuffle kind, unsigned mask, T value, int operand, int width, Where where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle takes 4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, operand, width, where);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace hstl::shim

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize, HSTL_HERE) {
  return shim::shuffle<T>(shim::Shuffle::lane, mask, value, lane, width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, HSTL_HERE) {
  return shim::shuffle<T>(shim::Shuffle::up, mask, value, int(delta), width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, HSTL_HERE) {
  return shim::shuffle<T>(shim::Shuffle::down, mask, value, int(delta), width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize, HSTL_HERE) {
  return shim::shuffle<T>(shim::Shuffle::exclusive_or, mask, value, lanes, width, where);
}

int atomicAdd(int* address, int value, HSTL_HERE);

// ---- arithmetic

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= ((x >> i) & 1u) << (31 - i);
  return reversed;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  uint64_t bytes = (uint64_t(b) << 32) | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    unsigned which = (selector >> (4 * i)) & 15, byte = unsigned(bytes >> (8 * (which & 7))) & 255;
    result |= (which & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * i);
  }
  return result;
}

template <class T>
T __ldg(const T* p) {
  return *p;
}

namespace hstl::shim {

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace hstl::shim

inline unsigned __float_as_uint(float x) { return shim::bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return shim::bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return shim::bits_as<float>(x); }
inline float __int_as_float(int x) { return shim::bits_as<float>(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }

#define HSTL_MIN_MAX(R, A, B)                                \
  inline R min(A a, B b) {                                   \
    R first = static_cast<R>(a), second = static_cast<R>(b); \
    return first < second ? first : second;                  \
  }                                                          \
  inline R max(A a, B b) {                                   \
    R first = static_cast<R>(a), second = static_cast<R>(b); \
    return first < second ? second : first;                  \
  }
HSTL_MIN_MAX(int, int, int)
HSTL_MIN_MAX(unsigned, unsigned, unsigned)
HSTL_MIN_MAX(unsigned, int, unsigned)
HSTL_MIN_MAX(unsigned, unsigned, int)
HSTL_MIN_MAX(long, long, long)
HSTL_MIN_MAX(unsigned long, unsigned long, unsigned long)
HSTL_MIN_MAX(unsigned long, long, unsigned long)
HSTL_MIN_MAX(unsigned long, unsigned long, long)
HSTL_MIN_MAX(long long, long long, long long)
HSTL_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
HSTL_MIN_MAX(unsigned long long, long long, unsigned long long)
HSTL_MIN_MAX(unsigned long long, unsigned long long, long long)
#undef HSTL_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }

// ---- the runtime, with the numbers of CUDA's errors

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
};
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
using cudaStream_t = struct CUstream_st*;

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream = nullptr);
