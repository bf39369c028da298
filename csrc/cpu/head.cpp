// The head: a fully connected layer for every part, then batch norm with fixed statistics, of vectors [N, parts, c_in]
// -> [N, parts, c_out].
#include "operators.h"
#include "parallel.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Sequences that are computed together, and vectors of outputs with so many sequences or with one.
constexpr int kRows = 4;
constexpr int kVectors = 4;
constexpr int kVectorsOfOne = kVectorRegisters == 32 ? 16 : 8;
// Terms summed in a row before their sum is added to the total: keeps float32's rounding small.
constexpr int64_t kSummed = 32;
// Weights are asked for so many bytes before they are needed.
constexpr int64_t kAhead = 8 << 10;

template <class T>
struct Part {
  T* y;        // of the first sequence
  const T* x;  // of the first sequence
  const T* w;  // [c_in, c_out] of the part
  int64_t y_stride, x_stride, c_in, c_out;
};

// y [c_out] in place.
template <class T>
void normalise(T* y, const Head<T>& norm, int64_t c_out) {
  for (int64_t o = 0; o < c_out; ++o) {
    T scale = T(1) / T(__builtin_sqrt(norm.running_var[o] + norm.eps)) * norm.weight[o];
    y[o] = (y[o] - norm.running_mean[o]) * scale + norm.bias[o];
  }
}

// Adds up terms k of R sequences and V vectors of outputs from `o` on. FLOPs: 2 * R * V * lanes a term. Bytes: V *
// sizeof(Vec<T>) of weights, which are the cost where there are few sequences. Registers: R * V sums, a weight, an
// input.
template <int R, int V, class T>
void add_terms(const Part<T>& part, int64_t o, Range k) {
  Vec<T> sums[R][V] = {};
  const int64_t valid = part.c_out - o;
  for (int64_t i = k.begin; i < k.end; ++i) {
    const T* w = part.w + i * part.c_out + o;
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      __builtin_prefetch(reinterpret_cast<const char*>(w + v * lanes<T>) + kAhead, 0, 2);
      Vec<T> weights = load_some(w + v * lanes<T>, valid - v * lanes<T>);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[r][v] += weights * part.x[r * part.x_stride + i];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      T* y = part.y + r * part.y_stride + o + v * lanes<T>;
      Vec<T> before = k.begin ? load_some(y, valid - v * lanes<T>) : Vec<T>{};
      store_some(y, before + sums[r][v], valid - v * lanes<T>);
    }
}

// The weights are read in the order in which they lie.
template <int R, class T>
void head_rows(const Part<T>& part, const Head<T>& norm) {
  constexpr int V = R == 1 ? kVectorsOfOne : kVectors;
  for (int64_t first = 0; first < part.c_in; first += kSummed) {
    Range k = {first, smaller(first + kSummed, part.c_in)};
    int64_t o = 0;
    for (; o + V * lanes<T> <= part.c_out; o += V * lanes<T>) add_terms<R, V>(part, o, k);
    for (; o + kVectors * lanes<T> <= part.c_out; o += kVectors * lanes<T>) add_terms<R, kVectors>(part, o, k);
    for (; o < part.c_out; o += lanes<T>) add_terms<R, 1>(part, o, k);
  }
  for (int r = 0; r < R; ++r) normalise(part.y + r * part.y_stride, norm, part.c_out);
}

// The outputs of a part for all sequences.
template <class T>
void compute_part(const Head<T>& a, int64_t p) {
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
}

// A thread takes some parts in a row, so that what it asks for ahead is mostly its own.
template <class T>
void head(const Head<T>& a) {
  const int threads = usable_threads(a.threads);
  int64_t chunks = smaller(a.parts, 4 * threads);
  parallel_for(threads, chunks, [&](int64_t i, int) {
    Range mine = chunk_of(a.parts, chunks, i);
    for (int64_t p = mine.begin; p < mine.end; ++p) compute_part(a, p);
  });
}

}  // namespace

void fill_head(Tables& tables) {
  tables.float32.head = head<float>;
  tables.float64.head = head<double>;
}

}  // namespace HSTL_ISA
}  // namespace hstl
