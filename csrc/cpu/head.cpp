// The head: a fully connected layer for every part, then batch norm with fixed statistics, of vectors [N, parts, c_in]
// -> [N, parts, c_out].
#include "operators.h"
#include "parallel.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Sequences and vectors of outputs that are computed together.
constexpr int kRows = 4;
constexpr int kVectors = 4;
// Terms summed in a row before their sum is added to the total: keeps float32's rounding small.
constexpr int64_t kSummed = 32;

template <class T>
struct Part {
  T* y;        // of the first sequence
  const T* x;  // of the first sequence
  const T* w;  // [c_in, c_out] of the part
  int64_t y_stride, x_stride, c_in, c_out;
};

template <class T>
Vec<T> normalise(Vec<T> y, const Head<T>& norm, int64_t o, int64_t valid) {
  Vec<T> scale = load_some(norm.running_var + o, valid) + norm.eps;
  for (int i = 0; i < lanes<T>; ++i) scale[i] = T(1) / T(__builtin_sqrt(scale[i]));
  scale *= load_some(norm.weight + o, valid);
  return (y - load_some(norm.running_mean + o, valid)) * scale + load_some(norm.bias + o, valid);
}

// R sequences and V vectors of outputs from `o` on. FLOPs: 2 * c_in * R * V * lanes. Bytes: c_in * V * sizeof(Vec<T>)
// of weights, which are the cost where there are few sequences. Registers: R * V sums, V weights, 1 input.
template <int R, int V, class T>
void head_tile(const Part<T>& part, const Head<T>& norm, int64_t o) {
  Vec<T> totals[R][V] = {};
  for (int64_t first = 0; first < part.c_in; first += kSummed) {
    Vec<T> sums[R][V] = {};
    for (int64_t k = first; k < smaller(first + kSummed, part.c_in); ++k) {
      const T* w = part.w + k * part.c_out + o;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        Vec<T> weights = load_some(w + v * lanes<T>, part.c_out - o - v * lanes<T>);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sums[r][v] += weights * part.x[r * part.x_stride + k];
      }
    }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) totals[r][v] += sums[r][v];
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      int64_t at = o + v * lanes<T>, valid = part.c_out - at;
      store_some(part.y + r * part.y_stride + at, normalise(totals[r][v], norm, at, valid), valid);
    }
}

template <int R, class T>
void head_rows(const Part<T>& part, const Head<T>& norm) {
  int64_t o = 0;
  for (; o + kVectors * lanes<T> <= part.c_out; o += kVectors * lanes<T>) head_tile<R, kVectors>(part, norm, o);
  for (; o < part.c_out; o += lanes<T>) head_tile<R, 1>(part, norm, o);
}

template <class T>
void head(const Head<T>& a) {
  parallel_for(usable_threads(a.threads), a.parts, [&](int64_t p, int) {
    Part<T> part = {a.y + p * a.c_out,
                    a.x + p * a.c_in,
                    a.fc + p * a.c_in * a.c_out,
                    a.parts * a.c_out,
                    a.parts * a.c_in,
                    a.c_in,
                    a.c_out};
    int64_t left = a.n;
    auto next = [&](int64_t rows) {
      part.y += rows * part.y_stride;
      part.x += rows * part.x_stride;
      left -= rows;
    };
    for (; left >= kRows; next(kRows)) head_rows<kRows>(part, a);
    for (; left > 0; next(1)) head_rows<1>(part, a);
  });
}

}  // namespace

void fill_head(Tables& tables) {
  tables.float32.head = head<float>;
  tables.float64.head = head<double>;
}

}  // namespace HSTL_ISA
}  // namespace hstl
