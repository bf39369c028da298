// arme's first convolution, of silhouettes as bytes [F, H, W] -> [F, H, W, c_out], and the maximum over the frames of
// each sequence. A thread computes some rows in all frames of a sequence, so that their maximum stays in L1 and is
// nobody else's. All 27 taps are computed everywhere: a patch has zeros around the region and the sequence.
#include "arme_direct.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// A tile of kTile positions x 2 vectors of output channels fills the registers.
constexpr int kTile = kVectorRegisters == 32 ? 14 : 6;

// A patch: [frames][rows][W + 2] around a block, with a frame, a row and a column more on both sides.
template <class T>
struct SilhouettePatch {
  T* data;
  int64_t row_size, frame_size;
};

// Stores a vector of outputs, past the caches where it can be.
HSTL_INLINE void put(float* to, Vec<float> v, int64_t valid, bool streams) {
  streams ? stream(to, v) : store_some(to, v, valid);
}

HSTL_INLINE void put(double* to, Vec<double> v, int64_t valid, bool) { store_some(to, v, valid); }

template <class T>
struct Tile {
  const T* patch;  // tap (0, 0, 0) of the first position
  const T* panel;  // prepacked weights of these output channels: [27][kOut]
  T *y, *maximum;  // first position, first channel; each or null
  int64_t row_size, frame_size, y_stride, y_valid;
  T negative_slope;
  bool streams;  // whether all vectors of y are whole and aligned
};

// FLOPs: 54 * P * N * lanes. Cycles: 27 * P * N on two datapaths of half a vector. Bytes: P * N vectors written.
template <class T, int P, int N>
void compute_tile(const Tile<T>& tile) {
  Vec<T> sums[P][N] = {};
  const T* w = tile.panel;
  for (int64_t dt = 0; dt < 3; ++dt)
    for (int64_t dy = 0; dy < 3; ++dy) {
      const T* x = tile.patch + dt * tile.frame_size + dy * tile.row_size;
#pragma GCC unroll 3
      for (int dx = 0; dx < 3; ++dx, ++x, w += kOut<T>) {
        Vec<T> weights[N];
#pragma GCC unroll 2
        for (int v = 0; v < N; ++v) weights[v] = load(w + v * lanes<T>);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
          for (int v = 0; v < N; ++v) sums[p][v] += weights[v] * x[p];
      }
    }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
    for (int v = 0; v < N; ++v) sums[p][v] = leaky<T>(sums[p][v], tile.negative_slope);
  if (tile.y)
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
      for (int v = 0; v < N; ++v)
        put(tile.y + p * tile.y_stride + v * lanes<T>, sums[p][v], tile.y_valid - v * lanes<T>, tile.streams);
  if (tile.maximum)
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
      for (int v = 0; v < N; ++v) {
        T* to = tile.maximum + p * tile.y_stride + v * lanes<T>;
        Vec<T> best = load_some(to, tile.y_valid - v * lanes<T>);
        store_some(to, replaces<T>(sums[p][v], best) ? sums[p][v] : best, tile.y_valid - v * lanes<T>);
      }
}

template <class T>
using TileKernel = void (*)(const Tile<T>&);

template <class T, int N, int P = kTile>
TileKernel<T> kernel_of(int64_t positions) {
  if constexpr (P == 1) {
    return compute_tile<T, 1, N>;
  } else {
    return positions == P ? compute_tile<T, P, N> : kernel_of<T, N, P - 1>(positions);
  }
}

// What all blocks share.
template <class T>
struct Job {
  const SilhouettesForward<T>& a;
  MapSize size;
};

// Rows and frames outside the region and the sequence are zero.
template <class T>
void fill_patch(const SilhouettePatch<T>& patch, const Job<T>& job, const Chunk& frames, const Chunk& rows) {
  T* to = patch.data;
  for (int64_t f = frames.inside.begin - 1; f < frames.inside.end + 1; ++f)
    for (int64_t row = rows.inside.begin - 1; row < rows.inside.end + 1; ++row, to += patch.row_size) {
      bool exists = f >= frames.whole.begin && f < frames.whole.end && row >= rows.whole.begin && row < rows.whole.end;
      if (!exists) {
        __builtin_memset(to, 0, patch.row_size * sizeof(T));
        continue;
      }
      const uint8_t* x = job.a.silhouettes + (f * job.size.height + row) * job.size.width;
      to[0] = to[job.size.width + 1] = 0;
      for (int64_t q = 0; q < job.size.width; ++q) to[q + 1] = T(x[q]) / T(255);
    }
}

// The tiles of a row, as few and as equal as they can be.
template <class T>
void compute_row(Tile<T> tile, const uint8_t* inside, int64_t width) {
  Range span = columns_inside(inside, width);
  int64_t tiles = ceil_div(span.size(), kTile);
  for (int64_t i = 0; i < tiles; ++i) {
    Range columns = chunk_of(span.size(), tiles, i);
    columns = {columns.begin + span.begin, columns.end + span.begin};
    if (!any_inside(inside, columns)) continue;
    Tile<T> mine = tile;
    mine.patch += columns.begin;
    if (tile.y) mine.y += columns.begin * tile.y_stride;
    if (tile.maximum) mine.maximum += columns.begin * tile.y_stride;
    (tile.y_valid > lanes<T> ? kernel_of<T, 2> : kernel_of<T, 1>)(columns.size())(mine);
  }
}

template <class T>
void compute_block(const SilhouettePatch<T>& patch, const Job<T>& job, const Chunk& frames, const Chunk& rows) {
  const SilhouettesForward<T>& a = job.a;
  const T* panels = static_cast<const T*>(a.prepacked) + rows.index * prepacked_elements<T>(1, 1, a.c_out);
  const int64_t row_elements = a.w * a.c_out;
  const bool streams = a.c_out % kOut<T> == 0 && reinterpret_cast<uintptr_t>(a.y) % HSTL_VECTOR_BYTES == 0;
  for (int64_t first = 0; first < a.c_out; first += kOut<T>, panels += panel_size<T>(1))
    for (int64_t f = frames.inside.begin; f < frames.inside.end; ++f)
      for (int64_t row = rows.inside.begin; row < rows.inside.end; ++row) {
        int64_t at = f * job.size.height + row, best = frames.index * job.size.height + row;
        const T* x =
            patch.data + (f - frames.inside.begin) * patch.frame_size + (row - rows.inside.begin) * patch.row_size;
        T* y = a.y ? a.y + at * row_elements + first : nullptr;
        T* maximum = a.maximum ? a.maximum + best * row_elements + first : nullptr;
        Tile<T> tile = {
            x,      panels, y, maximum, patch.row_size, patch.frame_size, a.c_out, a.c_out - first, a.negative_slope,
            streams};
        compute_row(tile, row_of(a.support, at, a.w), a.w);
      }
}

// Whether a block has an output inside the support.
bool worth_computing(const uint8_t* support, const Chunk& frames, const Chunk& rows, const MapSize& size) {
  for (int64_t f = frames.inside.begin; support && f < frames.inside.end; ++f) {
    const uint8_t* first = support + (f * size.height + rows.inside.begin) * size.width;
    if (any_inside(first, {0, rows.inside.size() * size.width})) return true;
  }
  return !support;
}

// Rows of a sequence's maximum before the first frame.
template <class T>
void start_maximum(const Job<T>& job, int64_t sequence, const Chunk& rows) {
  if (!job.a.maximum) return;
  const int64_t row = job.size.width * job.size.channels;
  T* best = job.a.maximum + (sequence * job.size.height + rows.inside.begin) * row;
  for (int64_t e = 0; e < rows.inside.size() * row; ++e) best[e] = -T(__builtin_inf());
}

// Rows of a sequence's maximum after its last frame. A position outside the support in any frame has a 0 among its
// values.
template <class T>
void finish_maximum(const Job<T>& job, const Chunk& frames, const Chunk& rows) {
  if (!job.a.maximum || !job.a.support) return;
  const int64_t map = job.size.height * job.size.width, channels = job.size.channels;
  for (int64_t at = rows.inside.begin * job.size.width; at < rows.inside.end * job.size.width; ++at) {
    bool always = true;
    for (int64_t f = frames.whole.begin; f < frames.whole.end; ++f) always = always && job.a.support[f * map + at];
    T* best = job.a.maximum + (frames.index * map + at) * channels;
    for (int64_t k = 0; !always && k < channels; ++k) best[k] = best[k] <= 0 ? T(0) : best[k];
  }
}

// Some rows in all frames of a sequence.
template <class T>
void compute_rows(const SilhouettePatch<T>& patch, const Job<T>& job, Chunk frames, const Chunk& rows) {
  const SilhouettesForward<T>& a = job.a;
  int64_t chunks = ceil_div(frames.whole.size(), kSilhouettesBlock.frames);
  start_maximum(job, frames.index, rows);
  for (int64_t i = 0; i < chunks; ++i) {
    Range some = chunk_of(frames.whole.size(), chunks, i);
    frames.inside = {frames.whole.begin + some.begin, frames.whole.begin + some.end};
    if (worth_computing(a.support, frames, rows, job.size)) {
      fill_patch(patch, job, frames, rows);
      compute_block(patch, job, frames, rows);
    }
    if (a.y && !a.leaves_outside) clear_outside(a.y, a.support, frames, rows, job.size);
  }
  finish_maximum(job, frames, rows);
}

template <class T>
void silhouettes_forward(const SilhouettesForward<T>& a) {
  const Shape s = shape_of(a);
  const Job<T> job = {a, {rows_of(s), a.w, a.c_out}};
  Arena arena(a.workspace);
  const int64_t row_size = a.w + 2, frame_rows = kSilhouettesBlock.rows + 2;
  const int64_t stride = round_up((kSilhouettesBlock.frames + 2) * frame_rows * row_size, kChunk<T>);
  T* patches = arena.allocate<T>(s.threads * stride);
  parallel_for(s.threads, s.sequences * row_blocks(s, kSilhouettesBlock), [&](int64_t i, int thread) {
    int64_t n = i % s.sequences, first = total(s.seq_lens, n);
    Chunk rows = chunk_at(s.split, kSilhouettesBlock.rows, i / s.sequences);
    SilhouettePatch<T> patch = {patches + thread * stride, row_size, (rows.inside.size() + 2) * row_size};
    compute_rows(patch, job, {n, {first, first + s.seq_lens[n]}, {}}, rows);
    finish_streams();
  });
}

}  // namespace

void fill_arme_silhouettes(Tables& tables) {
  tables.float32.silhouettes_forward = silhouettes_forward<float>;
  tables.float64.silhouettes_forward = silhouettes_forward<double>;
}

}  // namespace HSTL_ISA
}  // namespace hstl
