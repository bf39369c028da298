// Accesses of several elements at once: 16 bytes where sizes and addresses allow, else one by one.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "types.cuh"

namespace hstl {

template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  T at[N];
};

// Elements in 16 bytes.
template <class T>
constexpr int kVector = 16 / int(sizeof(T));

template <int N, class T>
__device__ __forceinline__ Vector<T, N> load_vector(const T* p) {
  return *reinterpret_cast<const Vector<T, N>*>(p);
}
template <int N, class T>
__device__ __forceinline__ void store_vector(T* p, const Vector<T, N>& value) {
  *reinterpret_cast<Vector<T, N>*>(p) = value;
}

// The same for values that the compiler would store one or two at a time, as those that loops choose. Loads that follow
// wait until it is done.
template <int N, class T>
__device__ __forceinline__ void store_chosen(T* p, const Vector<T, N>& value) {
  if constexpr (N == kVector<T>) {
    uint32_t words[4];
    memcpy(words, &value, sizeof(words));
    store_16(p, words);
  } else {
    store_vector<N>(p, value);
  }
}

// N elements as words, where they fill 16 bytes: in registers, elements of 2 bytes would take a word each.
template <class T, int N>
using Raw = std::conditional_t<N == kVector<T>, Vector<uint32_t, 4>, Vector<T, N>>;

template <int N, class T>
__device__ __forceinline__ Raw<T, N> load_raw(const T* p) {
  return *reinterpret_cast<const Raw<T, N>*>(p);
}
template <class T, int N>
__device__ __forceinline__ Vector<T, N> elements_of(const Raw<T, N>& raw) {
  Vector<T, N> elements;
  memcpy(&elements, &raw, sizeof(elements));
  return elements;
}

// The first `count` of N elements, and zeros. `whole`: if count >= N, p is aligned to N elements, or to 16 bytes.
template <int N, class T>
__device__ __forceinline__ void load_floats(float (&out)[N], const T* p, int count, bool whole) {
  constexpr int kPart = N < kVector<T> ? N : kVector<T>;
  if (whole && count >= N) {
#pragma unroll
    for (int i = 0; i < N; i += kPart) {
      const auto part = load_vector<kPart>(p + i);
#pragma unroll
      for (int k = 0; k < kPart; ++k) out[i + k] = to_float(part.at[k]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = i < count ? to_float(p[i]) : 0.f;
  }
}

// Stores the first `count` of N elements; `whole` as above.
template <int N, class T>
__device__ __forceinline__ void store_floats(T* p, const float (&in)[N], int count, bool whole) {
  constexpr int kPart = N < kVector<T> ? N : kVector<T>;
  if (whole && count >= N) {
#pragma unroll
    for (int i = 0; i < N; i += kPart) {
      Vector<T, kPart> part;
#pragma unroll
      for (int k = 0; k < kPart; ++k) part.at[k] = from_float<T>(in[i + k]);
      store_vector<kPart>(p + i, part);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i < count) p[i] = from_float<T>(in[i]);
  }
}

// Quotient of numbers that are not negative; 64-bit division takes ten times as long.
__device__ __forceinline__ int64_t divide(int64_t a, int64_t b) {
  return (a | b) >> 32 == 0 ? int64_t(uint32_t(a) / uint32_t(b)) : a / b;
}

// Whether all of these are aligned to 16 bytes.
template <class... Pointers>
bool vector_aligned(const Pointers*... p) {
  return (aligned(p, 16) && ...);
}

constexpr int64_t blocks_for(int64_t work, int64_t work_of_block) { return (work + work_of_block - 1) / work_of_block; }

// A grid of one dimension.
inline dim3 grid_of(int64_t blocks) {
  if (blocks > 0x7fffffff)
    throw std::invalid_argument("a launch has at most 2^31 - 1 blocks, this one needs " + std::to_string(blocks));
  return dim3(unsigned(blocks));
}

}  // namespace hstl
