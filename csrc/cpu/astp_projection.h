// astp's 1x1 convolution: a matrix, applied to rows of channels. A tile of positions and one vector of output channels
// is accumulated in registers.
#pragma once

#include "../shapes.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Positions whose projections stand in registers together, one vector of output channels each.
constexpr int kTile = kVectorRegisters == 32 ? 14 : 12;

// A matrix [outputs, inputs], stored as panels [blocks of lanes][inputs][lanes], applied to rows of `inputs` numbers.
template <class T>
struct Projection {
  const T* panels;  // null: the identity
  int64_t inputs, outputs;

  int64_t blocks() const { return ceil_div(outputs, lanes<T>); }
  int64_t valid(int64_t block) const { return outputs - block * lanes<T>; }
};

template <class T>
int64_t panels_size(int64_t inputs, int64_t outputs) {
  return round_up(outputs, lanes<T>) * inputs;
}

// Element (o, k) of the matrix is w[o * output_stride + k * input_stride].
template <class T>
void copy_panels(T* panels, const T* w, int64_t inputs, int64_t outputs, int64_t input_stride, int64_t output_stride) {
  for (int64_t first = 0; first < outputs; first += lanes<T>, panels += inputs * lanes<T>)
    for (int64_t i = 0; i < lanes<T>; ++i) {
      const T* from = w + (first + i) * output_stride;
      for (int64_t k = 0; k < inputs; ++k)
        panels[k * lanes<T> + i] = first + i < outputs ? from[k * input_stride] : T(0);
    }
}

// Positions of a map: rows of channels, `stride` apart.
template <class T>
struct Rows {
  const T* data;
  int64_t stride, count;
};

// Where projections go: `stride` apart, the first `valid` channels of a block.
template <class T>
struct Destination {
  T* data;
  int64_t stride, valid;
};

// FLOPs: 2 * inputs * P * lanes. Per input one vector load of weights (from L1 or L2) and P broadcasts; registers: P
// sums, 1 weight, 1 input.
template <int P, class T>
void project_tile(const Destination<T>& to, const Projection<T>& projection, int64_t block, const Rows<T>& rows) {
  const T *w = projection.panels + block * projection.inputs * lanes<T>, *x = rows.data;
  const int64_t stride = rows.stride;
  Vec<T> u[P] = {};
  for (int64_t k = 0; k < projection.inputs; ++k, w += lanes<T>, ++x) {
    Vec<T> weights = load(w);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) u[p] += weights * x[p * stride];
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) store_some(to.data + p * to.stride, u[p], to.valid);
}

template <class T>
using TileKernel = void (*)(const Destination<T>&, const Projection<T>&, int64_t, const Rows<T>&);

template <class T, int P = kTile>
TileKernel<T> tile_of(int64_t positions) {
  if constexpr (P == 1) {
    return project_tile<1, T>;
  } else {
    return positions == P ? project_tile<P, T> : tile_of<T, P - 1>(positions);
  }
}

// One block of outputs at all rows, in tiles as few and as equal as they can be.
template <class T>
void project(const Destination<T>& to, const Projection<T>& projection, int64_t block, const Rows<T>& rows) {
  if (!projection.panels) {
    const T* x = rows.data + block * lanes<T>;
    for (int64_t q = 0; q < rows.count; ++q)
      store_some(to.data + q * to.stride, load_some(x + q * rows.stride, projection.valid(block)), to.valid);
    return;
  }
  int64_t tiles = ceil_div(rows.count, kTile);
  for (int64_t i = 0; i < tiles; ++i) {
    Range mine = chunk_of(rows.count, tiles, i);
    Rows<T> some = {rows.data + mine.begin * rows.stride, rows.stride, mine.size()};
    tile_of<T>(some.count)({to.data + mine.begin * to.stride, to.stride, to.valid}, projection, block, some);
  }
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
