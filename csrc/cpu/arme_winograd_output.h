// Outputs of arme's Winograd tiles: products at 2 x 6 x (N + 2) frequencies of a pair -> [N, 4, 4] positions of a tile,
// written to the map, to its maximum over frames, and to its 2x2 maximum; and zeros where no tile is.
#pragma once

#include "arme_winograd.h"
#include "arme_winograd_maxima.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// The outputs of one frame of a tile that exist: those inside the support first, then the others, which are 0.
struct FrameOutputs {
  static constexpr int most = kSide * kSide;
  int inside, all;           // how many
  int tile[most];            // where each is among [row][column]
  int64_t at[most];          // in the map
  int64_t max_pooled[2][2];  // where 2 x 2 of them are in the max-pooled map; -1 outside it
};

template <int N>
struct OutputPositions {
  FrameOutputs frames[N];
  MaximumPositions<N> maxima;
};

struct OutputMap {
  float* data;             // [F, H, W, channels], or null where only the maximum is wanted
  float* maximum;          // [N, H, W, channels] or null
  float* max_pooled;       // [F, H / 2, W / 2, channels] or null
  const uint8_t* support;  // [F, H, W] or null
  int64_t channels, height, width;
  float slope;          // of LeakyReLU; 1: none
  bool leaves_outside;  // nothing is written outside the support

  int64_t frame_size() const { return height * width * channels; }
  // Whether zeros are written where no tile is.
  bool fills_gaps() const { return !leaves_outside && support && (data || max_pooled); }
  // Whether every vector of channels is whole and aligned.
  bool streams() const {
    uintptr_t addresses = reinterpret_cast<uintptr_t>(data) | reinterpret_cast<uintptr_t>(max_pooled);
    return channels % kLanes == 0 && addresses % HSTL_VECTOR_BYTES == 0;
  }
};

// Lists the outputs of a frame: those inside the support from the front, the others from the back.
inline void list_outputs(FrameOutputs& outputs, int64_t frame, const Tile& tile, Range region, const OutputMap& map) {
  int down = int(smaller(kSide, region.end - tile.row)), across = int(smaller(kSide, map.width - tile.col));
  int front = 0, back = down * across;
  outputs.all = back;
  for (int i = 0; i < down; ++i)
    for (int j = 0; j < across; ++j) {
      int64_t at = (frame * map.height + tile.row + i) * map.width + tile.col + j;
      // Selected without a branch, which would be mispredicted.
      bool inside = !map.support || map.support[at];
      int place = inside ? front : back - 1;
      front += inside;
      back -= !inside;
      outputs.tile[place] = i * kSide + j;
      outputs.at[place] = at * map.channels;
    }
  outputs.inside = front;
}

template <int N>
void find_outputs(OutputPositions<N>& positions, const TimeTile& time, const Tile& tile, Range region,
                  const OutputMap& map) {
  if (map.maximum) find_maximum_positions(positions.maxima, time, tile, region, map.height, map.width);
  for (int t = 0; t < N; ++t) {
    FrameOutputs& outputs = positions.frames[t];
    int64_t frame = time.outputs[t];
    outputs.all = outputs.inside = 0;
    if (frame >= 0) list_outputs(outputs, frame, tile, region, map);
    for (int i = 0; map.max_pooled && i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        int64_t row = tile.row + 2 * i, col = tile.col + 2 * j;
        bool exists = frame >= 0 && row < region.end && col < map.width;
        outputs.max_pooled[i][j] = exists ? ((frame * map.height + row) / 2 * map.width + col) / 2 * map.channels : -1;
      }
  }
}

// Adds a pair of the rows' products to a column of four outputs: A^T by rows. `sums` holds what the pairs before gave,
// a row of tiles apart; the last pair finishes the outputs.
template <int Pair>
HSTL_INLINE void add_rows(float* sums, Floats first, Floats second) {
  using P = Points<4>;
  constexpr int64_t row = kSide * kPanel;
  if constexpr (Pair == 0) {
    store(sums, first);
    store(sums + 3 * row, second);
  } else {
    Floats even = first + second, odd = (first - second) * P::a;
    store(sums, load(sums) + even);
    store(sums + row, odd);
    store(sums + 2 * row, even * squared(P::a));
    store(sums + 3 * row, load(sums + 3 * row) + odd * squared(P::a));
  }
}

// Destinations of a vector of channels of a tile's outputs: the map, the 2x2 maxima, this thread's frame maxima so far.
struct Destination {
  float *map, *max_pooled;  // or null
  MaximumDestination maximum;
  bool streams;         // to map and max_pooled
  bool leaves_outside;  // nothing is written to the map outside the support

  int64_t valid() const { return maximum.valid; }
};

// The last pair's: the outputs of a column, in place of the sums.
HSTL_INLINE void finish_rows(float* sums, Floats first, Floats second, float slope) {
  using P = Points<4>;
  Floats even = first + second, odd = (first - second) * P::b;
  Floats rows[kSide] = {even, odd, even * squared(P::b), odd * squared(P::b)};
#pragma GCC unroll 4
  for (int i = 0; i < kSide; ++i) {
    float* y = sums + i * kSide * kPanel;
    store(y, leaky<float>(load(y) + rows[i], slope));
  }
}

// A frame's outputs to the map; y is [4][4][kPanel].
HSTL_INLINE void put_map(const Destination& to, const FrameOutputs& outputs, const float* y) {
  int count = to.leaves_outside ? outputs.inside : outputs.all;
  if (to.streams) {
    for (int k = 0; k < count; ++k) stream(to.map + outputs.at[k], load(y + outputs.tile[k] * kPanel));
  } else {
    for (int k = 0; k < count; ++k) store_some(to.map + outputs.at[k], load(y + outputs.tile[k] * kPanel), to.valid());
  }
}

// The 2x2 maxima of one frame of a tile, [4][4][kPanel].
HSTL_INLINE void put_max_pooled(const Destination& to, const int64_t (&at)[2][2], const float* frame) {
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      if (at[i][j] < 0) continue;
      const float* upper = frame + (2 * i * kSide + 2 * j) * kPanel;
      const float* lower = upper + kSide * kPanel;
      Floats best = load(upper);
      const float* const others[] = {upper + kPanel, lower, lower + kPanel};
      for (const float* other : others) {
        best = maximum_of(load(other), best);
      }
      to.streams ? stream(to.max_pooled + at[i][j], best) : store_some(to.max_pooled + at[i][j], best, to.valid());
    }
}

// Writes a vector of channels of a frame's outputs, y [4][4][kPanel], which become 0 outside the support.
HSTL_INLINE void put(const Destination& to, const FrameOutputs& outputs, float* y) {
  for (int k = outputs.inside; k < outputs.all; ++k) store(y + outputs.tile[k] * kPanel, Floats{});
  if (to.map) put_map(to, outputs, y);
  if (to.max_pooled) put_max_pooled(to, outputs.max_pooled, y);
}

// Transforms a vector of channels of a tile's products of one pair: 12 transforms in time, then per frame two by
// columns and one by rows. `sums` is [N][4][4][kPanel].
template <int N, int Pair>
HSTL_INLINE void transform_output(float* sums, const OutputPositions<N>& positions, const float* products,
                                  const Destination& to, float slope) {
  Floats frames[N][2][kFrequencies];
  const bool has_maxima = Pair == 2 && to.maximum.maxima.values;
  if (has_maxima) prefetch_maxima(to.maximum, positions.maxima);
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < kFrequencies; ++j) {
      Floats m[N + 2], y[N];
#pragma GCC unroll 7
      for (int t = 0; t < N + 2; ++t, products += kBlock * kPanel) m[t] = load(products);
      Transform<N>::output(y, m);
#pragma GCC unroll 5
      for (int t = 0; t < N; ++t) frames[t][i][j] = y[t];
    }
  float* const tile = sums;
  for (int t = 0; t < N; ++t, sums += kSide * kSide * kPanel) {
    Floats first[kSide], second[kSide];
    Transform<4>::output(first, frames[t][0]);
    Transform<4>::output(second, frames[t][1]);
#pragma GCC unroll 4
    for (int j = 0; j < kSide; ++j) {
      if constexpr (Pair == 2) {
        finish_rows(sums + j * kPanel, first[j], second[j], slope);
      } else {
        add_rows<Pair>(sums + j * kPanel, first[j], second[j]);
      }
    }
    if (Pair == 2) put(to, positions.frames[t], sums);
  }
  if (has_maxima) put_maxima(to.maximum, positions.maxima, tile);
}

// Zeros at some rows and columns of a frame, and where they are in the max-pooled map.
inline void fill_gap(const OutputMap& map, int64_t frame, Range rows, Range columns) {
  auto fill = [&](float* data, int64_t position, int64_t count) {
    __builtin_memset(data + position * map.channels, 0, count * map.channels * sizeof(float));
  };
  for (int64_t h = rows.begin; h < rows.end; ++h) {
    int64_t row = frame * map.height + h;
    if (map.data) fill(map.data, row * map.width + columns.begin, columns.size());
    if (map.max_pooled && h % 2 == 0)
      fill(map.max_pooled, (row / 2 * map.width + columns.begin) / 2, columns.size() / 2);
  }
}

// Zeros at the outputs that no tile covers, for one time and all rows.
inline void fill_gaps(const Tiling& tiling, const Shape& s, const OutputMap& map, int64_t time) {
  for (int64_t r = 0; r < s.regions; ++r) {
    Range region = region_rows(s, r);
    for (int64_t row = region.begin; row < region.end; row += kSide) {
      Range rows = strip_of(row, region);
      auto fill = [&](int64_t begin, int64_t end) {
        for (int t = 0; t < tiling.frames; ++t)
          if (int64_t frame = tiling.times[time].outputs[t]; frame >= 0) fill_gap(map, frame, rows, {begin, end});
      };
      cover_strip(tiling, s, map.support, time, rows, [](int64_t) {}, fill);
    }
  }
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
