// The maximum of maps [F, H, W, C] over the frames of each sequence: [N, H, W, C].
#include "frame_maximum.h"

#include "operators.h"
#include "parallel.h"
#include "sequences.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Elements of a map that are followed through all frames: their maxima and indices stay in L1 while the frames stream
// by.
constexpr int64_t kElements = 1024;

// best and first of `size` elements after frames t..t+N-1, `stride` apart. Side by side they are as many streams of
// memory, and maxima and indices pass through L1 once for all.
template <int N, class T>
void take_frames(T* best, typename Simd<T>::Lane* first, const T* frame, int64_t stride, int64_t size, int64_t t) {
  using Lane = typename Simd<T>::Lane;
  for (int64_t e = 0; e < size; e += lanes<T>) {
    Vec<T> maximum = load(best + e);
    IntVec<T> index;
    __builtin_memcpy(&index, first + e, sizeof index);
    for (int j = 0; j < N; ++j) {
      Vec<T> x = load_some(frame + j * stride + e, size - e);
      IntVec<T> better = t + j ? replaces<T>(x, maximum) : ~IntVec<T>{};
      maximum = better ? x : maximum;
      index = better ? IntVec<T>{} + Lane(t + j) : index;
    }
    store(best + e, maximum);
    __builtin_memcpy(first + e, &index, sizeof index);
  }
}

// Bytes: size * frames * sizeof(T) read.
template <class T>
void maximum_of(T* best, typename Simd<T>::Lane* first, const T* frame, int64_t stride, int64_t size, int64_t frames) {
  int64_t t = 0;
  for (; t + 10 <= frames; t += 10) take_frames<10>(best, first, frame + t * stride, stride, size, t);
  for (; t + 3 <= frames; t += 3) take_frames<3>(best, first, frame + t * stride, stride, size, t);
  for (; t < frames; ++t) take_frames<1>(best, first, frame + t * stride, stride, size, t);
}

// Maxima and the frames that they are in.
template <class T>
void indexed_maximum(T* maximum, int16_t* index, const FramesOf<T>& of, Range chunk) {
  Range inside = chunk;
  if (of.support) inside = elements_inside(of.support, of.positions, of.frames, of.c, chunk);
  T best[kElements + lanes<T>] = {};
  typename Simd<T>::Lane first[kElements + lanes<T>] = {};
  int64_t before = inside.begin - chunk.begin;
  if (inside.size() > 0)
    maximum_of(best + before, first + before, of.x + inside.begin, of.positions * of.c, inside.size(), of.frames);
  for (int64_t e = 0; e < chunk.size(); ++e) maximum[e] = best[e];
  for (int64_t e = 0; e < chunk.size(); ++e) index[e] = int16_t(first[e]);
}

template <class T>
void frame_maximum(const FrameMaximum<T>& a) {
  const Shape s = undivided_shape_of(a);
  int64_t positions = a.h * a.w, map = positions * a.c, chunks = ceil_div(map, kElements);
  parallel_walk<SequenceWalk>(s.threads, s.sequences * chunks, [&](int64_t i, int, SequenceWalk& walk) {
    int64_t n = i / chunks, begin = i % chunks * kElements;
    walk.to_sequence(s.seq_lens, n);
    FramesOf<T> of = {a.x + walk.frames * map, a.support ? a.support + walk.frames * positions : nullptr, s.seq_lens[n],
                      positions, a.c};
    Range chunk = {begin, smaller(begin + kElements, map)};
    if (a.index)
      indexed_maximum(a.maximum + n * map + begin, a.index + n * map + begin, of, chunk);
    else
      maximum_inside(a.maximum + n * map + begin, of, chunk);
  });
}

template <class T>
void frame_maximum_backward(const FrameMaximumBackward<T>& a) {
  const Shape s = undivided_shape_of(a);
  int64_t map = a.h * a.w * a.c, chunks = ceil_div(map, kElements);
  parallel_walk<SequenceWalk>(s.threads, s.sequences * chunks, [&](int64_t i, int, SequenceWalk& walk) {
    int64_t n = i / chunks, begin = i % chunks * kElements, size = smaller(kElements, map - begin);
    walk.to_sequence(s.seq_lens, n);
    const T* gradient = a.grad + n * map + begin;
    const int16_t* first = a.index + n * map + begin;
    T* frame = a.gx + walk.frames * map + begin;
    for (int64_t t = 0; t < s.seq_lens[n]; ++t, frame += map)
      for (int64_t e = 0; e < size; ++e) frame[e] = first[e] == t ? gradient[e] : T(0);
  });
}

// Bytes: those of one frame per sequence read and written, in whole cache lines, whatever the number of frames.
template <class T>
void frame_maximum_backward_add(const FrameMaximumBackwardAdd<T>& a) {
  const Shape s = undivided_shape_of(a);
  int64_t map = a.h * a.w * a.c, chunks = ceil_div(map, kElements);
  parallel_walk<SequenceWalk>(s.threads, s.sequences * chunks, [&](int64_t i, int, SequenceWalk& walk) {
    int64_t n = i / chunks, begin = i % chunks * kElements, size = smaller(kElements, map - begin);
    walk.to_sequence(s.seq_lens, n);
    const T* gradient = a.grad + n * map + begin;
    const int16_t* first = a.index + n * map + begin;
    T* frames = a.gx + walk.frames * map + begin;
    for (int64_t e = 0; e < size; ++e) frames[first[e] * map + e] += gradient[e];
  });
}

template <class T>
void fill(Operators<T>& table) {
  table.frame_maximum = frame_maximum<T>;
  table.frame_maximum_backward = frame_maximum_backward<T>;
  table.frame_maximum_backward_add = frame_maximum_backward_add<T>;
}

}  // namespace

void fill_frame_maximum(Tables& tables) {
  fill(tables.float32);
  fill(tables.float64);
}

}  // namespace HSTL_ISA
}  // namespace hstl
