// The transforms of arme's Winograd wgrad, one tile and vector of channels at a time: inputs [N + 2, 6, 6] and
// gradients [N, 4, 4] to 6 x 6 x (N + 2) frequencies, or to some rows of them, and products at frequencies back to 27
// taps.
#pragma once

#include "arme.h"
#include "arme_winograd_tiles.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Two rows of frequencies, which are transformed together. What the others need is dead code.
template <int First, int Second>
struct RowPair {
  static HSTL_INLINE void input(Floats* pair, const Floats* d) {
    Floats all[kFrequencies];
    Transform<kSide>::input(all, d);
    pair[0] = all[First];
    pair[1] = all[Second];
  }
  static HSTL_INLINE void gradient(Floats* pair, const Floats* g) {
    Floats all[kFrequencies];
    Transform<kSide>::gradient(all, g);
    pair[0] = all[First];
    pair[1] = all[Second];
  }
};

// The rows of frequencies whose products are computed at once, an even number of them, in this order.
template <int... R>
struct RowSet {
  static constexpr int count = sizeof...(R);

  static HSTL_INLINE void weights_back(Floats* w, const Floats* m) {
    Floats all[kFrequencies] = {};
    int i = 0;
    ((all[R] = m[i++]), ...);
    Transform<kSide>::weights_back(w, all);
  }
};

// Those that share their products are neighbours.
using AllRows = RowSet<0, 5, 1, 2, 3, 4>;

// Positions of a tile's gradients and of the outputs of the activation that they go back through.
template <int N>
struct GradientPositions {
  const float* gradient[N][kSide][kSide];
  const float* output[N][kSide][kSide];
};

struct GradientMap {
  const float* gy;         // [F, H, W, channels]
  const float* y;          // [F, H, W, channels]
  const uint8_t* support;  // [F, H, W] or null
  const float* zeros;      // [channels]
  int64_t channels, height, width;
  float negative_slope;

  bool is_activated() const { return negative_slope == 1; }
};

template <int N>
void find_gradients(GradientPositions<N>& positions, const TimeTile& time, const Tile& tile, Range region,
                    const GradientMap& map) {
  for (int t = 0; t < N; ++t)
    for (int i = 0; i < kSide; ++i) {
      int64_t row = tile.row + i, frame = time.outputs[t];
      bool outside = frame < 0 || row >= region.end;
      int64_t first = (frame * map.height + row) * map.width + tile.col;
      for (int j = 0; j < kSide; ++j) {
        bool zero = outside || tile.col + j >= map.width || (map.support && !map.support[first + j]);
        int64_t at = (first + j) * map.channels;
        positions.gradient[t][i][j] = zero ? map.zeros : map.gy + at;
        positions.output[t][i][j] = zero ? map.zeros : map.y + at;
      }
    }
}

// The last channels of some positions, fewer than a vector, filled up with zeros.
template <int Count>
struct Tail {
  float values[Count][kLanes];

  void fill(const float** at, int64_t channel, int64_t valid) {
    for (int p = 0; p < Count; ++p) {
      store(values[p], load_some(at[p] + channel, valid));
      at[p] = values[p];
    }
  }
};

// Transforms a vector of channels of a tile's inputs, a pair of rows at a time: what comes of a frame's rows stays in
// registers, and what waits for the transform in time (5 KiB) in the first-level cache beside the positions (16 KiB),
// which are read three times. Cycles for every frequency: 4 for 2 stores, 4 for loads, 6 for the multiplier.
template <int N, class Pair>
void transform_input_pair(float* to, int64_t distance, const InputPositions<N>& from, int64_t channel) {
  Floats frames[2][kFrequencies][N + 2];
#pragma GCC unroll 1
  for (int t = 0; t < N + 2; ++t) {
    Floats rows[kFrequencies][2];
#pragma GCC unroll 6
    for (int j = 0; j < kFrequencies; ++j) {
      Floats d[kFrequencies];
#pragma GCC unroll 6
      for (int i = 0; i < kFrequencies; ++i) d[i] = load(from.at[t][i][j] + channel);
      Pair::input(rows[j], d);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      Floats d[kFrequencies], cols[kFrequencies];
#pragma GCC unroll 6
      for (int j = 0; j < kFrequencies; ++j) d[j] = rows[j][i];
      Transform<kSide>::input(cols, d);
#pragma GCC unroll 6
      for (int j = 0; j < kFrequencies; ++j) frames[i][j][t] = cols[j];
    }
  }
#pragma GCC unroll 1
  for (int i = 0; i < 2; ++i)
#pragma GCC unroll 1
    for (int j = 0; j < kFrequencies; ++j) {
      Floats times[N + 2];
      Transform<N>::input(times, frames[i][j]);
#pragma GCC unroll 7
      for (int t = 0; t < N + 2; ++t, to += distance) store(to, times[t]);
    }
}

template <int N, int First, int Second, int... Others>
void transform_input(RowSet<First, Second, Others...>, float* to, int64_t distance, const InputPositions<N>& from,
                     int64_t channel) {
  transform_input_pair<N, RowPair<First, Second>>(to, distance, from, channel);
  if constexpr (sizeof...(Others) > 0)
    transform_input<N>(RowSet<Others...>(), to + 2 * kFrequencies * (N + 2) * distance, distance, from, channel);
}

// Loads a vector of the gradient at a position, through LeakyReLU unless that was done before.
template <int N, bool Activated>
HSTL_INLINE Floats load_gradient(const GradientPositions<N>& from, int t, int i, int j, int64_t channel,
                                 float negative_slope) {
  Floats value = load(from.gradient[t][i][j] + channel);
  if constexpr (Activated) return value;
  return load(from.output[t][i][j] + channel) > Floats{} ? value : value * negative_slope;
}

template <int N, class Pair, bool Activated>
void transform_gradient_pair(float* to, int64_t distance, const GradientPositions<N>& from, int64_t channel,
                             float negative_slope) {
  Floats frames[2][kFrequencies][N];
#pragma GCC unroll 1
  for (int t = 0; t < N; ++t) {
    Floats rows[kSide][2];
#pragma GCC unroll 4
    for (int j = 0; j < kSide; ++j) {
      Floats g[kSide];
#pragma GCC unroll 4
      for (int i = 0; i < kSide; ++i) g[i] = load_gradient<N, Activated>(from, t, i, j, channel, negative_slope);
      Pair::gradient(rows[j], g);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      Floats g[kSide], cols[kFrequencies];
#pragma GCC unroll 4
      for (int j = 0; j < kSide; ++j) g[j] = rows[j][i];
      Transform<kSide>::gradient(cols, g);
#pragma GCC unroll 6
      for (int j = 0; j < kFrequencies; ++j) frames[i][j][t] = cols[j];
    }
  }
#pragma GCC unroll 1
  for (int i = 0; i < 2; ++i)
#pragma GCC unroll 1
    for (int j = 0; j < kFrequencies; ++j) {
      Floats times[N + 2];
      Transform<N>::gradient(times, frames[i][j]);
#pragma GCC unroll 7
      for (int t = 0; t < N + 2; ++t, to += distance) store(to, times[t]);
    }
}

template <int N, bool Activated, int First, int Second, int... Others>
void transform_gradient(RowSet<First, Second, Others...>, float* to, int64_t distance, const GradientPositions<N>& from,
                        int64_t channel, float negative_slope) {
  transform_gradient_pair<N, RowPair<First, Second>, Activated>(to, distance, from, channel, negative_slope);
  if constexpr (sizeof...(Others) > 0)
    transform_gradient<N, Activated>(RowSet<Others...>(), to + 2 * kFrequencies * (N + 2) * distance, distance, from,
                                     channel, negative_slope);
}

// Adds one vector of output channels of one input channel to w [27][kOut].
template <int N, class Rows>
void transform_back(float* w, const float* from, int64_t from_stride, const float* m, int64_t distance) {
  Floats cols[Rows::count][3][N + 2], times[3][3][Rows::count];  // [column][frame][row]
#pragma GCC unroll 1
  for (int r = 0; r < Rows::count; ++r) {
#pragma GCC unroll 1
    for (int t = 0; t < N + 2; ++t) {
      Floats d[kFrequencies], out[3];
#pragma GCC unroll 6
      for (int j = 0; j < kFrequencies; ++j) {
        const float* at = m + ((r * kFrequencies + j) * (N + 2) + t) * distance;
        d[j] = load(at);
        __builtin_prefetch(at + kOut<float>);
      }
      Transform<kSide>::weights_back(out, d);
      for (int j = 0; j < 3; ++j) cols[r][j][t] = out[j];
    }
    for (int j = 0; j < 3; ++j) {
      Floats out[3];
      Transform<N>::weights_back(out, cols[r][j]);
      for (int t = 0; t < 3; ++t) times[j][t][r] = out[t];
    }
  }
  for (int t = 0; t < 3; ++t)
    for (int j = 0; j < 3; ++j) {
      Floats out[3];
      Rows::weights_back(out, times[j][t]);
      for (int i = 0; i < 3; ++i) {
        int64_t tap = (t * 3 + i) * 3 + j;
        store(w + tap * kOut<float>, load(from + tap * from_stride) + out[i]);
      }
    }
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
