// The transforms of arme's Winograd wgrad, one tile and vector of channels at a time: inputs [N + 2, 6, 6] and
// gradients [N, 4, 4] to 6 x 6 x (N + 2) frequencies, or to some rows of them, and products at frequencies back to 27
// taps.
#pragma once

#include "arme.h"
#include "arme_winograd_tiles.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// The rows of frequencies whose products are computed at once. What the others need is dead code.
template <int... R>
struct RowSet {
  static constexpr int count = sizeof...(R);

  static HSTL_INLINE void input(Floats* v, const Floats* d) {
    Floats all[kFrequencies];
    Transform<kSide>::input(all, d);
    int i = 0;
    ((v[i++] = all[R]), ...);
  }
  static HSTL_INLINE void gradient(Floats* v, const Floats* g) {
    Floats all[kFrequencies];
    Transform<kSide>::gradient(all, g);
    int i = 0;
    ((v[i++] = all[R]), ...);
  }
  static HSTL_INLINE void weights_back(Floats* w, const Floats* m) {
    Floats all[kFrequencies] = {};
    int i = 0;
    ((all[R] = m[i++]), ...);
    Transform<kSide>::weights_back(w, all);
  }
};

using AllRows = RowSet<0, 1, 2, 3, 4, 5>;

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

// Transforms a vector of channels of a tile's inputs. Cycles: about 6 for every frequency, for the multiplier (20 FLOPs
// a lane) as for the stores (3, of 2 cycles each); without fetching ahead, waiting for the positions takes as long
// again.
template <int N, class Rows>
void transform_input(float* to, int64_t distance, const InputPositions<N>& from, int64_t channel) {
  Floats v[Rows::count][kFrequencies][N + 2];
  for (int t = 0; t < N + 2; ++t)
#pragma GCC unroll 1
    for (int j = 0; j < kFrequencies; ++j) {
      Floats d[kFrequencies], rows[Rows::count];
#pragma GCC unroll 6
      for (int i = 0; i < kFrequencies; ++i) d[i] = load(from.at[t][i][j] + channel);
      Rows::input(rows, d);
#pragma GCC unroll 6
      for (int r = 0; r < Rows::count; ++r) v[r][j][t] = rows[r];
    }
#pragma GCC unroll 1
  for (int r = 0; r < Rows::count; ++r) {
#pragma GCC unroll 1
    for (int t = 0; t < N + 2; ++t) {
      Floats d[kFrequencies], cols[kFrequencies];
#pragma GCC unroll 6
      for (int j = 0; j < kFrequencies; ++j) d[j] = v[r][j][t];
      Transform<kSide>::input(cols, d);
#pragma GCC unroll 6
      for (int j = 0; j < kFrequencies; ++j) v[r][j][t] = cols[j];
    }
#pragma GCC unroll 1
    for (int j = 0; j < kFrequencies; ++j) {
      Floats times[N + 2];
      Transform<N>::input(times, v[r][j]);
#pragma GCC unroll 7
      for (int t = 0; t < N + 2; ++t, to += distance) store(to, times[t]);
    }
  }
}

template <int N, class Rows>
void transform_gradient(float* to, int64_t distance, const GradientPositions<N>& from, int64_t channel,
                        float negative_slope) {
  Floats v[Rows::count][kFrequencies][N];
  for (int t = 0; t < N; ++t)
#pragma GCC unroll 1
    for (int j = 0; j < kSide; ++j) {
      Floats g[kSide], rows[Rows::count];
#pragma GCC unroll 4
      for (int i = 0; i < kSide; ++i) {
        Floats value = load(from.gradient[t][i][j] + channel);
        g[i] = load(from.output[t][i][j] + channel) > Floats{} ? value : value * negative_slope;
      }
      Rows::gradient(rows, g);
#pragma GCC unroll 6
      for (int r = 0; r < Rows::count; ++r) v[r][j][t] = rows[r];
    }
#pragma GCC unroll 1
  for (int r = 0; r < Rows::count; ++r) {
#pragma GCC unroll 1
    for (int t = 0; t < N; ++t) {
      Floats g[kSide], cols[kFrequencies];
#pragma GCC unroll 4
      for (int j = 0; j < kSide; ++j) g[j] = v[r][j][t];
      Transform<kSide>::gradient(cols, g);
#pragma GCC unroll 6
      for (int j = 0; j < kFrequencies; ++j) v[r][j][t] = cols[j];
    }
#pragma GCC unroll 1
    for (int j = 0; j < kFrequencies; ++j) {
      Floats times[N + 2];
      Transform<N>::gradient(times, v[r][j]);
#pragma GCC unroll 7
      for (int t = 0; t < N + 2; ++t, to += distance) store(to, times[t]);
    }
  }
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
