// arme's direct convolution of maps [F, H, W, c_in] -> [F, H, W, c_out], forward and dgrad: blocks of frames and rows
// of one region are copied into a padded patch, and tiles of positions x output channels are accumulated over all taps
// and input channels in registers. The inner kernel, gemm_tile, knows neither regions nor sequences.
#include "arme_direct.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// A tile of kTile positions x 2 vectors of output channels fills the registers.
constexpr int kTile = kVectorRegisters == 32 ? 14 : 6;
// Bytes of a patch: with a panel of prepacked weights it stays in a second-level cache of 1 MiB.
constexpr int64_t kPatchBytes = 448 << 10;

// Terms summed in a row before their sum is added to the total: keeps float32's rounding at torch's.
constexpr int64_t kSummed = 192;

// Bytes: every weight read and written once. The rows of a channel's taps lie a multiple of 4 KiB apart, so they are
// put together in L1 first.
template <class T>
void prepack_weights(T* prepacked, const T* w, int64_t regions, int64_t c_in, int64_t c_out, WeightView view,
                     int threads) {
  Channels channels = input_channels<T>(c_in);
  int64_t panels = ceil_div(c_out, kOut<T>), column = channels.chunk * kOut<T>, pair = 3 * channels.padded() * kOut<T>;
  parallel_for(threads, regions * panels * channels.chunks(), [&](int64_t i, int) {
    int64_t chunk = i % channels.chunks(), panel = i / channels.chunks() % panels, r = i / channels.chunks() / panels;
    const T* from = w + r * c_in * c_out * 27 + panel * kOut<T> * view.out_stride;
    T* to = prepacked + (r * panels + panel) * panel_size<T>(c_in) + chunk * 3 * column;
    T rows[27 * kOut<T>];
    for (int64_t k = chunk * channels.chunk; k < (chunk + 1) * channels.chunk; ++k, to += kOut<T>) {
      gather_taps(rows, from + k * view.in_stride, k < c_in ? c_out - panel * kOut<T> : 0, view);
      for (int64_t tap = 0; tap < 27; ++tap)
        __builtin_memcpy(to + tap / 3 * pair + tap % 3 * column, rows + tap * kOut<T>, sizeof(T) * kOut<T>);
    }
  });
}

// ---- the inner kernel: an implicit GEMM

template <class T>
struct Tile {
  const T* patch;                             // frame and row of tap (0, 0, 0), first position
  const T* panel;                             // prepacked weights of these output channels
  T* y;                                       // first position, first channel
  int64_t frame_size, row_size, column_size;  // of the patch: to the next frame, row, chunk
  int64_t y_stride, y_valid;                  // channels of y; channels to store
  Range frames, rows;                         // taps inside the sequence and the region
  Channels channels;
  T negative_slope;
};

// FLOPs: 2 * 27 * c_in * P * N * lanes. Registers: P * N sums, N weights, 1 input. Per input channel N vector loads of
// weights (streamed from L2: 64 N bytes in P * N cycles) and P broadcasts from L1; every kSummed terms 2 P N loads and
// stores of the totals, 1 % of the cycles.
template <class T, int C, int P, int N>
void gemm_tile(const Tile<T>& tile) {
  Vec<T> totals[P][N] = {}, sums[P][N] = {};
  const int64_t pair_size = 3 * tile.channels.padded() * kOut<T>;
  int64_t terms = 0;
  for (int64_t dt = tile.frames.begin; dt < tile.frames.end; ++dt)
    for (int64_t dy = tile.rows.begin; dy < tile.rows.end; ++dy) {
      const T* x = tile.patch + dt * tile.frame_size + dy * tile.row_size;
      const T* w = tile.panel + (dt * 3 + dy) * pair_size;
      for (int64_t left = tile.channels.count; left > 0; left -= C, x += tile.column_size) {
        int64_t valid = left < C ? left : C;
        for (int64_t dx = 0; dx < 3; ++dx, w += C * kOut<T>) {
          const T* xk = x + dx * C;
          const T* wk = w;
#pragma GCC unroll 2
          for (int64_t k = 0; k < valid; ++k, ++xk, wk += kOut<T>) {
            Vec<T> weights[N];
#pragma GCC unroll 2
            for (int v = 0; v < N; ++v) weights[v] = load(wk + v * lanes<T>);
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
              for (int v = 0; v < N; ++v) sums[p][v] += weights[v] * xk[p * C];
          }
        }
        terms += 3 * valid;
        if (terms < kSummed) continue;
        terms = 0;
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
          for (int v = 0; v < N; ++v) {
            totals[p][v] += sums[p][v];
            sums[p][v] = Vec<T>{};
          }
      }
    }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
    for (int v = 0; v < N; ++v) {
      Vec<T> result = leaky<T>(totals[p][v] + sums[p][v], tile.negative_slope);
      store_some(tile.y + p * tile.y_stride + v * lanes<T>, result, tile.y_valid - v * lanes<T>);
    }
}

template <class T>
using TileKernel = void (*)(const Tile<T>&);

template <class T, int C, int N, int P = kTile>
TileKernel<T> kernel_of(int64_t positions) {
  if constexpr (P == 1) {
    return gemm_tile<T, C, 1, N>;
  } else {
    return positions == P ? gemm_tile<T, C, P, N> : kernel_of<T, C, N, P - 1>(positions);
  }
}

template <class T>
TileKernel<T> kernel_for(const Channels& channels, int64_t positions, int64_t valid) {
  if (valid <= lanes<T>)
    return channels.chunk == 1 ? kernel_of<T, 1, 1>(positions) : kernel_of<T, kChunk<T>, 1>(positions);
  return channels.chunk == 1 ? kernel_of<T, 1, 2>(positions) : kernel_of<T, kChunk<T>, 2>(positions);
}

// ---- the driver

// The block that copies least per output position and whose patch fits; never so large that threads starve.
template <class T>
BlockSize block_size(const Shape& s, int64_t c_in) {
  if (c_in == 1) return kSilhouettesBlock;
  int64_t row_bytes = input_channels<T>(c_in).padded() * (s.width + 2) * int64_t(sizeof(T));
  int64_t rows_available = 0, frames_available = 0, positions = 0;
  for (int64_t r = 0; r < s.regions; ++r) rows_available = larger(rows_available, s.split[r]);
  for (int64_t n = 0; n < s.sequences; ++n) frames_available = larger(frames_available, s.seq_lens[n]);
  positions = frames_of(s) * rows_of(s);
  int64_t most = larger(1, positions / (int64_t(s.threads) * 8));
  BlockSize best = {1, 1};
  double best_cost = 9.0;
  for (int64_t frames = 1; frames <= smaller(frames_available, 16); ++frames)
    for (int64_t rows = 1; rows <= smaller(rows_available, 16); ++rows) {
      if ((frames + 2) * (rows + 2) * row_bytes > kPatchBytes || frames * rows > most) continue;
      double cost = double((frames + 2) * (rows + 2)) / double(frames * rows);
      if (cost < best_cost) best_cost = cost, best = {frames, rows};
    }
  return best;
}

int64_t frame_blocks(const Shape& s, BlockSize size) {
  int64_t count = 0;
  for (int64_t n = 0; n < s.sequences; ++n) count += ceil_div(s.seq_lens[n], size.frames);
  return count;
}

Range grown(const Chunk& chunk) {
  return {larger(chunk.inside.begin - 1, chunk.whole.begin), smaller(chunk.inside.end + 1, chunk.whole.end)};
}

template <class T>
struct Convolution {
  T* y;                // [F, H, W, c_out]
  const T* x;          // [F, H, W, c_in]
  const T* activated;  // [F, H, W, c_in] output of the activation that x, a gradient, goes back through; or null
  T input_slope;       // of that activation
  T output_slope;      // of the activation of y; 1: none
  int64_t c_in, c_out;
  const uint8_t *x_support, *y_support;  // [F, H, W] or null
};

template <class T>
void fill_patch(Patch<T>& patch, const Convolution<T>& conv, const Chunk& frames, const Chunk& rows, int64_t height) {
  Range t = grown(frames), h = grown(rows);
  T* to = patch.data;
  for (int64_t f = t.begin; f < t.end; ++f)
    for (int64_t row = h.begin; row < h.end; ++row, to += patch.row_size()) {
      int64_t offset = (f * height + row) * patch.width * conv.c_in;
      MapRow<T> from = {conv.x + offset, conv.activated ? conv.activated + offset : nullptr, conv.input_slope,
                        row_of(conv.x_support, f * height + row, patch.width)};
      copy_row(to, from, patch);
    }
}

// Taps -1, 0, 1 (as 0, 1, 2) around `at` that stay inside.
Range taps_inside(int64_t at, const Range& whole) { return {at == whole.begin ? 1 : 0, at == whole.end - 1 ? 2 : 3}; }

// Tiles of one panel over one row, as few and as equal as they can be.
template <class T>
void compute_row(Tile<T>& tile, const T* patch, T* y, const uint8_t* inside, int64_t width) {
  Range span = columns_inside(inside, width);
  int64_t tiles = ceil_div(span.end - span.begin, kTile);
  for (int64_t i = 0; i < tiles; ++i) {
    Range columns = chunk_of(span.end - span.begin, tiles, i);
    columns = {columns.begin + span.begin, columns.end + span.begin};
    if (!any_inside(inside, columns)) continue;
    tile.patch = patch + columns.begin * tile.channels.chunk;
    tile.y = y + columns.begin * tile.y_stride;
    kernel_for<T>(tile.channels, columns.end - columns.begin, tile.y_valid)(tile);
  }
}

template <class T>
void compute_block(const Patch<T>& patch, const T* panels, const Convolution<T>& conv, const Chunk& frames,
                   const Chunk& rows, int64_t height) {
  Range t_read = grown(frames), h_read = grown(rows);
  Tile<T> tile;
  tile.row_size = patch.row_size();
  tile.frame_size = h_read.size() * tile.row_size;
  tile.column_size = (patch.width + 2) * patch.channels.chunk;
  tile.y_stride = conv.c_out;
  tile.channels = patch.channels;
  tile.negative_slope = conv.output_slope;
  for (int64_t first = 0; first < conv.c_out; first += kOut<T>) {
    tile.y_valid = smaller(conv.c_out - first, kOut<T>);
    tile.panel = panels + first / kOut<T> * panel_size<T>(conv.c_in);
    for (int64_t f = frames.inside.begin; f < frames.inside.end; ++f)
      for (int64_t row = rows.inside.begin; row < rows.inside.end; ++row) {
        tile.frames = taps_inside(f, frames.whole);
        tile.rows = taps_inside(row, rows.whole);
        int64_t at = f * height + row;
        compute_row(
            tile, patch.data + (f - 1 - t_read.begin) * tile.frame_size + (row - 1 - h_read.begin) * tile.row_size,
            conv.y + at * patch.width * conv.c_out + first, row_of(conv.y_support, at, patch.width), patch.width);
      }
  }
}

// Whether a block has an output inside the support.
template <class T>
bool worth_computing(const Convolution<T>& conv, const Chunk& frames, const Chunk& rows, int64_t height,
                     int64_t width) {
  for (int64_t f = frames.inside.begin; conv.y_support && f < frames.inside.end; ++f)
    if (any_inside(conv.y_support + (f * height + rows.inside.begin) * width, {0, rows.inside.size() * width}))
      return true;
  return !conv.y_support;
}

template <class T>
int64_t patch_size(const Shape& s, int64_t c_in) {
  BlockSize size = block_size<T>(s, c_in);
  return (size.frames + 2) * (size.rows + 2) * input_channels<T>(c_in).padded() * (s.width + 2);
}

template <class T>
void compute(const Convolution<T>& conv, const void* prepacked, void* workspace, const Shape& s) {
  Arena arena(workspace);
  int64_t stride = round_up(patch_size<T>(s, conv.c_in), kChunk<T>);
  T* patches = arena.allocate<T>(s.threads * stride);
  Cursor* cursors = arena.allocate<Cursor>(s.threads);
  for (int thread = 0; thread < s.threads; ++thread) cursors[thread] = Cursor();
  BlockSize size = block_size<T>(s, conv.c_in);
  int64_t height = rows_of(s), across = frame_blocks(s, size);
  int64_t region_panels = prepacked_elements<T>(1, conv.c_in, conv.c_out);
  parallel_for(s.threads, row_blocks(s, size) * across, [&](int64_t i, int thread) {
    Chunk frames = chunk_at(s.seq_lens, size.frames, i % across, cursors[thread]);
    Chunk rows = chunk_at(s.split, size.rows, i / across);
    Patch<T> patch = {patches + thread * stride, input_channels<T>(conv.c_in), s.width};
    if (worth_computing(conv, frames, rows, height, s.width)) {
      fill_patch(patch, conv, frames, rows, height);
      compute_block(patch, static_cast<const T*>(prepacked) + rows.index * region_panels, conv, frames, rows, height);
    }
    clear_outside(conv.y, conv.y_support, frames, rows, {height, s.width, conv.c_out});
  });
}

template <class T>
void forward(const ArmeForward<T>& a) {
  Convolution<T> conv = {a.y, a.x, nullptr, T(1), a.negative_slope, a.c_in, a.c_out, a.x_support, a.y_support};
  compute(conv, a.prepacked, a.workspace, shape_of(a));
}

template <class T>
void dgrad(const ArmeDgrad<T>& a) {
  const T* activated = a.negative_slope == 1 ? nullptr : a.y;
  Convolution<T> conv = {a.gx, a.grad, activated, a.negative_slope, T(1), a.c_out, a.c_in, a.y_support, a.x_support};
  compute(conv, a.prepacked, a.workspace, shape_of(a));
}

template <class T>
size_t prepacked_size(const ArmePrepackedSize<T>& a) {
  int64_t inputs = a.transposed ? a.c_out : a.c_in, outputs = a.transposed ? a.c_in : a.c_out;
  return sizeof(T) * size_t(prepacked_elements<T>(a.split.size, inputs, outputs));
}

template <class T>
void prepack(const ArmePrepack<T>& a) {
  int64_t inputs = a.transposed ? a.c_out : a.c_in, outputs = a.transposed ? a.c_in : a.c_out;
  prepack_weights(static_cast<T*>(a.prepacked), a.weights, a.split.size, inputs, outputs,
                  weight_view(a.c_in, a.transposed), usable_threads(a.threads));
}

template <class T>
size_t workspace(const ArmeWorkspace<T>& a) {
  const Shape s = shape_of(a);
  int64_t both_ways = larger(patch_size<T>(s, a.c_in), patch_size<T>(s, a.c_out));
  Arena arena(nullptr);
  arena.allocate<T>(s.threads * round_up(both_ways, kChunk<T>));
  arena.allocate<Cursor>(s.threads);
  return arena.bytes();
}

template <class T>
void fill(Operators<T>& table) {
  table.direct.prepacked_size = prepacked_size<T>;
  table.direct.prepack = prepack<T>;
  table.direct.workspace = workspace<T>;
  table.direct.forward = forward<T>;
  table.direct.dgrad = dgrad<T>;
}

}  // namespace

void fill_arme_direct(Tables& tables) {
  fill(tables.float32);
  fill(tables.float64);
}

}  // namespace HSTL_ISA
}  // namespace hstl
