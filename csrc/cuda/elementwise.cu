// The gradient of LeakyReLU, element by element.
#include "launch.cuh"
#include "operators.h"
#include "types.cuh"
#include "vector.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 256;
// Vectors of a thread, all of them on their way at once.
constexpr int kVectors = 4;

template <class T>
struct LeakyParameters {
  T* grad;
  const T* y;
  int64_t size;
  float slope;
};

// Bytes: two maps read, one written; the memory's bandwidth bounds it. A thread has 4 x 16 bytes of each in flight.
template <class T, int N>
HSTL_KERNEL(kThreads, 3)
leaky(const __grid_constant__ LeakyParameters<T> p) {
  const int64_t first = (int64_t(blockIdx.x) * kVectors * kThreads + threadIdx.x) * N;
  Vector<T, N> grad[kVectors], y[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int64_t at = first + i * kThreads * N;
    if (at >= p.size) continue;
    grad[i] = load_vector<N>(p.grad + at);
    y[i] = load_vector<N>(p.y + at);
  }
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int64_t at = first + i * kThreads * N;
    if (at >= p.size) continue;
#pragma unroll
    for (int k = 0; k < N; ++k)
      if (!(to_float(y[i].at[k]) > 0.f)) grad[i].at[k] = from_float<T>(to_float(grad[i].at[k]) * p.slope);
    store_vector<N>(p.grad + at, grad[i]);
  }
}

}  // namespace

void run(const LeakyBackward& a) {
  OnDevice on(a.device);
  with_storage(a.type, [&](auto tag) {
    using T = storage_of<decltype(tag)>;
    auto enqueue = [&](auto* kernel, int64_t from, int64_t to, int width) {
      LeakyParameters<T> p{static_cast<T*>(a.grad) + from, static_cast<const T*>(a.y) + from, to - from,
                           a.negative_slope};
      launch("leaky_backward", kernel, grid_of(blocks_for(p.size, int64_t(width) * kVectors * kThreads)), kThreads, 0,
             a.stream, p);
    };
    constexpr int kWidth = kVector<T>;
    const int64_t whole = vector_aligned(a.grad, a.y) ? a.size / kWidth * kWidth : 0;
    enqueue(leaky<T, kWidth>, 0, whole, kWidth);
    enqueue(leaky<T, 1>, whole, a.size, 1);
  });
}

}  // namespace hstl
