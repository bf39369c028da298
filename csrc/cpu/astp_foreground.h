// astp's maxima [N, H, W, c_in] without the background, which is 0 in all channels and most of a map, and the products
// of the backward pass over them.
#pragma once

#include "../shapes.h"
#include "astp_projection.h"
#include "parallel.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Terms summed in a row before their sum is added to the total: keeps float32's rounding small.
constexpr int64_t kSummed = 64;
// The tile of the projection's gradient: inputs x 2 vectors of outputs.
constexpr int kInputs = kVectorRegisters == 32 ? 8 : 4;

template <class T>
bool is_zero(const T* row, int64_t channels) {
  if (row[0] != 0) return false;
  IntVec<T> set = {};
  for (int64_t k = 0; k < channels; k += lanes<T>) set |= load_some(row + k, channels - k) != T(0);
  return !any<T>(set);
}

// The maxima of a sequence that are not 0 in all channels, one after another. The others have gradients and products of
// 0, and the same projection: only their number counts.
template <class T>
struct Foreground {
  const T* rows;       // [firsts[m]][c_in]
  int32_t* positions;  // [firsts[m]] of the map
  int64_t* firsts;     // [m + 1] of each region's rows

  int64_t count(const Shape& s) const { return firsts[s.regions]; }
};

template <class T>
void find_foreground(int32_t* positions, int64_t* firsts, const T* maximum, int64_t c_in, const Shape& s) {
  int64_t count = 0, position = 0, end = 0;
  for (int64_t r = 0; r < s.regions; ++r) {
    firsts[r] = count;
    for (end += s.split[r] * s.width; position < end; ++position) {
      positions[count] = int32_t(position);
      count += !is_zero(maximum + position * c_in, c_in);
    }
  }
  firsts[s.regions] = count;
}

// Rows of foreground to their positions, in place: from the last on, since none stands behind its position.
template <class T>
void spread_rows(T* map, const Foreground<T>& found, int64_t c, const Shape& s) {
  int64_t positions = rows_of(s) * s.width, k = found.count(s);
  if (k == positions) return;
  for (int64_t q = positions - 1; q >= 0; --q) {
    bool inside = k > 0 && found.positions[k - 1] == q;
    if (!inside) __builtin_memset(map + q * c, 0, c * sizeof(T));
    if (inside && --k != q) __builtin_memcpy(map + q * c, map + k * c, c * sizeof(T));
  }
}

// Sequences whose gradients go back together: their foreground, and the gradients of its projections.
template <class T>
struct Group {
  Foreground<T> first;
  T* gmaximum;  // [count][H][W][c_in], foreground first until it is spread
  T* gu;        // [count][H][W][stride], foreground first
  int64_t stride;
  int64_t count, map, c_in;

  int64_t rows(int64_t n, const Shape& s) const { return first.firsts[n * (s.regions + 1) + s.regions]; }

  // That of a sequence, which is all of its maxima or was gathered.
  Foreground<T> foreground(int64_t n, const T* maximum, const Shape& s) const {
    return {(rows(n, s) == map ? maximum : gmaximum) + n * map * c_in, first.positions + n * map,
            first.firsts + n * (s.regions + 1)};
  }
};

// Finds the foregrounds, and gathers their rows where gmaximum will be.
template <class T>
void gather_foregrounds(const Group<T>& group, const T* maximum, const Shape& s) {
  parallel_for(s.threads, group.count, [&](int64_t n, int) {
    const T* rows = maximum + n * group.map * group.c_in;
    find_foreground(group.first.positions + n * group.map, group.first.firsts + n * (s.regions + 1), rows, group.c_in,
                    s);
    Foreground<T> found = group.foreground(n, maximum, s);
    T* to = group.gmaximum + n * group.map * group.c_in;
    for (int64_t k = 0; found.rows == to && k < found.count(s); ++k)
      __builtin_memcpy(to + k * group.c_in, rows + found.positions[k] * group.c_in, group.c_in * sizeof(T));
  });
}

// totals [J][padded] += maximum^T gu over at most kSummed positions: J inputs and two vectors of outputs.
// FLOPs: 4 J lanes per position, with J broadcasts and 2 vector loads from L1 or L2. Registers: 2 J sums, 2 vectors of
// gu, 1 input.
template <int J, class T>
void add_products(T* totals, const T* maximum, int64_t c_in, const T* gu, int64_t padded, int64_t positions) {
  Vec<T> sums[J][2] = {};
  for (int64_t q = 0; q < positions; ++q, maximum += c_in, gu += padded) {
    Vec<T> g0 = load(gu), g1 = load(gu + lanes<T>);
#pragma GCC unroll 8
    for (int j = 0; j < J; ++j) {
      sums[j][0] += g0 * maximum[j];
      sums[j][1] += g1 * maximum[j];
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < J; ++j, totals += padded) {
    store(totals, load(totals) + sums[j][0]);
    store(totals + lanes<T>, load(totals + lanes<T>) + sums[j][1]);
  }
}

// gmaximum = proj^T gu.
template <class T>
void maximum_backward(const Group<T>& group, const Projection<T>& back, const Shape& s) {
  constexpr int64_t kRows = 4 * kTile;
  int64_t parts = ceil_div(group.map, kRows);
  parallel_for(s.threads, group.count * parts, [&](int64_t i, int) {
    int64_t n = i / parts, first = i % parts * kRows;
    int64_t count = group.rows(n, s) - first;
    Rows<T> rows = {group.gu + (n * group.map + first) * group.stride, group.stride, smaller(kRows, count)};
    T* to = group.gmaximum + (n * group.map + first) * group.c_in;
    for (int64_t block = 0; count > 0 && block < back.blocks(); ++block)
      project<T>({to + block * lanes<T>, back.outputs, back.valid(block)}, back, block, rows);
  });
}

// gproj [c_in][padded] += maximum^T gu of one tile over a few positions.
template <class T>
void add_tile(T* gproj, int64_t k, const Rows<T>& maximum, const T* gu, int64_t padded) {
  const int64_t c_in = maximum.stride;
  const T* x = maximum.data + k;
  T* totals = gproj + k * padded;
  if (k + kInputs <= c_in) return add_products<kInputs>(totals, x, c_in, gu, padded, maximum.count);
  for (; k < c_in; ++k, ++x, totals += padded) add_products<1>(totals, x, c_in, gu, padded, maximum.count);
}

// gproj [c_in][padded] += maximum^T gu: every chunk of its tiles walks over all positions, a few at a time, of one
// sequence after another.
template <class T>
void projection_backward(T* gproj, const Group<T>& group, const T* maximum, const Shape& s) {
  int64_t across = group.stride / (2 * lanes<T>), tiles = ceil_div(group.c_in, kInputs) * across;
  int64_t chunks = smaller(s.threads == 1 ? 1 : 4 * s.threads, tiles);
  parallel_for(s.threads, chunks, [&](int64_t i, int) {
    Range mine = chunk_of(tiles, chunks, i);
    for (int64_t n = 0; n < group.count; ++n) {
      Foreground<T> found = group.foreground(n, maximum, s);
      for (int64_t q = 0; q < found.count(s); q += kSummed)
        for (int64_t tile = mine.begin; tile < mine.end; ++tile) {
          int64_t first = tile % across * 2 * lanes<T>;
          Rows<T> rows = {found.rows + q * group.c_in, group.c_in, smaller(kSummed, found.count(s) - q)};
          add_tile(gproj + first, tile / across * kInputs, rows, group.gu + (n * group.map + q) * group.stride + first,
                   group.stride);
        }
    }
  });
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
