// The maximum over the frames of each sequence, and its gradient.
#include "launch.cuh"
#include "operators.h"
#include "types.cuh"
#include "vector.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 256;

// Frames of a sequence that a thread reads at once.
constexpr int kFramesAtOnce = 8;

template <class T>
struct MaximumParameters {
  T* maximum;
  int16_t* index;
  const T* x;
  const uint8_t* support;
  const int32_t* starts;
  int64_t frame_size, positions;  // h w c, h w
  int c;
  int blocks;  // of a sequence
};

// Bit i: the position is inside the support in frame i of `frames` from here on.
__device__ __forceinline__ uint32_t frames_inside(const uint8_t* support, int64_t stride, int frames) {
  if (support == nullptr) return 0xffffffffu;
  uint32_t inside = 0;
#pragma unroll
  for (int i = 0; i < kFramesAtOnce; ++i)
    if (i < frames && support[i * stride] != 0) inside |= 1u << i;
  return inside;
}

// A thread takes N neighbouring channels of one position through all frames of a sequence. The supports of the next
// frames arrive while the maps of these do. Bytes: x inside its support, from memory, and 4 / 30 as much written: the
// memory's bandwidth bounds it, bytes / 4.3 TB/s on an H200. In flight per thread: 8 x 16 bytes.
template <class T, int N>
HSTL_KERNEL(kThreads, 3)
maximum(const __grid_constant__ MaximumParameters<T> p) {
  const int sequence = blockIdx.x / p.blocks;
  const int64_t element = (int64_t(blockIdx.x - sequence * p.blocks) * kThreads + threadIdx.x) * N;
  if (element >= p.frame_size) return;
  const int first = __ldg(p.starts + sequence), frames = __ldg(p.starts + sequence + 1) - first;
  const T* x = p.x + first * p.frame_size + element;
  const uint8_t* support = p.support;
  if (support != nullptr) support += first * p.positions + divide(element, p.c);

  float best[N] = {};
  int frame_of_best[N] = {};
  uint32_t inside = frames_inside(support, p.positions, frames);
  for (int begin = 0; begin < frames; begin += kFramesAtOnce) {
    Raw<T, N> values[kFramesAtOnce];
#pragma unroll
    for (int i = 0; i < kFramesAtOnce; ++i) {
      values[i] = {};
      if (begin + i < frames && (inside >> i & 1) != 0) values[i] = load_raw<N>(x + (begin + i) * p.frame_size);
    }
    const int next = begin + kFramesAtOnce;
    if (next < frames && support != nullptr)
      inside = frames_inside(support + next * p.positions, p.positions, frames - next);
#pragma unroll
    for (int i = 0; i < kFramesAtOnce; ++i) {
      if (begin + i >= frames) break;
      const Vector<T, N> elements = elements_of<T, N>(values[i]);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const float value = to_float(elements.at[k]);
        // NaN wins; the first frame always does.
        const bool better = ((value > best[k] || value != value) && best[k] == best[k]) || begin + i == 0;
        best[k] = better ? value : best[k];
        frame_of_best[k] = better ? begin + i : frame_of_best[k];
      }
    }
  }
  Vector<T, N> values;
  Vector<int16_t, N> indices;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    values.at[k] = from_float<T>(best[k]);
    indices.at[k] = int16_t(frame_of_best[k]);
  }
  const int64_t at = sequence * p.frame_size + element;
  store_chosen<N>(p.maximum + at, values);
  store_chosen<N>(p.index + at, indices);
}

// Frames of a thread of the backward kernel.
constexpr int kFramesWritten = 8;

template <class T, class G>
struct SpreadParameters {
  T* gx;
  const G* grad;
  const int16_t* index;
  const int32_t* ends;
  const int32_t* sequence_of_frame;
  int64_t frame_size;
  int frames;
  int blocks;  // of a frame
};

// A thread writes N neighbouring channels of up to 8 frames; the gradient and the index stay in registers while the
// sequence is the same. Bytes: gx written, and about a third to a half as much read from caches.
template <class T, class G, int N>
HSTL_KERNEL(kThreads, 4)
maximum_backward(const __grid_constant__ SpreadParameters<T, G> p) {
  const int stretch = blockIdx.x / p.blocks;
  const int64_t element = (int64_t(blockIdx.x - stretch * p.blocks) * kThreads + threadIdx.x) * N;
  if (element >= p.frame_size) return;
  const int first = stretch * kFramesWritten, end = min(first + kFramesWritten, p.frames);
  int held = -1;
  float grad[N] = {};
  Vector<int16_t, N> index = {};
  for (int frame = first; frame < end; ++frame) {
    const int sequence = __ldg(p.sequence_of_frame + frame), within = frame - __ldg(p.ends + 2 * int64_t(frame));
    if (sequence != held) {
      const int64_t at = sequence * p.frame_size + element;
      load_floats(grad, p.grad + at, N, true);
      index = load_vector<N>(p.index + at);
      held = sequence;
    }
    Vector<T, N> gx;
#pragma unroll
    for (int k = 0; k < N; ++k) gx.at[k] = from_float<T>(index.at[k] == within ? grad[k] : 0.f);
    store_chosen<N>(p.gx + frame * p.frame_size + element, gx);
  }
}

// Elements of a thread of the adding kernel.
constexpr int kAdded = 4;

template <class T, class G>
struct AddParameters {
  T* gx;
  const G* grad;
  const int16_t* index;
  const int32_t* starts;
  int64_t frame_size;
  int blocks;  // of a sequence
};

// Neighbouring threads add to neighbouring channels, whose frames often agree. Bytes: gx read and written at one frame
// of each sequence, in sectors of 32 bytes that may hold a single element of its own.
template <class T, class G>
HSTL_KERNEL(kThreads, 4)
maximum_backward_add(const __grid_constant__ AddParameters<T, G> p) {
  const int sequence = blockIdx.x / p.blocks;
  const int first = __ldg(p.starts + sequence);
  if (__ldg(p.starts + sequence + 1) == first) return;
  const int64_t element = int64_t(blockIdx.x - sequence * p.blocks) * kThreads * kAdded + threadIdx.x;
  const int64_t at = sequence * p.frame_size + element;
  T* place[kAdded];
  float grad[kAdded], gx[kAdded];
#pragma unroll
  for (int i = 0; i < kAdded; ++i) {
    if (element + i * kThreads >= p.frame_size) continue;
    grad[i] = to_float(p.grad[at + i * kThreads]);
    place[i] = p.gx + (first + p.index[at + i * kThreads]) * p.frame_size + element + i * kThreads;
  }
#pragma unroll
  for (int i = 0; i < kAdded; ++i)
    if (element + i * kThreads < p.frame_size) gx[i] = to_float(*place[i]);
#pragma unroll
  for (int i = 0; i < kAdded; ++i)
    if (element + i * kThreads < p.frame_size) *place[i] = from_float<T>(gx[i] + grad[i]);
}

// Calls f with the tags of a map's gradient and of the maximum's, which is of the same type or float32.
template <class F>
void with_gradients(int type, int grad_type, F&& f) {
  if (grad_type != type && grad_type != kFloat32) no_such_type(grad_type);
  with_storage(type, [&](auto tag) {
    if (grad_type == type)
      f(tag, tag);
    else
      f(tag, Float32{});
  });
}

}  // namespace

void run(const FrameMaximum& a) {
  OnDevice on(a.device);
  with_storage(a.type, [&](auto tag) {
    using T = storage_of<decltype(tag)>;
    constexpr int kWidth = kVector<T>;
    const bool vectors = a.c % kWidth == 0 && vector_aligned(a.maximum, a.index, a.x);
    MaximumParameters<T> p{static_cast<T*>(a.maximum),
                           a.index,
                           static_cast<const T*>(a.x),
                           a.support,
                           a.starts,
                           a.h * a.w * a.c,
                           a.h * a.w,
                           int(a.c),
                           0};
    p.blocks = int(blocks_for(p.frame_size, int64_t(kThreads) * (vectors ? kWidth : 1)));
    launch("frame_maximum", vectors ? maximum<T, kWidth> : maximum<T, 1>, grid_of(a.sequences * p.blocks), kThreads, 0,
           a.stream, p);
  });
}

void run(const FrameMaximumBackward& a) {
  OnDevice on(a.device);
  with_gradients(a.type, a.grad_type, [&](auto tag, auto grad_tag) {
    using T = storage_of<decltype(tag)>;
    using G = storage_of<decltype(grad_tag)>;
    constexpr int kWidth = kVector<T>;
    SpreadParameters<T, G> p{static_cast<T*>(a.gx),
                             static_cast<const G*>(a.grad),
                             a.index,
                             a.ends,
                             a.sequence_of_frame,
                             a.h * a.w * a.c,
                             int(a.frames),
                             0};
    const bool vectors = p.frame_size % kWidth == 0 && vector_aligned(a.gx, a.grad, a.index);
    p.blocks = int(blocks_for(p.frame_size, int64_t(kThreads) * (vectors ? kWidth : 1)));
    launch("frame_maximum_backward", vectors ? maximum_backward<T, G, kWidth> : maximum_backward<T, G, 1>,
           grid_of(blocks_for(a.frames, kFramesWritten) * p.blocks), kThreads, 0, a.stream, p);
  });
}

void run(const FrameMaximumBackwardAdd& a) {
  OnDevice on(a.device);
  with_gradients(a.type, a.grad_type, [&](auto tag, auto grad_tag) {
    using T = storage_of<decltype(tag)>;
    using G = storage_of<decltype(grad_tag)>;
    AddParameters<T, G> p{static_cast<T*>(a.gx), static_cast<const G*>(a.grad), a.index, a.starts, a.h * a.w * a.c, 0};
    p.blocks = int(blocks_for(p.frame_size, kThreads * kAdded));
    launch("frame_maximum_backward_add", maximum_backward_add<T, G>, grid_of(a.sequences * p.blocks), kThreads, 0,
           a.stream, p);
  });
}

}  // namespace hstl
