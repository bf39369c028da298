// The maximum of some elements of a map over the frames of a sequence.
#pragma once

#include "../shapes.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Elements are asked for so many bytes before they are needed, into second-level cache: the processor asks ahead within
// a page of 4 KiB only, and has to notice each of the streams first.
constexpr int64_t kFramesAhead = 2 << 10;

// maxima [size] joined with N frames of x, `stride` apart; `begins` where there are none yet. Side by side the frames
// are as many streams of memory, and maxima pass through L1 once for all. Two instructions an element and frame beside
// its load: NaN is only noticed, by a sum, unless Exact. Returns whether there may be one that was left out.
template <int N, bool Exact, class T>
bool join_frames(T* maxima, const T* x, int64_t stride, int64_t size, bool begins) {
  IntVec<T> unordered = {};
  for (int64_t e = 0; e < size; e += lanes<T>) {
    Vec<T> best = load_some((begins ? x : maxima) + e, size - e), sum = {};
#pragma GCC unroll 10
    for (int j = 0; j < N; ++j) {
      const T* from = x + j * stride + e;
      __builtin_prefetch(reinterpret_cast<const char*>(from) + kFramesAhead, 0, 2);
      Vec<T> v = load_some(from, size - e);
      if (Exact) {
        best = replaces<T>(v, best) ? v : best;
      } else {
        best = v > best ? v : best;
        sum += v;
      }
    }
    unordered |= sum != sum;
    store_some(maxima + e, best, size - e);
  }
  return any<T>(unordered);
}

// A maximum that is NaN stays so in either way, and one of frames that were joined already changes nothing.
template <int N, class T>
void join_some_frames(T* maxima, const T* x, int64_t stride, int64_t size, bool begins) {
  if (join_frames<N, false>(maxima, x, stride, size, begins)) join_frames<N, true>(maxima, x, stride, size, false);
}

// maxima [size] over `frames` frames of x, `stride` apart. Bytes: size * frames * sizeof(T) read.
template <class T>
void maximum_over_frames(T* maxima, const T* x, int64_t stride, int64_t size, int64_t frames) {
  int64_t t = 0;
  for (; t + 10 <= frames; t += 10) join_some_frames<10>(maxima, x + t * stride, stride, size, t == 0);
  for (; t + 3 <= frames; t += 3) join_some_frames<3>(maxima, x + t * stride, stride, size, t == 0);
  for (; t < frames; ++t) join_some_frames<1>(maxima, x + t * stride, stride, size, t == 0);
}

// The elements among [begin, end) of a map between its first and its last position inside the support of any frame.
inline Range elements_inside(const uint8_t* support, int64_t positions, int64_t frames, int64_t c, Range elements) {
  Range inside = {elements.begin / c, ceil_div(elements.end, c)};
  auto empty = [&](int64_t position) {
    uint8_t any = 0;
    for (int64_t t = 0; t < frames; ++t) any |= support[t * positions + position];
    return any == 0;
  };
  while (inside.begin < inside.end && empty(inside.begin)) ++inside.begin;
  while (inside.begin < inside.end && empty(inside.end - 1)) --inside.end;
  Range found = {smaller(larger(inside.begin * c, elements.begin), elements.end),
                 smaller(inside.end * c, elements.end)};
  return found.size() > 0 ? found : Range{elements.begin, elements.begin};
}

// The frames of a sequence in a map.
template <class T>
struct FramesOf {
  const T* x;              // [frames, positions, c]
  const uint8_t* support;  // [frames, positions] or null
  int64_t frames, positions, c;
};

// maxima [elements.size()] of some elements of a map, which is 0 outside its support.
template <class T>
void maximum_inside(T* maxima, const FramesOf<T>& of, Range elements) {
  Range inside = elements;
  if (of.support) inside = elements_inside(of.support, of.positions, of.frames, of.c, elements);
  T *begin = maxima + (inside.begin - elements.begin), *end = begin + inside.size();
  __builtin_memset(maxima, 0, (begin - maxima) * sizeof(T));
  if (inside.size() > 0) maximum_over_frames(begin, of.x + inside.begin, of.positions * of.c, inside.size(), of.frames);
  __builtin_memset(end, 0, (elements.end - inside.end) * sizeof(T));
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
