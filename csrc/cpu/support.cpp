// Supports of feature maps, [F, H, W], bytes: grown by a convolution, joined by fta's windows, pooled. A clip's is 84
// KB, so nothing here is worth more than plain loops over runs of positions, which the compiler turns into vectors.
#include "operators.h"
#include "parallel.h"
#include "sequences.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Bytes of output below which a second thread costs more than it saves.
constexpr int64_t kWorthAThread = 256 << 10;

// body(frame, walk) for some frames of y, `size` bytes each; move(walk, frame) finds the sequence of one.
template <class Move, class Body>
void for_each_frame(const Shape& s, int64_t frames, int64_t size, const Move& move, const Body& body) {
  int64_t chunks = smaller(larger(1, frames * size / kWorthAThread), frames);
  parallel_for(s.threads, chunks, [&](int64_t i, int) {
    Range mine = chunk_of(frames, chunks, i);
    SequenceWalk walk;
    for (int64_t f = mine.begin; f < mine.end; ++f) {
      move(walk, f);
      body(f, walk);
    }
  });
}

template <class T>
void find_nonzero(uint8_t* __restrict y, const T* x, Range run) {
  for (int64_t i = run.begin; i < run.end; ++i) y[i] = x[i] != 0;
}

void find(const FindSupport& a) {
  int64_t chunks = larger(1, a.count / kWorthAThread);
  parallel_for(usable_threads(a.threads), chunks, [&](int64_t i, int) {
    Range run = chunk_of(a.count, chunks, i);
    if (a.itemsize == 1) find_nonzero(a.y, static_cast<const uint8_t*>(a.x), run);
    if (a.itemsize == 4) find_nonzero(a.y, static_cast<const float*>(a.x), run);
    if (a.itemsize == 8) find_nonzero(a.y, static_cast<const double*>(a.x), run);
  });
}

// Positions that are grown together: their neighbours' OR stays on the stack.
constexpr int64_t kRun = 4096;

// Maps whose OR is the support before it grows in columns: three frames of three rows, moved so that a position has
// the same index in all. Beyond an end of the sequence or region a map stands for its neighbour, which changes nothing.
struct Neighbours {
  const uint8_t* maps[9];
};

// Positions [run.begin, run.end) of `rows`, whose neighbours lie in the same maps. Bytes: 9 read, 1 written a position.
void grow_run(uint8_t* __restrict y, const Neighbours& x, Range rows, Range run, int64_t width) {
  uint8_t buffer[kRun + 2];
  uint8_t* any = buffer + 1 - run.begin;
  Range read = {larger(run.begin - 1, rows.begin), smaller(run.end + 1, rows.end)};
  any[run.begin - 1] = any[run.end] = 0;
  for (int64_t i = read.begin; i < read.end; ++i) {
    uint8_t frames[3];
    for (int t = 0; t < 3; ++t) frames[t] = x.maps[3 * t][i] | x.maps[3 * t + 1][i] | x.maps[3 * t + 2][i];
    any[i] = frames[0] | frames[1] | frames[2];
  }
  for (int64_t i = run.begin; i < run.end; ++i) y[i] = any[i - 1] | any[i] | any[i + 1];
  for (int64_t i = round_up(run.begin, width); i < run.end; i += width) y[i] = any[i] | (width > 1 ? any[i + 1] : 0);
  for (int64_t i = round_up(run.begin + 1, width) - 1; i < run.end; i += width)
    y[i] = any[i] | (width > 1 ? any[i - 1] : 0);
}

// Rows of one frame whose neighbours above and below are `above` and `below` rows away.
void grow_rows(uint8_t* y, const uint8_t* const (&frames)[3], Range rows, int64_t above, int64_t below, int64_t width) {
  Range all = {rows.begin * width, rows.end * width};
  Neighbours x;
  for (int t = 0; t < 3; ++t) {
    x.maps[3 * t] = frames[t] - above * width;
    x.maps[3 * t + 1] = frames[t];
    x.maps[3 * t + 2] = frames[t] + below * width;
  }
  for (int64_t begin = all.begin; begin < all.end; begin += kRun)
    grow_run(y, x, all, {begin, smaller(begin + kRun, all.end)}, width);
}

void grow(const GrowSupport& a) {
  const Shape s = shape_of(a);
  int64_t size = rows_of(s) * s.width;
  auto move = [&](SequenceWalk& walk, int64_t f) { walk.to_frame(s.seq_lens, f); };
  for_each_frame(s, frames_of(s), size, move, [&](int64_t f, const SequenceWalk& walk) {
    const uint8_t* own = a.x + f * size;
    bool is_first = f == walk.frames, is_last = f + 1 == walk.frames + s.seq_lens[walk.sequence];
    const uint8_t* const frames[3] = {is_first ? own : own - size, own, is_last ? own : own + size};
    for (int64_t r = 0; r < s.regions; ++r) {
      Range rows = region_rows(s, r);
      if (rows.size() < 3) {
        for (int64_t h = rows.begin; h < rows.end; ++h)
          grow_rows(a.y + f * size, frames, {h, h + 1}, h > rows.begin, h + 1 < rows.end, s.width);
        continue;
      }
      grow_rows(a.y + f * size, frames, {rows.begin, rows.begin + 1}, 0, 1, s.width);
      grow_rows(a.y + f * size, frames, {rows.begin + 1, rows.end - 1}, 1, 1, s.width);
      grow_rows(a.y + f * size, frames, {rows.end - 1, rows.end}, 1, 0, s.width);
    }
  });
}

// Any of the window's frames, of `size` positions each.
void join_frames(uint8_t* __restrict y, const uint8_t* x, const Window& window, int64_t size) {
  const uint8_t* from[kWindowFrames];
  for (int64_t j = 0; j < kWindowFrames; ++j) from[j] = x + window.frames[j] * size;
  const uint8_t *v0 = from[0], *v1 = from[1], *v2 = from[2], *v3 = from[3], *v4 = from[4];
  for (int64_t i = 0; i < size; ++i) y[i] = v0[i] | v1[i] | v2[i] | v3[i] | v4[i];
}

void window(const WindowSupport& a) {
  const Shape s = undivided_shape_of(a);
  int64_t size = a.h * a.w;
  auto move = [&](SequenceWalk& walk, int64_t f) { walk.to_window(s.seq_lens, f); };
  for_each_frame(s, total_windows(s), size, move, [&](int64_t f, const SequenceWalk& walk) {
    join_frames(a.y + f * size, a.x, window_at(walk.frames, s.seq_lens[walk.sequence], f - walk.windows), size);
  });
}

void max_pool(const MaxPoolSupport& a) {
  int64_t rows = a.h / 2, width = a.w / 2;
  for (int64_t f = 0; f < a.frames; ++f)
    for (int64_t i = 0; i < rows; ++i) {
      const uint8_t *upper = a.x + (f * a.h + 2 * i) * a.w, *lower = upper + a.w;
      uint8_t* __restrict to = a.y + (f * rows + i) * width;
      for (int64_t q = 0; q < width; ++q) to[q] = upper[2 * q] | upper[2 * q + 1] | lower[2 * q] | lower[2 * q + 1];
    }
}

}  // namespace

void fill_support(Tables& tables) {
  tables.supports.find = find;
  tables.supports.grow = grow;
  tables.supports.window = window;
  tables.supports.max_pool = max_pool;
}

}  // namespace HSTL_ISA
}  // namespace hstl
