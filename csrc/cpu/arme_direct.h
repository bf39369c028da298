// Patches, the copies of a map that arme's direct kernels read: rows of chunks of channels with a column of zeros on
// both sides; and the chunks into which frames and rows are divided.
#pragma once

#include "arena.h"
#include "arme.h"
#include "parallel.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Channels of one chunk of a patch: a cache line, so that a tile's positions are at constant distances.
template <class T>
constexpr int kChunk = 64 / int(sizeof(T));

// The channels of a map and their division into chunks.
struct Channels {
  int64_t count, chunk;
  int64_t chunks() const { return ceil_div(count, chunk); }
  int64_t padded() const { return chunks() * chunk; }
};

template <class T>
Channels input_channels(int64_t count) {
  return {count, count == 1 ? 1 : kChunk<T>};
}

// ---- weights: [m][blocks of kOut][3 frames][3 rows][chunks][3 columns][chunk][kOut]

template <class T>
int64_t panel_size(int64_t c_in) {
  return 27 * input_channels<T>(c_in).padded() * kOut<T>;
}

template <class T>
int64_t prepacked_elements(int64_t regions, int64_t c_in, int64_t c_out) {
  return regions * ceil_div(c_out, kOut<T>) * panel_size<T>(c_in);
}

// ---- patches: [frames][rows][chunks][W + 2][chunk], zero at columns -1 and W

template <class T>
struct Patch {
  T* data;
  Channels channels;
  int64_t width;
  int64_t row_size() const { return channels.padded() * (width + 2); }
};

// A row of a map: its first position, the activation that it goes back through or null, its support or null.
template <class T>
struct MapRow {
  const T *x, *y;
  T negative_slope;
  const uint8_t* inside;  // [width]
};

// Copies a row of a map, through LeakyReLU where `y` is given, and zeros outside its support.
template <class T>
void copy_row(T* to, const MapRow<T>& row, const Patch<T>& patch) {
  const Channels& channels = patch.channels;
  if (channels.chunk == 1) {
    to[0] = to[patch.width + 1] = 0;
    for (int64_t q = 0; q < patch.width; ++q)
      to[q + 1] = row.y && !(row.y[q] > 0) ? row.x[q] * row.negative_slope : row.x[q];
    for (int64_t q = 0; row.inside && q < patch.width; ++q) to[q + 1] = row.inside[q] ? to[q + 1] : T(0);
    return;
  }
  for (int64_t first = 0; first < channels.count; first += kChunk<T>) {
    __builtin_memset(to, 0, sizeof(T) * kChunk<T>);
    to += kChunk<T>;
    for (int64_t q = 0; q < patch.width; ++q, to += kChunk<T>) {
      if (row.inside && !row.inside[q]) {
        __builtin_memset(to, 0, sizeof(T) * kChunk<T>);
        continue;
      }
      for (int64_t k = 0; k < kChunk<T>; k += lanes<T>) {
        int64_t at = q * channels.count + first + k;
        const T* y = row.y ? row.y + at : nullptr;
        store(to + k, load_through(row.x + at, y, row.negative_slope, channels.count - first - k));
      }
    }
    __builtin_memset(to, 0, sizeof(T) * kChunk<T>);
    to += kChunk<T>;
  }
}

// Row `row` of all rows of a support, or null.
inline const uint8_t* row_of(const uint8_t* support, int64_t row, int64_t width) {
  return support ? support + row * width : nullptr;
}

// The columns between the first and the last position of a row inside the support; all where there is none.
inline Range columns_inside(const uint8_t* inside, int64_t width) {
  Range columns = {0, width};
  if (!inside) return columns;
  while (columns.end > 0 && !inside[columns.end - 1]) --columns.end;
  while (columns.begin < columns.end && !inside[columns.begin]) ++columns.begin;
  return columns;
}

inline bool any_inside(const uint8_t* inside, Range columns) {
  if (!inside) return true;
  for (int64_t q = columns.begin; q < columns.end; ++q)
    if (inside[q]) return true;
  return false;
}

// A chunk of a sequence's frames or of a region's rows.
struct Chunk {
  int64_t index;        // of the sequence or region
  Range whole, inside;  // its range and the chunk of it
};

// A place among sizes, which moves forward as chunks are asked for in order: to look for each from the beginning would
// take a time that grows with the square of the number of sequences.
struct Cursor {
  int64_t index = 0, begin = 0, chunks = 0;  // the size here; the sum of those before it, and their chunks
};

// The i-th chunk when every size is cut into nearly equal chunks of at most `step`; the cursor moves there.
inline Chunk chunk_at(const int64_t* sizes, int64_t step, int64_t i, Cursor& at) {
  if (i < at.chunks) at = Cursor();
  for (int64_t here; i >= at.chunks + (here = ceil_div(sizes[at.index], step)); at.chunks += here)
    at.begin += sizes[at.index++];
  int64_t size = sizes[at.index];
  Range chunk = chunk_of(size, ceil_div(size, step), i - at.chunks);
  return {at.index, {at.begin, at.begin + size}, {at.begin + chunk.begin, at.begin + chunk.end}};
}

inline Chunk chunk_at(const int64_t* sizes, int64_t step, int64_t i) {
  Cursor beginning;
  return chunk_at(sizes, step, i, beginning);
}

// Frames and rows of the blocks that one thread computes from one patch.
struct BlockSize {
  int64_t frames, rows;
};

// Frames and rows of a block of silhouettes: its patch, and a maximum of its rows, stay in L1.
constexpr BlockSize kSilhouettesBlock = {16, 4};

inline int64_t row_blocks(const Shape& s, BlockSize size) {
  int64_t count = 0;
  for (int64_t r = 0; r < s.regions; ++r) count += ceil_div(s.split[r], size.rows);
  return count;
}

// The sizes of a map.
struct MapSize {
  int64_t height, width, channels;
};

// Zeros outside the support: where nothing was computed, and where a tile reached beyond.
template <class T>
void clear_outside(T* y, const uint8_t* support, const Chunk& frames, const Chunk& rows, const MapSize& size) {
  for (int64_t f = frames.inside.begin; support && f < frames.inside.end; ++f) {
    Range run = {(f * size.height + rows.inside.begin) * size.width, 0};
    const int64_t end = (f * size.height + rows.inside.end) * size.width;
    for (; run.begin < end; run.begin = run.end) {
      while (run.begin < end && support[run.begin]) ++run.begin;
      for (run.end = run.begin; run.end < end && !support[run.end];) ++run.end;
      __builtin_memset(y + run.begin * size.channels, 0, run.size() * size.channels * sizeof(T));
    }
  }
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
