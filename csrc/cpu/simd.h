// One SIMD layer on the vector extensions of GCC and Clang; the instruction set of the compilation sets the width.
// HSTL_ISA is the name of that set, defined by csrc/build.py: the namespace of all that is compiled for it.
// Nothing here may call an inline function of the standard library: the linker keeps one copy of those, and it might be
// the one compiled for a newer machine.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#define HSTL_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define HSTL_VECTOR_BYTES 32
#else
#define HSTL_VECTOR_BYTES 16
#endif

namespace hstl {
namespace HSTL_ISA {
namespace {

#define HSTL_INLINE inline __attribute__((always_inline))

template <class T>
struct Simd;

template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(HSTL_VECTOR_BYTES)));
  typedef int32_t I __attribute__((vector_size(HSTL_VECTOR_BYTES)));
  typedef int32_t Lane;
};

template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(HSTL_VECTOR_BYTES)));
  typedef int64_t I __attribute__((vector_size(HSTL_VECTOR_BYTES)));
  typedef int64_t Lane;
};

template <class T>
using Vec = typename Simd<T>::V;
template <class T>
using IntVec = typename Simd<T>::I;
template <class T>
constexpr int lanes = HSTL_VECTOR_BYTES / int(sizeof(T));

// Registers for vectors: what the tiles of the matrix products may use.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kVectorRegisters = 32;
#else
constexpr int kVectorRegisters = 16;
#endif

template <class T>
HSTL_INLINE Vec<T> load(const T* from) {
  Vec<T> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
HSTL_INLINE void store(T* to, Vec<T> v) {
  __builtin_memcpy(to, &v, sizeof v);
}

template <class T>
HSTL_INLINE Vec<T> broadcast(T value) {
  return Vec<T>{} + value;
}

// The first n lanes; the rest reads as zero and is not touched when storing.
template <class T>
HSTL_INLINE Vec<T> load_some(const T* from, int64_t n) {
  Vec<T> v = {};
  if (n >= lanes<T>) return load(from);
  for (int64_t i = 0; i < n; ++i) v[i] = from[i];
  return v;
}

template <class T>
HSTL_INLINE void store_some(T* to, Vec<T> v, int64_t n) {
  if (n >= lanes<T>) return store(to, v);
  for (int64_t i = 0; i < n; ++i) to[i] = v[i];
}

// Stores a whole vector, aligned to its size, past the caches: a store to a line that is in none of them would fetch it
// from memory first.
HSTL_INLINE void stream(float* to, Vec<float> v) {
#if defined(__clang__)
  __builtin_nontemporal_store(v, reinterpret_cast<Vec<float>*>(to));
#elif defined(__AVX512F__)
  __builtin_ia32_movntps512(to, v);
#elif defined(__AVX2__)
  __builtin_ia32_movntps256(to, v);
#elif defined(__SSE__)
  __builtin_ia32_movntps(to, v);
#else
  store(to, v);
#endif
}

// Whatever was streamed is seen before anything that is stored later.
HSTL_INLINE void finish_streams() {
#if defined(__SSE__)
  __builtin_ia32_sfence();
#endif
}

// Whether x replaces best as the maximum so far: NaN does, as in torch.
template <class T>
HSTL_INLINE IntVec<T> replaces(Vec<T> x, Vec<T> best) {
  return ~(x <= best) & (best == best);
}

template <class T>
HSTL_INLINE Vec<T> leaky(Vec<T> v, T negative_slope) {
  return v > Vec<T>{} ? v : v * negative_slope;
}

template <class T>
HSTL_INLINE T sum(Vec<T> v) {
  T total = 0;
  for (int i = 0; i < lanes<T>; ++i) total += v[i];
  return total;
}

// Whether a comparison holds in any lane.
template <class T>
HSTL_INLINE bool any(IntVec<T> holds) {
  uint64_t words[HSTL_VECTOR_BYTES / 8], all = 0;
  __builtin_memcpy(words, &holds, sizeof words);
  for (uint64_t word : words) all |= word;
  return all != 0;
}

// A positive normal number 2^exponent * (1 + f), where 1 + f lies in [sqrt(1/2), sqrt(2)).
struct Normalised {
  Vec<float> exponent, f;
};

HSTL_INLINE Normalised normalised(Vec<float> x) {
  IntVec<float> offset = (IntVec<float>)x - 0x3f3504f3;  // sqrt(1/2)
  return {__builtin_convertvector(offset >> 23, Vec<float>), (Vec<float>)((offset & 0x007fffff) + 0x3f3504f3) - 1.0f};
}

// p of log(1 + f) = f - f^2 / 2 + f^3 p, the polynomial of Cephes' logf.
HSTL_INLINE Vec<float> log_polynomial(Vec<float> f) {
  Vec<float> p = f * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  return p * f + 3.3333331174e-1f;
}

// log of positive normal numbers.
HSTL_INLINE Vec<float> log(Vec<float> x) {
  Normalised n = normalised(x);
  Vec<float> square = n.f * n.f;
  Vec<float> tail = log_polynomial(n.f) * n.f * square - n.exponent * 2.12194440e-4f - square * 0.5f;
  return n.exponent * 0.693359375f + (n.f + tail);
}

// exp for |x| < 1e6, subnormal results included (the scale is applied in two halves).
HSTL_INLINE Vec<float> exp(Vec<float> x) {
  using V = Vec<float>;
  using I = IntVec<float>;
  const V low = broadcast(-110.0f), high = broadcast(100.0f);
  x = x < low ? low : x;
  x = x > high ? high : x;
  const float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  V n = (x * 1.44269504089f + round) - round;
  V r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  I whole = __builtin_convertvector(n, I);
  I half = whole >> 1;
  V first = (V)((half + 127) << 23);
  V second = (V)((whole - half + 127) << 23);
  return p * first * second;
}

HSTL_INLINE Vec<double> log(Vec<double> x) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = __builtin_log(x[i]);
  return x;
}

HSTL_INLINE Vec<double> exp(Vec<double> x) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
