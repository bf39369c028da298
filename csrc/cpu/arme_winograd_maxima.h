// Maxima over the frames of each sequence, found by arme's Winograd forward while the outputs of a tile are in the
// first-level cache. Every thread finds those of what it computes; the first thread's become the result.
#pragma once

#include "arena.h"
#include "arme_winograd.h"
#include "parallel.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

HSTL_INLINE Floats maximum_of(Floats x, Floats best) { return replaces<float>(x, best) ? x : best; }

// What one thread found.
struct ThreadMaxima {
  float* values;   // [N, H, W, channels], or null
  uint8_t* begun;  // [chunks][N, H, W] whether there is a value, so that nothing needs to be written beforehand
};

struct Maxima {
  float *first, *others;
  uint8_t* begun;
  int64_t positions, channels;

  ThreadMaxima of(int thread) const {
    if (!first) return {nullptr, nullptr};
    return {thread ? others + (thread - 1) * positions * channels : first,
            begun + thread * chunks_of(channels) * positions};
  }
};

inline Maxima allocate_maxima(Arena& arena, const Shape& s, float* first, int64_t channels) {
  int64_t positions = s.sequences * rows_of(s) * s.width;
  float* others = arena.allocate<float>((s.threads - 1) * positions * channels);
  return {first, others, arena.allocate<uint8_t>(s.threads * chunks_of(channels) * positions), positions, channels};
}

inline void start_maxima(const Maxima& maxima, const Shape& s) {
  __builtin_memset(maxima.begun, 0, s.threads * chunks_of(maxima.channels) * maxima.positions);
}

// The frames of a tile that belong to one sequence.
struct SequenceFrames {
  int begin, end;
  int64_t first;  // the sequence's first position among the maxima
};

// Where the maxima of a tile's outputs belong.
template <int N>
struct MaximumPositions {
  int sequence_count, count;  // of sequences; of positions in the tile that exist
  SequenceFrames sequences[N];
  int tile[kSide * kSide];    // where each is among [row][column]
  int64_t at[kSide * kSide];  // among the positions of a sequence
};

template <int N>
void find_maximum_positions(MaximumPositions<N>& found, const TimeTile& time, const Tile& tile, Range region,
                            int64_t height, int64_t width) {
  found.sequence_count = found.count = 0;
  for (int t = 0; t < N; ++t) {
    if (time.outputs[t] < 0) continue;
    bool continues = t && time.outputs[t - 1] >= 0 && time.sequences[t - 1] == time.sequences[t];
    if (!continues) found.sequences[found.sequence_count++] = {t, t, time.sequences[t] * height * width};
    found.sequences[found.sequence_count - 1].end = t + 1;
  }
  int64_t down = smaller(kSide, region.end - tile.row), across = smaller(kSide, width - tile.col);
  for (int64_t i = 0; i < down; ++i)
    for (int64_t j = 0; j < across; ++j, ++found.count) {
      found.tile[found.count] = int(i * kSide + j);
      found.at[found.count] = (tile.row + i) * width + tile.col + j;
    }
}

// The maxima of a vector of channels.
struct MaximumDestination {
  ThreadMaxima maxima;
  int64_t channels, valid;  // of all; of this vector and those behind it
};

// Asks for the lines that put_maxima will change.
template <int N>
HSTL_INLINE void prefetch_maxima(const MaximumDestination& to, const MaximumPositions<N>& positions) {
  for (int k = 0; k < positions.count; ++k)
    __builtin_prefetch(to.maxima.values + (positions.sequences[0].first + positions.at[k]) * to.channels, 1, 3);
}

// The outputs of a tile are y [N][4][4][kPanel], with zeros outside the support: a position that is outside it in one
// frame has a 0 among its values. Per position N loads, N maxima of 3 operations, and one line of the maxima changed.
template <int N>
HSTL_INLINE void put_maxima(const MaximumDestination& to, const MaximumPositions<N>& positions, const float* y) {
  constexpr int64_t frame = kSide * kSide * kPanel;
  for (int n = 0; n < positions.sequence_count; ++n) {
    const SequenceFrames& frames = positions.sequences[n];
    for (int k = 0; k < positions.count; ++k) {
      const float* from = y + positions.tile[k] * kPanel;
      Floats best = load(from + frames.begin * frame);
      for (int t = frames.begin + 1; t < frames.end; ++t) best = maximum_of(load(from + t * frame), best);
      int64_t at = frames.first + positions.at[k];
      float* value = to.maxima.values + at * to.channels;
      if (to.maxima.begun[at]) best = maximum_of(load_some(value, to.valid), best);
      store_some(value, best, to.valid);
      to.maxima.begun[at] = 1;
    }
  }
}

// Joins what the threads found at one position: a vector of channels. Where no tile was, there is 0 alone.
inline Floats joined(const Maxima& maxima, int threads, int64_t position, int64_t chunk, bool always_inside) {
  Floats best = {};
  bool found = !always_inside;
  for (int thread = 0; thread < threads; ++thread) {
    const ThreadMaxima mine = maxima.of(thread);
    if (!mine.begun[chunk * maxima.positions + position]) continue;
    int64_t channel = chunk * kLanes;
    Floats value = load_some(mine.values + position * maxima.channels + channel, maxima.channels - channel);
    best = found ? maximum_of(value, best) : value;
    found = true;
  }
  return best;
}

// Joins the threads' maxima. A position outside the support in any frame of the sequence has a 0 among its values.
inline void join_maxima(const Maxima& maxima, const Shape& s, const uint8_t* support) {
  int64_t height = rows_of(s), frame = height * s.width;
  parallel_for(s.threads, s.sequences * height, [&](int64_t i, int) {
    int64_t n = i / height;
    const uint8_t* inside = support ? support + total(s.seq_lens, n) * frame + i % height * s.width : nullptr;
    for (int64_t col = 0; col < s.width; ++col) {
      bool always = true;
      for (int64_t t = 0; inside && t < s.seq_lens[n]; ++t) always = always && inside[t * frame + col];
      for (int64_t chunk = 0; chunk < chunks_of(maxima.channels); ++chunk) {
        int64_t position = i * s.width + col, channel = chunk * kLanes;
        store_some(maxima.first + position * maxima.channels + channel,
                   joined(maxima, s.threads, position, chunk, always), maxima.channels - channel);
      }
    }
  });
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
