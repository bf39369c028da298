// How Winograd's tiles lie on a map [F, H, W, C]: 4 x 4 positions of one region times N frames. Only active tiles,
// those with an output inside the support, are found.
#pragma once

#include "arena.h"
#include "winograd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

constexpr int kLanes = lanes<float>;
constexpr int kMostFrames = 5;

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

// The frames of a tile, -1 where there is none. Sequences stand one after another with one empty frame between them,
// which is the padding of both; a tile that begins with a sequence needs no empty frame.
struct TimeTile {
  int32_t inputs[kMostFrames + 2];
  int32_t outputs[kMostFrames];
  int32_t sequences[kMostFrames];  // of the outputs
};

struct Tile {
  int32_t time;      // index of its TimeTile
  int32_t row, col;  // of its first output, among all rows
};

struct Tiling {
  int frames;  // of a tile
  int align;   // columns: a tile begins at a multiple
  TimeTile* times;
  Tile* tiles;    // region after region
  int64_t* ends;  // [regions] end of each region's tiles
  int64_t time_count;

  int64_t begin(int64_t r) const { return r ? ends[r - 1] : 0; }
  int64_t count(int64_t r) const { return ends[r] - begin(r); }
};

inline int64_t most_times(const Shape& s, int frames) { return ceil_div(frames_of(s) + s.sequences, frames); }

inline int64_t tiles_across(const Shape& s) { return ceil_div(s.width, kSide); }

inline int64_t most_tiles(const Shape& s, int frames) {
  int64_t down = 0;
  for (int64_t r = 0; r < s.regions; ++r) down += ceil_div(s.split[r], kSide);
  return most_times(s, frames) * down * tiles_across(s);
}

inline Tiling allocate_tiling(Arena& arena, const Shape& s, int frames) {
  Tiling tiling;
  tiling.frames = frames;
  tiling.align = 1;
  tiling.times = arena.allocate<TimeTile>(most_times(s, frames));
  tiling.tiles = arena.allocate<Tile>(most_tiles(s, frames));
  tiling.ends = arena.allocate<int64_t>(s.regions);
  tiling.time_count = 0;
  return tiling;
}

// The next frame, of sequence n.
inline void add_frame(Tiling& tiling, int& slot, int32_t frame, int32_t n, bool first, bool last) {
  if (slot == 0) {
    TimeTile& fresh = tiling.times[tiling.time_count++];
    for (int32_t& f : fresh.inputs) f = -1;
    for (int32_t& f : fresh.outputs) f = -1;
    for (int32_t& of : fresh.sequences) of = n;
    if (!first) fresh.inputs[0] = frame - 1;
  }
  TimeTile& tile = tiling.times[tiling.time_count - 1];
  tile.outputs[slot] = tile.inputs[slot + 1] = frame;
  tile.sequences[slot] = n;
  slot = (slot + 1) % tiling.frames;
  if (slot == 0 && !last) tile.inputs[tiling.frames + 1] = frame + 1;
}

inline void make_time_tiles(Tiling& tiling, const Shape& s) {
  int slot = 0;
  int32_t frame = 0;
  for (int64_t n = 0; n < s.sequences; ++n) {
    if (slot) slot = (slot + 1) % tiling.frames;
    for (int64_t t = 0; t < s.seq_lens[n]; ++t, ++frame)
      add_frame(tiling, slot, frame, int32_t(n), t == 0, t == s.seq_lens[n] - 1);
  }
}

// Which columns of a strip of rows have an output inside the support in any frame of a tile. They are found so many at
// a time, all frames and rows together, as vectors.
class ActiveColumns {
 public:
  ActiveColumns(const TimeTile& time, int frames, const uint8_t* support, const Shape& s, Range rows)
      : time_(time), frames_(frames), support_(support), width_(s.width), height_(rows_of(s)), rows_(rows) {}

  bool contains(int64_t col) {
    if (!support_) return true;
    if (col < begin_ || col >= begin_ + kFound) find(col - col % kFound);
    return active_[col - begin_];
  }

 private:
  static constexpr int64_t kFound = 64;

  void find(int64_t begin) {
    begin_ = begin;
    __builtin_memset(active_, 0, sizeof active_);
    int64_t columns = smaller(kFound, width_ - begin);
    for (int t = 0; t < frames_; ++t)
      for (int64_t h = rows_.begin; h < rows_.end && time_.outputs[t] >= 0; ++h) {
        const uint8_t* row = support_ + (time_.outputs[t] * height_ + h) * width_ + begin;
        for (int64_t col = 0; col < columns; ++col) active_[col] |= row[col];
      }
  }

  const TimeTile& time_;
  int frames_;
  const uint8_t* support_;
  int64_t width_, height_;
  Range rows_;
  int64_t begin_ = -kFound;
  uint8_t active_[kFound];
};

// Covers the active columns of a strip of rows by tiles, from the left: tile(col) for each, and gap(begin, end) for the
// columns between them.
template <class OnTile, class OnGap>
void cover_strip(const Tiling& tiling, const Shape& s, const uint8_t* support, int64_t time, Range rows,
                 const OnTile& tile, const OnGap& gap) {
  ActiveColumns active(tiling.times[time], tiling.frames, support, s, rows);
  int64_t covered = 0;
  for (int64_t col = 0; col < s.width;) {
    if (!active.contains(col)) {
      ++col;
      continue;
    }
    col -= col % tiling.align;
    if (covered < col) gap(covered, col);
    tile(col);
    covered = col += kSide;
  }
  if (covered < s.width) gap(covered, s.width);
}

inline Range strip_of(int64_t row, Range region) { return {row, smaller(row + kSide, region.end)}; }

// The frames of the tiles, and the active tiles of every region: by time, then rows, then columns, so that neighbours
// share inputs. Where there is a support they begin at its first column, not at multiples of 4.
inline void find_active_tiles(Tiling& tiling, const Shape& s, const uint8_t* support) {
  make_time_tiles(tiling, s);
  int64_t found = 0;
  for (int64_t r = 0; r < s.regions; ++r) {
    Range region = region_rows(s, r);
    for (int64_t time = 0; time < tiling.time_count; ++time)
      for (int64_t row = region.begin; row < region.end; row += kSide)
        cover_strip(
            tiling, s, support, time, strip_of(row, region),
            [&](int64_t col) { tiling.tiles[found++] = {int32_t(time), int32_t(row), int32_t(col)}; },
            [](int64_t, int64_t) {});
    tiling.ends[r] = found;
  }
}

// Columns whose positions are found together.
constexpr int kFoundColumns = 8;

// The positions of one tile's inputs: pointers to their channels; positions that count as 0 point at zeros.
template <int N>
struct InputPositions {
  const float* at[N + 2][kFrequencies][kFrequencies];  // [frame][row][column]
  const float* unused[kFoundColumns - kFrequencies];   // written behind the last row
};

// The map that a tile's inputs are read from.
struct InputMap {
  const float* data;       // [F, H, W, channels]
  const uint8_t* support;  // [F, H, W] or null
  const float* zeros;      // [channels]
  int64_t channels, height, width;
};

// The positions of a row from `first` on, all of which are in the map.
HSTL_INLINE void find_columns(const float** at, int64_t first, const InputMap& map) {
  typedef int64_t Addresses __attribute__((vector_size(kFoundColumns * 8)));
  typedef uint8_t Flags __attribute__((vector_size(kFoundColumns)));
  Flags inside = Flags{} + 1;
  if (map.support) __builtin_memcpy(&inside, map.support + first, sizeof inside);
  const Addresses columns = {0, 1, 2, 3, 4, 5, 6, 7};
  Addresses found = columns * (map.channels * int64_t(sizeof(float))) +
                    int64_t(reinterpret_cast<uintptr_t>(map.data + first * map.channels));
  Addresses zeros = Addresses{} + int64_t(reinterpret_cast<uintptr_t>(map.zeros));
  found = __builtin_convertvector(inside, Addresses) != 0 ? found : zeros;
  __builtin_memcpy(at, &found, sizeof found);
}

// Those of a row at an edge of the map.
inline void find_columns_at_edge(const float** at, int64_t first, int64_t col, const InputMap& map) {
  for (int j = 0; j < kFrequencies; ++j) {
    bool zero = col + j < 0 || col + j >= map.width || (map.support && !map.support[first + j]);
    at[j] = zero ? map.zeros : map.data + (first + j) * map.channels;
  }
}

template <int N>
void find_inputs(InputPositions<N>& positions, const TimeTile& time, const Tile& tile, Range region,
                 const InputMap& map) {
  const int64_t col = tile.col - 1;
  const bool within = col >= 0 && col + kFoundColumns <= map.width;
  for (int t = 0; t < N + 2; ++t)
    for (int i = 0; i < kFrequencies; ++i) {
      int64_t row = tile.row - 1 + i, frame = time.inputs[t];
      const float** at = &positions.at[0][0][0] + (t * kFrequencies + i) * kFrequencies;
      int64_t first = (frame * map.height + row) * map.width + col;
      if (frame < 0 || row < region.begin || row >= region.end) {
        for (int j = 0; j < kFrequencies; ++j) at[j] = map.zeros;
      } else if (within) {
        find_columns(at, first, map);
      } else {
        find_columns_at_edge(at, first, col, map);
      }
    }
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
