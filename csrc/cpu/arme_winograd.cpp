// arme's forward and dgrad, [F, H, W, c_in] -> [F, H, W, c_out], in the Winograd domain: F(4, 3) in rows and columns,
// F(n, 3) in time. Blocks of tiles of one region are transformed, multiplied frequency by frequency, and transformed
// back; the rows' frequencies in three pairs, so that a third of the products is alive at a time and a block stays in
// the second-level cache.
//
// Per tile of 4 x 4 positions and n frames, and per pair of channels, 36 (n + 2) products in place of 432 n: a factor
// of 6, 8 and 8.57 for n = 2, 4 and 5.
#include "arena.h"
#include "arme_winograd_gemm.h"
#include "arme_winograd_input.h"
#include "arme_winograd_output.h"
#include "operators.h"
#include "parallel.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Tiles that a block should have at least. With fewer, loading weights from L3 costs more than multiplying.
constexpr int64_t kFewestTiles = 11;

struct Convolution {
  InputMap input;
  const float* activated;  // output of the activation that the input, a gradient, goes back through; or null
  float activated_slope;
  OutputMap output;
  float* prepacked;      // of all regions, or memory for one region's
  const float* weights;  // [m, c_out, c_in, 27] of the layer that are not prepacked yet, or null
  bool transposed;
  int64_t maximum_positions;  // of all sequences
};

// The memory that a thread needs for a block.
template <int N>
struct Scratch {
  InputPositions<N>* inputs;    // [tiles]
  OutputPositions<N>* outputs;  // [tiles]
  float* v;                     // [chunks][products][kBlock][lanes]
  float* products;              // [products][kBlock][kPanel]
  float* sums;                  // [panels][kBlock][N][4][4][kPanel]
  ThreadMaxima maxima;
};

template <int N>
Scratch<N> allocate_scratch(Arena& arena, int64_t c_in, int64_t c_out) {
  Scratch<N> scratch;
  scratch.inputs = arena.allocate<InputPositions<N>>(kBlock);
  scratch.outputs = arena.allocate<OutputPositions<N>>(kBlock);
  scratch.v = arena.allocate<float>(chunks_of(c_in) * kInputChunk<N>);
  scratch.products = arena.allocate<float>(kProducts<N> * kBlock * kPanel);
  scratch.sums = arena.allocate<float>(panels_of(c_out) * kBlock * kTileSums<N>);
  scratch.maxima = {nullptr, nullptr};
  return scratch;
}

struct Block {
  Range tiles, region;
  int64_t r;  // among the regions whose weights are prepacked
  Range panels;
};

// A tile's inputs where they are not read as they are: the last channels, and gradients on their way back through
// LeakyReLU.
template <int N>
struct TileInputs {
  Floats at[N + 2][kFrequencies][kFrequencies];
};

template <int N>
void read_inputs(TileInputs<N>& to, const InputPositions<N>& from, int64_t channel, const Convolution& conv) {
  const InputMap& map = conv.input;
  int64_t valid = map.channels - channel;
  for (int t = 0; t < N + 2; ++t)
    for (int i = 0; i < kFrequencies; ++i)
      for (int j = 0; j < kFrequencies; ++j) {
        const float* at = from.at[t][i][j];
        const float* activated =
            conv.activated && at != map.zeros ? conv.activated + (at - map.data) + channel : nullptr;
        to.at[t][i][j] = load_through<float>(at + channel, activated, conv.activated_slope, valid);
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
      if (!conv.activated && conv.input.channels - channel >= 2 * kLanes) {
        transform_input<N, Pair>(to, [&](int t, int i, int j) {
          const float* at = from.at[t][i][j] + channel;
          __builtin_prefetch(at + kLanes, 0, 2);
          return load(at);
        });
      } else if (!conv.activated && conv.input.channels - channel >= kLanes) {
        transform_input<N, Pair>(to, [&](int t, int i, int j) { return load(from.at[t][i][j] + channel); });
      } else {
        TileInputs<N> inputs;
        read_inputs(inputs, from, channel, conv);
        transform_input<N, Pair>(to, [&](int t, int i, int j) { return inputs.at[t][i][j]; });
      }
    }
}

inline float* offset_or_null(float* channels, int64_t channel) { return channels ? channels + channel : nullptr; }

// This thread's maxima of the channels from `channel` on.
template <int N>
ThreadMaxima maxima_of(const Scratch<N>& scratch, const Convolution& conv, int64_t channel) {
  if (!scratch.maxima.values) return scratch.maxima;
  return {scratch.maxima.values + channel, scratch.maxima.begun + channel / kLanes * conv.maximum_positions};
}

template <int N, int Pair>
void compute_pair(const Scratch<N>& scratch, const Convolution& conv, const Block& block) {
  const int64_t c_in = conv.input.channels, c_out = conv.output.channels, panels = panels_of(c_out);
  const int64_t chunks = chunks_of(c_in), tiles = block.tiles.size();
  const bool streams = conv.output.streams();
  transform_inputs<N, Pair>(scratch, conv, tiles);
  const float* u = conv.prepacked + block.r * region_size<N>(c_in, c_out) +
                   (Pair * panels + block.panels.begin) * kProducts<N> * matrix_size(c_in);
  const Gemm gemm_tiles = gemm_of(tiles);
  for (int64_t panel = block.panels.begin; panel < block.panels.end; ++panel) {
    for (int f = 0; f < kProducts<N>; ++f, u += matrix_size(c_in))
      gemm_tiles(scratch.products + f * kBlock * kPanel, scratch.v + f * kBlock * kLanes, kInputChunk<N>, u, chunks);
    for (int64_t tile = 0; tile < tiles; ++tile)
      for (int64_t k = 0; k < kPanel && panel * kPanel + k < c_out; k += kLanes) {
        int64_t channel = panel * kPanel + k;
        Destination to = {offset_or_null(conv.output.data, channel),
                          offset_or_null(conv.output.max_pooled, channel),
                          {maxima_of(scratch, conv, channel), c_out, c_out - channel},
                          streams,
                          conv.output.leaves_outside};
        transform_output<N, Pair>(scratch.sums + (panel * kBlock + tile) * kTileSums<N> + k, scratch.outputs[tile],
                                  scratch.products + tile * kPanel + k, to, conv.output.slope);
      }
  }
}

// Asks for the first channels of a tile's inputs, while the positions of the next tile are found.
template <int N>
void prefetch_inputs(const InputPositions<N>& inputs) {
  for (int t = 0; t < N + 2; ++t)
    for (int i = 0; i < kFrequencies; ++i)
      for (int j = 0; j < kFrequencies; ++j) __builtin_prefetch(inputs.at[t][i][j], 0, 2);
}

template <int N>
void compute_block(const Scratch<N>& scratch, const Tiling& tiling, const Convolution& conv, const Block& block) {
  int64_t tiles = block.tiles.size();
  for (int64_t i = 0; i < tiles; ++i) {
    const Tile& tile = tiling.tiles[block.tiles.begin + i];
    find_inputs(scratch.inputs[i], tiling.times[tile.time], tile, block.region, conv.input);
    prefetch_inputs(scratch.inputs[i]);
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
inline Division division_of(int64_t tiles, int64_t c_out, int threads) {
  if (tiles == 0) return {0, 0};
  int64_t divided = smaller(tiles, threads * ceil_div(tiles, threads * kBlock));
  if (threads == 1 || tiles >= divided * kFewestTiles) return {divided, 1};
  int64_t whole = ceil_div(tiles, kBlock);
  return {whole, smaller(panels_of(c_out), ceil_div(threads, whole))};
}

// Block i of the regions whose weights are prepacked.
inline Block block_of(const Tiling& tiling, const Shape& s, int64_t c_out, Range regions, int64_t i) {
  for (int64_t r = regions.begin;; ++r) {
    Division division = division_of(tiling.count(r), c_out, s.threads);
    if (i < division.blocks()) {
      Range tiles = chunk_of(tiling.count(r), division.tiles, i / division.panels);
      return {{tiling.begin(r) + tiles.begin, tiling.begin(r) + tiles.end},
              region_rows(s, r),
              r - regions.begin,
              chunk_of(panels_of(c_out), division.panels, i % division.panels)};
    }
    i -= division.blocks();
  }
}

// The units of work that threads take one after another: blocks, as long as there is one for each; the panels of those
// that are left are divided among the threads, which would wait for one another otherwise.
struct Work {
  Range regions;
  int64_t whole, left, chunks;  // of each that is left
  int64_t size() const { return whole + left * chunks; }
};

inline Work work_of(const Tiling& tiling, const Shape& s, int64_t c_out, Range regions) {
  int64_t blocks = 0;
  for (int64_t r = regions.begin; r < regions.end; ++r)
    blocks += division_of(tiling.count(r), c_out, s.threads).blocks();
  int64_t left = blocks % s.threads;
  return {regions, blocks - left, left, left ? smaller(s.threads / left, panels_of(c_out)) : 1};
}

inline Block work_at(const Tiling& tiling, const Shape& s, int64_t c_out, const Work& work, int64_t i) {
  if (i < work.whole) return block_of(tiling, s, c_out, work.regions, i);
  int64_t of_left = i - work.whole;
  Block block = block_of(tiling, s, c_out, work.regions, work.whole + of_left / work.chunks);
  Range chunk = chunk_of(block.panels.end - block.panels.begin, work.chunks, of_left % work.chunks);
  block.panels = {block.panels.begin + chunk.begin, block.panels.begin + chunk.end};
  return block;
}

inline void prepack_region(const Convolution& conv, const Shape& s, int64_t r, int frames) {
  int64_t inputs = conv.input.channels, outputs = conv.output.channels;
  const float* weights = conv.weights + r * 27 * inputs * outputs;
  IntList region = {s.split + r, 1};
  prepack_winograd({conv.prepacked, weights, region, conv.transposed ? outputs : inputs,
                    conv.transposed ? inputs : outputs, frames, conv.transposed, int(sizeof(float)), s.threads});
}

template <int N>
void compute(Convolution conv, void* workspace, const Shape& s) {
  Arena arena(workspace);
  Tiling tiling = allocate_tiling(arena, s, N);
  float* zeros = arena.allocate<float>(conv.input.channels);
  __builtin_memset(zeros, 0, conv.input.channels * sizeof(float));
  conv.input.zeros = zeros;
  tiling.align = conv.output.max_pooled ? 2 : 1;
  find_active_tiles(tiling, s, conv.output.support);
  Arena sizes(nullptr);
  allocate_scratch<N>(sizes, conv.input.channels, conv.output.channels);
  char* scratches = arena.allocate<char>(s.threads * int64_t(sizes.bytes()));
  Maxima maxima = {};
  if (conv.output.maximum) {
    maxima = allocate_maxima(arena, s, conv.output.maximum, conv.output.channels);
    start_maxima(maxima, s);
  }
  conv.maximum_positions = maxima.positions;
  const int64_t at_once = conv.weights ? 1 : s.regions;
  for (int64_t r = 0; r < s.regions; r += at_once) {
    Work work = work_of(tiling, s, conv.output.channels, {r, r + at_once});
    if (conv.weights && work.size()) prepack_region(conv, s, r, N);
    int64_t fills = conv.output.fills_gaps() && r + at_once == s.regions ? tiling.time_count : 0;
    parallel_for(s.threads, work.size() + fills, [&](int64_t i, int thread) {
      if (i >= work.size()) return fill_gaps(tiling, s, conv.output, i - work.size());
      Arena mine(scratches + thread * int64_t(sizes.bytes()));
      Scratch<N> scratch = allocate_scratch<N>(mine, conv.input.channels, conv.output.channels);
      scratch.maxima = maxima.of(thread);
      compute_block<N>(scratch, tiling, conv, work_at(tiling, s, conv.output.channels, work, i));
    });
  }
  if (maxima.first) join_maxima(maxima, s, conv.output.support);
}

template <int N>
int64_t workspace_of(const Shape& s, int64_t c_in, int64_t c_out) {
  Arena sizes(nullptr);
  allocate_scratch<N>(sizes, c_in, c_out);
  Arena arena(nullptr);
  allocate_tiling(arena, s, N);
  arena.allocate<float>(c_in);
  arena.allocate<char>(s.threads * int64_t(sizes.bytes()));
  return int64_t(arena.bytes());
}

size_t workspace(const ArmeWorkspace<float>& a) {
  const Shape s = shape_of(a);
  Arena maxima(nullptr);
  if (a.maximum) allocate_maxima(maxima, s, nullptr, a.c_out);
  return with_frames(a.algorithm, [&](auto frames) {
    constexpr int N = frames.value;
    return size_t(int64_t(maxima.bytes()) +
                  larger(workspace_of<N>(s, a.c_in, a.c_out), workspace_of<N>(s, a.c_out, a.c_in)));
  });
}

void forward(const ArmeForward<float>& a) {
  const Shape s = shape_of(a);
  int64_t height = rows_of(s);
  Convolution conv = {
      {a.x, a.x_support, nullptr, a.c_in, height, s.width},
      nullptr,
      1.0f,
      {a.y, a.maximum, a.max_pooled, a.y_support, a.c_out, height, s.width, a.negative_slope, a.leaves_outside},
      static_cast<float*>(a.prepacked),
      a.weights,
      false,
      0};
  with_frames(a.algorithm, [&](auto frames) { compute<frames.value>(conv, a.workspace, s); });
}

void dgrad(const ArmeDgrad<float>& a) {
  const Shape s = shape_of(a);
  int64_t height = rows_of(s);
  Convolution conv = {{a.grad, a.y_support, nullptr, a.c_out, height, s.width},
                      a.negative_slope == 1 ? nullptr : a.y,
                      a.negative_slope,
                      {a.gx, nullptr, nullptr, a.x_support, a.c_in, height, s.width, 1.0f, false},
                      static_cast<float*>(a.prepacked),
                      a.weights,
                      true,
                      0};
  with_frames(a.algorithm, [&](auto frames) { compute<frames.value>(conv, a.workspace, s); });
}

}  // namespace

void fill_arme_winograd(Tables& tables) {
  tables.float32.winograd.workspace = workspace;
  tables.float32.winograd.forward = forward;
  tables.float32.winograd.dgrad = dgrad;
}

}  // namespace HSTL_ISA
}  // namespace hstl
