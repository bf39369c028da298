// The weights [m, c_out, c_in, 27] of arme in the Winograd domain, prepacked as forward and dgrad read them.
#include "arme_winograd.h"
#include "parallel.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Transforms a vector of output channels of one input channel. FLOPs: about 700 per lane for N = 5.
template <int N>
void transform_weights(float* to, const float* rows, int64_t pair_stride, int64_t product_stride) {
  Floats by_row[3][3][kFrequencies];  // [dt][dx][row]
  for (int dt = 0; dt < 3; ++dt)
    for (int dx = 0; dx < 3; ++dx) {
      Floats w[3];
      for (int dy = 0; dy < 3; ++dy) w[dy] = load(rows + ((dt * 3 + dy) * 3 + dx) * kPanel);
      Transform<4>::weights(by_row[dt][dx], w);
    }
  constexpr int order[kFrequencies] = {0, 2, 3, 4, 5, 1};  // of a row's frequency among [pair][2]
  for (int row = 0; row < kFrequencies; ++row) {
    Floats by_col[3][kFrequencies];
    for (int dt = 0; dt < 3; ++dt) {
      Floats w[3] = {by_row[dt][0][row], by_row[dt][1][row], by_row[dt][2][row]};
      Transform<4>::weights(by_col[dt], w);
    }
    for (int col = 0; col < kFrequencies; ++col) {
      Floats w[3] = {by_col[0][col], by_col[1][col], by_col[2][col]}, u[N + 2];
      Transform<N>::weights(u, w);
      float* first =
          to + order[row] / 2 * pair_stride + (order[row] % 2 * kFrequencies + col) * (N + 2) * product_stride;
      for (int t = 0; t < N + 2; ++t) store(first + t * product_stride, u[t]);
    }
  }
}

template <int N>
void prepack_weights(float* prepacked, const float* w, int64_t regions, int64_t c_in, int64_t c_out, WeightView view,
                     int threads) {
  int64_t panels = panels_of(c_out), chunks = chunks_of(c_in), product_stride = matrix_size(c_in);
  int64_t pair_stride = panels * kProducts<N> * product_stride;
  parallel_for(threads, regions * panels * chunks, [&](int64_t i, int) {
    int64_t chunk = i % chunks, panel = i / chunks % panels, r = i / chunks / panels;
    const float* from = w + r * c_in * c_out * 27 + panel * kPanel * view.out_stride;
    float* to = prepacked + r * region_size<N>(c_in, c_out) + panel * kProducts<N> * product_stride;
    alignas(64) float rows[27 * kPanel];
    for (int64_t k = chunk * kLanes; k < (chunk + 1) * kLanes; ++k) {
      gather_taps(rows, from + k * view.in_stride, k < c_in ? c_out - panel * kPanel : 0, view);
      for (int v = 0; v < kPanel; v += kLanes)
        transform_weights<N>(to + k * kPanel + v, rows + v, pair_stride, product_stride);
    }
  });
}

size_t prepacked_size(const ArmePrepackedSize<float>& a) {
  int64_t inputs = a.transposed ? a.c_out : a.c_in, outputs = a.transposed ? a.c_in : a.c_out;
  return with_frames(a.algorithm, [&](auto frames) {
    return sizeof(float) * size_t(a.split.size * region_size<frames.value>(inputs, outputs));
  });
}

}  // namespace

void prepack_winograd(const ArmePrepack<float>& a) {
  int64_t inputs = a.transposed ? a.c_out : a.c_in, outputs = a.transposed ? a.c_in : a.c_out;
  with_frames(a.algorithm, [&](auto frames) {
    prepack_weights<frames.value>(static_cast<float*>(a.prepacked), a.weights, a.split.size, inputs, outputs,
                                  weight_view(a.c_in, a.transposed), usable_threads(a.threads));
  });
}

void fill_arme_winograd_prepack(Tables& tables) {
  tables.float32.winograd.prepacked_size = prepacked_size;
  tables.float32.winograd.prepack = prepack_winograd;
}

}  // namespace HSTL_ISA
}  // namespace hstl
