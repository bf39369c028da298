// Forward and data gradient in the Winograd domain: F(4, 3) in rows and columns, F(n, 3) in time. Blocks of tiles of
// one region are transformed, multiplied frequency by frequency, and transformed back; the rows' frequencies in three
// pairs, so that a third of the products is alive at a time and a block stays in the second-level cache.
//
// Per tile of 4 x 4 positions and n frames, and per pair of channels, 36 (n + 2) products in place of 432 n: a factor
// of 6, 8 and 8.57 for n = 2, 4 and 5.
#include "tables.h"
#include "taps.h"
#include "tiles.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

constexpr int kLanes = lanes<float>;
// Output channels of a product's register tile, and its tiles, which are those of a block: each weight is read once per
// block.
constexpr int kPanel = kOut<float>;
constexpr int kBlock = kVectorRegisters == 32 ? 14 : 6;
// Fewest tiles for which a weight pays to be read from the third-level cache.
constexpr int64_t kFewest = 11;
// Terms summed in a row before their sum is added to the total.
constexpr int64_t kSummed = 32;
// Bytes by which weights are asked for before they are needed: two small pages, at whose borders the processor's own
// prefetching stops.
constexpr int64_t kAhead = 8192;

// Pairs of the rows' frequencies: (0, infinity), (a, -a), (b, -b).
constexpr int kPairs = 3;

// Products alive at a time, for each tile and output channel.
template <int N>
constexpr int kProducts = 2 * kFrequencies * (N + 2);

inline int64_t chunks_of(int64_t channels) { return ceil_div(channels, kLanes); }
inline int64_t panels_of(int64_t channels) { return ceil_div(channels, kPanel); }

// ---- weights: [m][pairs][panels][2][6][N + 2][cin padded][kPanel]

inline int64_t matrix_size(int64_t cin) { return chunks_of(cin) * kLanes * kPanel; }

template <int N>
int64_t region_size(int64_t cin, int64_t cout) {
  return kPairs * panels_of(cout) * kProducts<N> * matrix_size(cin);
}

// One vector of output channels of one input channel. FLOPs: about 700 per lane for N = 5.
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
void pack(float* packed, const float* w, const Shape& s, int64_t cin, int64_t cout, WeightView view) {
  int64_t panels = panels_of(cout), chunks = chunks_of(cin), product_stride = matrix_size(cin);
  int64_t pair_stride = panels * kProducts<N> * product_stride;
  parallel_for(s.threads, s.regions * panels * chunks, [&](int64_t i, int) {
    int64_t chunk = i % chunks, panel = i / chunks % panels, r = i / chunks / panels;
    const float* from = w + r * cin * cout * 27 + panel * kPanel * view.out_stride;
    float* to = packed + r * region_size<N>(cin, cout) + panel * kProducts<N> * product_stride;
    alignas(64) float rows[27 * kPanel];
    for (int64_t k = chunk * kLanes; k < (chunk + 1) * kLanes; ++k) {
      gather_taps(rows, from + k * view.in_stride, k < cin ? cout - panel * kPanel : 0, view);
      for (int v = 0; v < kPanel; v += kLanes)
        transform_weights<N>(to + k * kPanel + v, rows + v, pair_stride, product_stride);
    }
  });
}

// ---- inputs

// A block's transformed inputs of one pair are [chunks][products][kBlock][lanes], its products
// [products][kBlock][kPanel]: what one tile reads or writes stays within few pages.
template <int N>
constexpr int64_t kInputChunk = kProducts<N> * kBlock * kLanes;
template <int N>
constexpr int64_t kTileSums = N * kSide * kSide * kPanel;

template <int Pair>
HSTL_INLINE void transform_rows(Floats& first, Floats& second, const Floats* d) {
  using P = Points<4>;
  if constexpr (Pair == 0) {
    first = Inputs4<P>::zero(d);
    second = Inputs4<P>::infinity(d);
  } else if constexpr (Pair == 1) {
    Inputs4<P>::pair(d, P::a, squared(P::b), first, second);
  } else {
    Inputs4<P>::pair(d, P::b, squared(P::a), first, second);
  }
}

// One vector of channels of one tile, one pair of the rows' frequencies. Per frame 24 or 36 loads and about 80 FLOPs a
// lane, then 12 transforms in time.
template <int N, int Pair, class Get>
HSTL_INLINE void transform_input(float* to, const Get& get) {
  constexpr int first = Pair ? 1 : 0, last = Pair ? 4 : 5;
  Floats frames[2][kFrequencies][N + 2];
  for (int t = 0; t < N + 2; ++t) {
    Floats rows[2][kFrequencies];
#pragma GCC unroll 6
    for (int j = 0; j < kFrequencies; ++j) {
      Floats d[kFrequencies];
#pragma GCC unroll 6
      for (int i = first; i <= last; ++i) d[i] = get(t, i, j);
      transform_rows<Pair>(rows[0][j], rows[1][j], d);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      Floats cols[kFrequencies];
      Transform<4>::input(cols, rows[i]);
#pragma GCC unroll 6
      for (int j = 0; j < kFrequencies; ++j) frames[i][j][t] = cols[j];
    }
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < kFrequencies; ++j) {
      Floats v[N + 2];
      Transform<N>::input(v, frames[i][j]);
#pragma GCC unroll 7
      for (int t = 0; t < N + 2; ++t, to += kBlock * kLanes) store(to, v[t]);
    }
}

// ---- the product

// out [P][kPanel] = v [P][channels] u [channels][kPanel]. FLOPs: 2 * channels * P * kPanel. Registers: 2 P sums, 2
// weights, 1 input. Per channel 2 vectors of weights (from L2 or L3, read once per block) and P broadcasts from L1.
template <int P>
void multiply(float* out, const float* v, int64_t v_stride, const float* u, int64_t chunks) {
  constexpr int64_t most = kSummed / kLanes;
  const int64_t ahead = smaller(kAhead / int64_t(sizeof(float)), chunks * kLanes * kPanel);  // the next frequency's
  for (int64_t first = 0; first < chunks; first += most) {
    Floats sums[P][2] = {};
    for (int64_t chunk = first; chunk < smaller(first + most, chunks); ++chunk, v += v_stride)
      for (int k = 0; k < kLanes; ++k, u += kPanel) {
        __builtin_prefetch(u + ahead, 0, 2);
        __builtin_prefetch(u + ahead + kLanes, 0, 2);
        Floats u0 = load(u), u1 = load(u + kLanes);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
          sums[p][0] += u0 * v[p * kLanes + k];
          sums[p][1] += u1 * v[p * kLanes + k];
        }
      }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        float* to = out + p * kPanel + i * kLanes;
        store(to, first ? load(to) + sums[p][i] : sums[p][i]);
      }
  }
}

using Multiply = void (*)(float*, const float*, int64_t, const float*, int64_t);

template <int P = kBlock>
Multiply multiply_of(int64_t tiles) {
  if constexpr (P == 1) {
    return multiply<1>;
  } else {
    return tiles == P ? multiply<P> : multiply_of<P - 1>(tiles);
  }
}

// ---- outputs

// Where a tile's outputs are in the map; -1 outside it.
template <int N>
struct OutputPositions {
  int64_t at[N][kSide][kSide];  // [frame][row][column]
  bool inside[N][kSide][kSide];
  int64_t to_maximum[N];    // to be added, for the place among the maxima of the frame's sequence
  int64_t halved[N][2][2];  // where 2 x 2 of them are in the halved map; -1 outside it
};

struct OutputMap {
  float* data;             // [F, H, W, channels], or null where only the maximum is wanted
  float* maximum;          // [N, H, W, channels] or null
  float* halved;           // [F, H / 2, W / 2, channels] or null
  const uint8_t* support;  // [F, H, W] or null
  int64_t channels, height, width;
  float slope;  // of LeakyReLU; 1: none

  int64_t frame_size() const { return height * width * channels; }
  // Whether every vector of channels is whole and aligned.
  bool streams() const {
    uintptr_t addresses = reinterpret_cast<uintptr_t>(data) | reinterpret_cast<uintptr_t>(halved);
    return channels % kLanes == 0 && addresses % HSTL_VECTOR_BYTES == 0;
  }
};

template <int N>
void find_outputs(OutputPositions<N>& positions, const TimeTile& time, const Tile& tile, Range region,
                  const OutputMap& map) {
  for (int t = 0; t < N; ++t) {
    int64_t frame = time.outputs[t];
    positions.to_maximum[t] = (time.sequences[t] - frame) * map.frame_size();
    for (int i = 0; i < kSide; ++i)
      for (int j = 0; j < kSide; ++j) {
        int64_t row = tile.row + i, col = tile.col + j;
        bool exists = frame >= 0 && row < region.end && col < map.width;
        int64_t at = (frame * map.height + row) * map.width + col;
        positions.at[t][i][j] = exists ? at * map.channels : -1;
        positions.inside[t][i][j] = exists && (!map.support || map.support[at]);
        if (map.halved && i % 2 == 0 && j % 2 == 0)
          positions.halved[t][i / 2][j / 2] =
              exists ? ((frame * map.height + row) / 2 * map.width + col) / 2 * map.channels : -1;
      }
  }
}

// One column of four outputs, from a pair of the rows' products: A^T by rows. `sums` holds what the pairs before gave,
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

// Where a vector of channels of a tile's outputs goes: the map, this thread's maxima so far, the 2x2 maxima.
struct Destination {
  float *map, *maxima, *halved;  // or null
  int64_t valid;                 // channels
  bool streams;                  // to map and halved
};

HSTL_INLINE void put(const Destination& to, int64_t at, int64_t to_maximum, Floats y) {
  if (to.map && to.streams) {
    stream(to.map + at, y);
  } else if (to.map) {
    store_some(to.map + at, y, to.valid);
  }
  if (!to.maxima) return;
  float* best = to.maxima + at + to_maximum;
  Floats so_far = load_some(best, to.valid);
  store_some(best, replaces<float>(y, so_far) ? y : so_far, to.valid);
}

HSTL_INLINE void finish_rows(const Destination& to, const int64_t* at, const bool* inside, int64_t to_maximum,
                             float* sums, Floats first, Floats second, float slope) {
  using P = Points<4>;
  Floats even = first + second, odd = (first - second) * P::b;
  Floats rows[kSide] = {even, odd, even * squared(P::b), odd * squared(P::b)};
#pragma GCC unroll 4
  for (int i = 0; i < kSide; ++i) {
    if (at[i * kSide] < 0) continue;
    Floats y = leaky<float>(load(sums + i * kSide * kPanel) + rows[i], slope);
    y = inside[i * kSide] ? y : Floats{};
    put(to, at[i * kSide], to_maximum, y);
    if (to.halved) store(sums + i * kSide * kPanel, y);
  }
}

// The 2x2 maxima of one frame of a tile, [4][4][kPanel].
HSTL_INLINE void put_halved(const Destination& to, const int64_t (&at)[2][2], const float* frame) {
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      if (at[i][j] < 0) continue;
      const float* upper = frame + (2 * i * kSide + 2 * j) * kPanel;
      const float* lower = upper + kSide * kPanel;
      Floats best = load(upper);
      const float* const others[] = {upper + kPanel, lower, lower + kPanel};
      for (const float* other : others) {
        Floats x = load(other);
        best = replaces<float>(x, best) ? x : best;
      }
      to.streams ? stream(to.halved + at[i][j], best) : store_some(to.halved + at[i][j], best, to.valid);
    }
}

// One vector of channels of one tile, one pair: 12 transforms in time, then per frame two by columns and one by rows.
// `sums` is [N][4][4][kPanel].
template <int N, int Pair>
HSTL_INLINE void transform_output(float* sums, const OutputPositions<N>& positions, const float* products,
                                  const Destination& to, float slope) {
  Floats frames[N][2][kFrequencies];
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < kFrequencies; ++j) {
      Floats m[N + 2], y[N];
#pragma GCC unroll 7
      for (int t = 0; t < N + 2; ++t, products += kBlock * kPanel) m[t] = load(products);
      Transform<N>::output(y, m);
#pragma GCC unroll 5
      for (int t = 0; t < N; ++t) frames[t][i][j] = y[t];
    }
  for (int t = 0; t < N; ++t) {
    Floats first[kSide], second[kSide];
    const float* frame = sums;
    Transform<4>::output(first, frames[t][0]);
    Transform<4>::output(second, frames[t][1]);
#pragma GCC unroll 4
    for (int j = 0; j < kSide; ++j, sums += kPanel) {
      if constexpr (Pair == 2) {
        finish_rows(to, &positions.at[t][0][j], &positions.inside[t][0][j], positions.to_maximum[t], sums, first[j],
                    second[j], slope);
      } else {
        add_rows<Pair>(sums, first[j], second[j]);
      }
    }
    if (Pair == 2 && to.halved) put_halved(to, positions.halved[t], frame);
    sums += (kSide - 1) * kSide * kPanel;
  }
}

// ---- the driver

struct Convolution {
  InputMap input;
  const float* sign;  // output of the activation that the input, a gradient, goes back through; or null
  float sign_slope;
  OutputMap output;
  const float* packed;
};

// One thread's memory for a block.
template <int N>
struct Scratch {
  InputPositions<N>* inputs;    // [tiles]
  OutputPositions<N>* outputs;  // [tiles]
  float* v;                     // [chunks][products][kBlock][lanes]
  float* products;              // [products][kBlock][kPanel]
  float* sums;                  // [panels][kBlock][N][4][4][kPanel]
  float* maxima;                // of what this thread computed, [N, H, W, cout] or null
};

template <int N>
Scratch<N> carve_scratch(Carver& carver, int64_t cin, int64_t cout) {
  Scratch<N> scratch;
  scratch.inputs = carver.take<InputPositions<N>>(kBlock);
  scratch.outputs = carver.take<OutputPositions<N>>(kBlock);
  scratch.v = carver.take<float>(chunks_of(cin) * kInputChunk<N>);
  scratch.products = carver.take<float>(kProducts<N> * kBlock * kPanel);
  scratch.sums = carver.take<float>(panels_of(cout) * kBlock * kTileSums<N>);
  scratch.maxima = nullptr;
  return scratch;
}

struct Block {
  Range tiles, region;
  int64_t r;
  Slice panels;
};

// A tile's inputs where they are not read as they are: the last channels, and gradients on their way back through
// LeakyReLU.
template <int N>
struct Prepared {
  Floats at[N + 2][kFrequencies][kFrequencies];
};

template <int N>
void prepare(Prepared<N>& to, const InputPositions<N>& from, int64_t channel, const Convolution& conv) {
  const InputMap& map = conv.input;
  int64_t valid = map.channels - channel;
  for (int t = 0; t < N + 2; ++t)
    for (int i = 0; i < kFrequencies; ++i)
      for (int j = 0; j < kFrequencies; ++j) {
        const float* at = from.at[t][i][j];
        const float* sign = conv.sign && at != map.zeros ? conv.sign + (at - map.data) + channel : nullptr;
        to.at[t][i][j] = load_through<float>(at + channel, sign, conv.sign_slope, valid);
      }
}

template <int N, int Pair>
void transform_inputs(const Scratch<N>& scratch, const Convolution& conv, int64_t tiles) {
  const int64_t chunks = chunks_of(conv.input.channels);
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t tile = 0; tile < tiles; ++tile) {
      int64_t channel = chunk * kLanes;
      float* to = scratch.v + chunk * kInputChunk<N> + tile * kLanes;
      const InputPositions<N>& from = scratch.inputs[tile];
      if (!conv.sign && conv.input.channels - channel >= kLanes) {
        transform_input<N, Pair>(to, [&](int t, int i, int j) { return load(from.at[t][i][j] + channel); });
      } else {
        Prepared<N> inputs;
        prepare(inputs, from, channel, conv);
        transform_input<N, Pair>(to, [&](int t, int i, int j) { return inputs.at[t][i][j]; });
      }
    }
}

inline float* from(float* channels, int64_t channel) { return channels ? channels + channel : nullptr; }

template <int N, int Pair>
void compute_pair(const Scratch<N>& scratch, const Convolution& conv, const Block& block) {
  const int64_t cin = conv.input.channels, cout = conv.output.channels, panels = panels_of(cout);
  const int64_t chunks = chunks_of(cin), tiles = block.tiles.size();
  const bool streams = conv.output.streams();
  transform_inputs<N, Pair>(scratch, conv, tiles);
  const float* u = conv.packed + block.r * region_size<N>(cin, cout) +
                   (Pair * panels + block.panels.begin) * kProducts<N> * matrix_size(cin);
  const Multiply multiply_tiles = multiply_of(tiles);
  for (int64_t panel = block.panels.begin; panel < block.panels.end; ++panel) {
    for (int f = 0; f < kProducts<N>; ++f, u += matrix_size(cin))
      multiply_tiles(scratch.products + f * kBlock * kPanel, scratch.v + f * kBlock * kLanes, kInputChunk<N>, u,
                     chunks);
    for (int64_t tile = 0; tile < tiles; ++tile)
      for (int64_t k = 0; k < kPanel && panel * kPanel + k < cout; k += kLanes) {
        int64_t channel = panel * kPanel + k;
        Destination to = {from(conv.output.data, channel), from(scratch.maxima, channel),
                          from(conv.output.halved, channel), cout - channel, streams};
        transform_output<N, Pair>(scratch.sums + (panel * kBlock + tile) * kTileSums<N> + k, scratch.outputs[tile],
                                  scratch.products + tile * kPanel + k, to, conv.output.slope);
      }
  }
}

template <int N>
void compute_block(const Scratch<N>& scratch, const Tiling& tiling, const Convolution& conv, const Block& block) {
  int64_t tiles = block.tiles.size();
  for (int64_t i = 0; i < tiles; ++i) {
    const Tile& tile = tiling.tiles[block.tiles.begin + i];
    find_inputs(scratch.inputs[i], tiling.times[tile.time], tile, block.region, conv.input);
    find_outputs(scratch.outputs[i], tiling.times[tile.time], tile, block.region, conv.output);
  }
  compute_pair<N, 0>(scratch, conv, block);
  compute_pair<N, 1>(scratch, conv, block);
  compute_pair<N, 2>(scratch, conv, block);
  finish_streams();
}

// How a region's tiles and panels are divided among blocks.
struct Division {
  int64_t tiles, panels;
  int64_t blocks() const { return tiles * panels; }
};

// Blocks of tiles, a multiple of the threads, so that all read the same weights at about the same time. Where they
// would be too small to pay for reading the weights, the panels are divided instead and the inputs transformed by each.
inline Division division_of(int64_t tiles, int64_t cout, int threads) {
  if (tiles == 0) return {0, 0};
  int64_t divided = smaller(tiles, threads * ceil_div(tiles, threads * kBlock));
  if (threads == 1 || tiles >= divided * kFewest) return {divided, 1};
  int64_t whole = ceil_div(tiles, kBlock);
  return {whole, smaller(panels_of(cout), ceil_div(threads, whole))};
}

inline Block block_of(const Tiling& tiling, const Shape& s, int64_t cout, int64_t i) {
  for (int64_t r = 0;; ++r) {
    Division division = division_of(tiling.count(r), cout, s.threads);
    if (i < division.blocks()) {
      Slice tiles = slice_of(tiling.count(r), division.tiles, i / division.panels);
      return {{tiling.begin(r) + tiles.begin, tiling.begin(r) + tiles.end},
              region_rows(s, r),
              r,
              slice_of(panels_of(cout), division.panels, i % division.panels)};
    }
    i -= division.blocks();
  }
}

// What the threads take one after another: blocks, as long as there is one for each; the panels of those that are left
// are divided among the threads, which would wait for one another otherwise.
struct Work {
  int64_t whole, left, pieces;  // of each that is left
  int64_t size() const { return whole + left * pieces; }
};

inline Work work_of(const Tiling& tiling, const Shape& s, int64_t cout) {
  int64_t blocks = 0;
  for (int64_t r = 0; r < s.regions; ++r) blocks += division_of(tiling.count(r), cout, s.threads).blocks();
  int64_t left = blocks % s.threads;
  return {blocks - left, left, left ? smaller(s.threads / left, panels_of(cout)) : 1};
}

inline Block piece_of(const Tiling& tiling, const Shape& s, int64_t cout, const Work& work, int64_t i) {
  if (i < work.whole) return block_of(tiling, s, cout, i);
  int64_t of_left = i - work.whole;
  Block block = block_of(tiling, s, cout, work.whole + of_left / work.pieces);
  Slice piece = slice_of(block.panels.end - block.panels.begin, work.pieces, of_left % work.pieces);
  block.panels = {block.panels.begin + piece.begin, block.panels.begin + piece.end};
  return block;
}

// Zeros at some rows and columns of a frame, and where they are in the halved map.
inline void fill_gap(const OutputMap& map, int64_t frame, Range rows, Range columns) {
  auto fill = [&](float* data, int64_t position, int64_t count) {
    __builtin_memset(data + position * map.channels, 0, count * map.channels * sizeof(float));
  };
  for (int64_t h = rows.begin; h < rows.end; ++h) {
    int64_t row = frame * map.height + h;
    if (map.data) fill(map.data, row * map.width + columns.begin, columns.size());
    if (map.halved && h % 2 == 0) fill(map.halved, (row / 2 * map.width + columns.begin) / 2, columns.size() / 2);
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

// Every thread finds the maxima of what it computes; the first one's are the result's, the others' are scratch.
struct Maxima {
  float *first, *others;
  int64_t size;

  float* of(int thread) const {
    if (!first) return nullptr;
    return thread ? others + (thread - 1) * size : first;
  }
};

inline Maxima carve_maxima(Carver& carver, const Shape& s, const OutputMap& map) {
  int64_t size = map.maximum ? s.sequences * map.frame_size() : 0;
  return {map.maximum, carver.take<float>((s.threads - 1) * size), size};
}

inline void start_maxima(const Maxima& maxima, const Shape& s) {
  if (!maxima.first) return;
  parallel_for(s.threads, s.threads, [&](int64_t thread, int) {
    for (int64_t e = 0; e < maxima.size; ++e) maxima.of(int(thread))[e] = -__builtin_inff();
  });
}

// Joins the threads' maxima. A position outside the support in any frame of the sequence has a 0 among its values.
inline void join_maxima(const Maxima& maxima, const Shape& s, const OutputMap& map) {
  if (!maxima.first) return;
  parallel_for(s.threads, s.sequences * map.height, [&](int64_t i, int) {
    int64_t n = i / map.height, positions = map.height * map.width;
    const uint8_t* inside =
        map.support ? map.support + total(s.seq_lens, n) * positions + i % map.height * map.width : nullptr;
    for (int64_t col = 0; col < map.width; ++col) {
      bool always = true;
      for (int64_t t = 0; inside && t < s.seq_lens[n]; ++t) always = always && inside[t * positions + col];
      for (int64_t c = 0; c < map.channels; c += kLanes) {
        int64_t at = (i * map.width + col) * map.channels + c, valid = map.channels - c;
        Floats best = load_some(maxima.first + at, valid);
        for (int thread = 1; thread < s.threads; ++thread) {
          Floats other = load_some(maxima.of(thread) + at, valid);
          best = replaces<float>(other, best) ? other : best;
        }
        if (!always) best = replaces<float>(Floats{}, best) ? Floats{} : best;
        store_some(maxima.first + at, best, valid);
      }
    }
  });
}

template <int N>
void convolve(Convolution conv, void* workspace, const Shape& s) {
  Carver carver(workspace);
  Tiling tiling = carve_tiling(carver, s, N);
  float* zeros = carver.take<float>(conv.input.channels);
  __builtin_memset(zeros, 0, conv.input.channels * sizeof(float));
  conv.input.zeros = zeros;
  tiling.align = conv.output.halved ? 2 : 1;
  list_tiles(tiling, s, conv.output.support);
  Carver sizes(nullptr);
  carve_scratch<N>(sizes, conv.input.channels, conv.output.channels);
  char* scratches = carver.take<char>(s.threads * int64_t(sizes.bytes()));
  Maxima maxima = carve_maxima(carver, s, conv.output);
  start_maxima(maxima, s);
  Work work = work_of(tiling, s, conv.output.channels);
  int64_t fills = conv.output.support && (conv.output.data || conv.output.halved) ? tiling.time_count : 0;
  parallel_for(s.threads, work.size() + fills, [&](int64_t i, int thread) {
    if (i >= work.size()) return fill_gaps(tiling, s, conv.output, i - work.size());
    Carver mine(scratches + thread * int64_t(sizes.bytes()));
    Scratch<N> scratch = carve_scratch<N>(mine, conv.input.channels, conv.output.channels);
    scratch.maxima = maxima.of(thread);
    compute_block<N>(scratch, tiling, conv, piece_of(tiling, s, conv.output.channels, work, i));
  });
  join_maxima(maxima, s, conv.output);
}

template <int N>
int64_t workspace_of(const Shape& s, int64_t cin, int64_t cout) {
  Carver sizes(nullptr);
  carve_scratch<N>(sizes, cin, cout);
  Carver carver(nullptr);
  carve_tiling(carver, s, N);
  carver.take<float>(cin);
  carver.take<char>(s.threads * int64_t(sizes.bytes()));
  return int64_t(carver.bytes());
}

// Calls f with the frames of a tile as a type.
template <int N>
struct Frames {
  static constexpr int value = N;
};

template <class F>
auto with_frames(int algorithm, const F& f) {
  if (algorithm == 2) return f(Frames<2>());
  if (algorithm == 4) return f(Frames<4>());
  return f(Frames<5>());
}

size_t packed_size(const Shape& s, int64_t cin, int64_t cout, int algorithm, bool transposed) {
  int64_t inputs = transposed ? cout : cin, outputs = transposed ? cin : cout;
  return sizeof(float) * size_t(s.regions * with_frames(algorithm, [&](auto frames) {
                                  return region_size<frames.value>(inputs, outputs);
                                }));
}

void pack_for(void* packed, const float* w, const Shape& s, int64_t cin, int64_t cout, int algorithm, bool transposed) {
  float* to = static_cast<float*>(packed);
  with_frames(algorithm, [&](auto frames) {
    if (transposed) return pack<frames.value>(to, w, s, cout, cin, {27, cin * 27, true});
    pack<frames.value>(to, w, s, cin, cout, {cin * 27, 27, false});
  });
}

size_t workspace(const Shape& s, int64_t cin, int64_t cout, int algorithm, bool maximum) {
  int64_t maxima = maximum ? (s.threads - 1) * s.sequences * rows_of(s) * s.width * cout * int64_t(sizeof(float)) : 0;
  return with_frames(algorithm, [&](auto frames) {
    int64_t both_ways = larger(workspace_of<frames.value>(s, cin, cout), workspace_of<frames.value>(s, cout, cin));
    return size_t(both_ways + round_up(maxima, 64));
  });
}

void forward(float* y, float* maximum, float* halved, const float* x, const void* packed, void* workspace,
             const Shape& s, const Support& support, int64_t cin, int64_t cout, float negative_slope, int algorithm) {
  int64_t height = rows_of(s);
  Convolution conv = {{x, support.x, nullptr, cin, height, s.width},
                      nullptr,
                      1.0f,
                      {y, maximum, halved, support.y, cout, height, s.width, negative_slope},
                      static_cast<const float*>(packed)};
  with_frames(algorithm, [&](auto frames) { convolve<frames.value>(conv, workspace, s); });
}

void backward_data(float* gx, const float* gy, const float* y, const void* packed, void* workspace, const Shape& s,
                   const Support& support, int64_t cin, int64_t cout, float negative_slope, int algorithm) {
  int64_t height = rows_of(s);
  Convolution conv = {{gy, support.y, nullptr, cout, height, s.width},
                      negative_slope == 1 ? nullptr : y,
                      negative_slope,
                      {gx, nullptr, nullptr, support.x, cin, height, s.width, 1.0f},
                      static_cast<const float*>(packed)};
  with_frames(algorithm, [&](auto frames) { convolve<frames.value>(conv, workspace, s); });
}

}  // namespace

void fill_arme_winograd(Operators<float>& single, Operators<double>& dual) {
  single.winograd.packed_size = packed_size;
  single.winograd.pack = pack_for;
  single.winograd.workspace = workspace;
  single.winograd.forward = forward;
  single.winograd.backward_data = backward_data;
  dual.winograd = {};
}

}  // namespace HSTL_ISA
}  // namespace hstl
