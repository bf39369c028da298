// fta: every third frame, a gated sum of two maxima over the frames around it. a = maximum of 3 frames, b of 5, z =
// mean of a + b over each region [F', m, C], s = softmax over (W_a z, W_b z): y = s_a a + s_b b [F', H, W, C].
#include "arena.h"
#include "operators.h"
#include "parallel.h"
#include "sequences.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// A feature map as the frames of one window: element e of frame j is at data + frames[j] * size + e.
template <class T>
struct Map {
  const T* data;
  int64_t size;                      // elements of a frame
  const uint8_t* support = nullptr;  // [F, H, W] or null: outside, a map counts as 0 and is not read
  int64_t positions = 0;             // of a frame

  bool is_inside(int64_t frame, int64_t position) const { return !support || support[frame * positions + position]; }
};

template <class T>
struct Maxima {
  Vec<T> a, b;
  IntVec<T> a_frame, b_frame;  // of the window's five
};

template <class T>
HSTL_INLINE void take_larger(Vec<T>& best, IntVec<T>& best_frame, Vec<T> v, IntVec<T> frame) {
  IntVec<T> better = replaces<T>(v, best);
  best = better ? v : best;
  best_frame = better ? frame : best_frame;
}

template <class T>
HSTL_INLINE Maxima<T> maxima(const Map<T>& x, const Window& window, int64_t position, int64_t e, int64_t valid) {
  using Lane = typename Simd<T>::Lane;
  Vec<T> v[5];
  for (int j = 0; j < 5; ++j)
    v[j] =
        x.is_inside(window.frames[j], position) ? load_some(x.data + window.frames[j] * x.size + e, valid) : Vec<T>{};
  Maxima<T> m = {v[1], v[0], IntVec<T>{} + Lane(1), IntVec<T>{}};
  take_larger<T>(m.a, m.a_frame, v[2], IntVec<T>{} + Lane(2));
  take_larger<T>(m.a, m.a_frame, v[3], IntVec<T>{} + Lane(3));
  take_larger<T>(m.b, m.b_frame, m.a, m.a_frame);
  take_larger<T>(m.b, m.b_frame, v[4], IntVec<T>{} + Lane(4));
  return m;
}

// Rows of a map's frame, and the frame's support or null: outside, nothing is read.
struct Rows {
  Range rows;
  int64_t width;
  const uint8_t* support;  // [H, W]

  bool skips(int64_t position) const { return support && !support[position]; }
};

// sums[k] = sum of term(position, e, valid) over the region's elements e of channels k..k+V*lanes-1: row by row, so
// that float32 rounds little.
template <int V, class T, class Term>
HSTL_INLINE void sum_channels(T* sums, const Rows& region, int64_t c, int64_t k, const Term& term) {
  Vec<T> totals[V] = {};
  for (int64_t h = region.rows.begin; h < region.rows.end; ++h) {
    Vec<T> row[V] = {};
    for (int64_t at = h * region.width; at < (h + 1) * region.width; ++at) {
      if (region.skips(at)) continue;
      for (int v = 0; v < V; ++v) row[v] += term(at, at * c + k + v * lanes<T>, c - k - v * lanes<T>);
    }
    for (int v = 0; v < V; ++v) totals[v] += row[v];
  }
  for (int v = 0; v < V; ++v) store_some(sums + k + v * lanes<T>, totals[v], c - k - v * lanes<T>);
}

// Sums all channels, some at a time. Bytes: 5 frames of the region, each element read once.
template <class T, class Term>
HSTL_INLINE void sum_region(T* sums, const Rows& region, int64_t c, const Term& term) {
  int64_t k = 0;
  for (; k + 4 * lanes<T> <= c; k += 4 * lanes<T>) sum_channels<4>(sums, region, c, k, term);
  for (; k < c; k += lanes<T>) sum_channels<1>(sums, region, c, k, term);
}

template <class T>
T dot(const T* a, const T* b, int64_t n) {
  Vec<T> sums = {};
  for (int64_t i = 0; i < n; i += lanes<T>) sums += load_some(a + i, n - i) * load_some(b + i, n - i);
  return sum<T>(sums);
}

// gate [C] = softmax's first part: 1 / (1 + exp(u_b - u_a))
template <class T>
void gates(T* gate, const T* z, const T* w, const T* biases, int64_t c) {
  for (int64_t o = 0; o < c; ++o) {
    T ua = biases[o] + dot(w + o * c, z, c), ub = biases[c + o] + dot(w + (c + o) * c, z, c);
    gate[o] = T(1) / (T(1) + T(__builtin_exp(double(ub - ua))));
  }
}

template <class T>
int64_t largest_region(const Shape& s, int64_t c) {
  int64_t rows = 0;
  for (int64_t r = 0; r < s.regions; ++r) rows = larger(rows, s.split[r]);
  return rows * s.width * c;
}

// Memory for both directions: three vectors per window and region (the forward needs one), and a map of b.
template <class T>
struct Scratch {
  T *gate, *gu, *gz;  // [F', m, C]
  T* b;               // [threads][b_size]
  int64_t b_size;
};

template <class T>
Scratch<T> allocate(Arena& arena, const Shape& s, int64_t c) {
  int64_t vectors = total_windows(s) * s.regions * c;
  Scratch<T> scratch;
  scratch.gate = arena.allocate<T>(vectors);
  scratch.gu = arena.allocate<T>(vectors);
  scratch.gz = arena.allocate<T>(vectors);
  scratch.b_size = round_up(largest_region<T>(s, c), 64);
  scratch.b = arena.allocate<T>(s.threads * scratch.b_size);
  return scratch;
}

template <class T>
size_t fta_workspace(const FtaWorkspace<T>& a) {
  Arena arena(nullptr);
  allocate<T>(arena, shape_of(a), a.c);
  return arena.bytes();
}

// y = share a + (1 - share) b where y holds a, and b the region's; 0 outside the support.
template <class T>
void blend(T* y, const T* b, const T* shares, const Rows& region, int64_t c) {
  for (int64_t at = region.rows.begin * region.width; at < region.rows.end * region.width; ++at, b += c) {
    if (region.skips(at)) {
      __builtin_memset(y + at * c, 0, c * sizeof(T));
      continue;
    }
    for (int64_t k = 0; k < c; k += lanes<T>) {
      Vec<T> share = load_some(shares + k, c - k), a = load_some(y + at * c + k, c - k);
      store_some(y + at * c + k, share * a + (T(1) - share) * load_some(b + k, c - k), c - k);
    }
  }
}

// Output frame f's window.
inline Window window_of(const Shape& s, SequenceWalk& walk, int64_t f) {
  walk.to_window(s.seq_lens, f);
  return window_at(walk.frames, s.seq_lens[walk.sequence], f - walk.windows);
}

// Bytes: x is read once per window, 5/3 times in all; a waits in y and b in second-level cache until the gate is known.
template <class T>
void fta_forward(const FtaForward<T>& args) {
  const Shape s = shape_of(args);
  const int64_t c = args.c;
  Map<T> map = {args.x, rows_of(s) * s.width * c, args.x_support, rows_of(s) * s.width};
  Arena arena(args.workspace);
  Scratch<T> scratch = allocate<T>(arena, s, c);
  parallel_walk<SequenceWalk>(s.threads, total_windows(s) * s.regions, [&](int64_t i, int thread, SequenceWalk& walk) {
    int64_t f = i / s.regions, r = i % s.regions;
    Window window = window_of(s, walk, f);
    Rows region = {region_rows(s, r), s.width, args.y_support ? args.y_support + f * (map.size / c) : nullptr};
    int64_t first = region.rows.begin * s.width * c;
    T *means = args.means + i * c, *shares = scratch.gate + i * c, *a = args.y + f * map.size,
      *b = scratch.b + thread * scratch.b_size;
    sum_region(means, region, c, [&](int64_t position, int64_t e, int64_t valid) {
      Maxima<T> m = maxima(map, window, position, e, valid);
      store_some(a + e, m.a, valid);
      store_some(b + e - first, m.b, valid);
      return m.a + m.b;
    });
    for (int64_t k = 0; k < c; ++k) means[k] /= T(region.rows.size() * s.width);
    gates(shares, means, args.weights + r * 2 * c * c, args.biases + r * 2 * c, c);
    blend(a, b, shares, region, c);
  });
}

// Vectors [F', m, C] of every window and region: gate, as in the forward; gu, the gradient of W_a z + b_a (that of W_b
// z + b_b is its negative); gz, the gradient of a and b through their mean.
template <class T>
struct Gradients {
  T *gate, *gu, *gz;
};

// W is what fta_forward got: [2, C, C] of one region.
template <class T>
void gate_backward(const Gradients<T>& to, const T* w, int64_t positions, int64_t c) {
  for (int64_t k = 0; k < c; ++k) to.gu[k] *= to.gate[k] * (T(1) - to.gate[k]);
  for (int64_t k = 0; k < c; k += lanes<T>) {
    Vec<T> sum = {};
    for (int64_t o = 0; o < c; ++o)
      sum += to.gu[o] * (load_some(w + o * c + k, c - k) - load_some(w + (c + o) * c + k, c - k));
    store_some(to.gz + k, sum / T(positions), c - k);
  }
}

// Computes a row of gweights[r] = sum over windows of gu z^T, in two levels, and its negative; the same for the biases.
template <class T>
void weights_backward(T* gw, T* gbiases, const T* gu, const T* z, int64_t outputs, int64_t stride, int64_t c) {
  constexpr int64_t kSummed = 32;
  for (int64_t k = 0; k < c; k += lanes<T>) {
    Vec<T> total = {};
    for (int64_t first = 0; first < outputs; first += kSummed) {
      Vec<T> part = {};
      for (int64_t f = first; f < smaller(first + kSummed, outputs); ++f)
        part += gu[f * stride] * load_some(z + f * stride + k, c - k);
      total += part;
    }
    store_some(gw + k, total, c - k);
    store_some(gw + c * c + k, -total, c - k);
  }
  double sum = 0;
  for (int64_t f = 0; f < outputs; ++f) sum += double(gu[f * stride]);
  gbiases[0] = T(sum);
  gbiases[c] = T(-sum);
}

// Elements of one row that are followed through a sequence: their frames of x and gx stay in L1.
constexpr int64_t kElements = 1024;

// A window's part in the gradients of its five frames.
template <class T>
struct FrameGradients {
  Vec<T> of[kWindowFrames];
};

// ga goes to the first of frames 1 to 3 that attains a; gb to the first of all that attains b.
template <class T>
HSTL_INLINE FrameGradients<T> frame_gradients(const Vec<T> (&v)[kWindowFrames], Vec<T> ga, Vec<T> gb) {
  const Vec<T> zero = {};
  IntVec<T> second = replaces<T>(v[2], v[1]);
  Vec<T> a = second ? v[2] : v[1];
  IntVec<T> third = replaces<T>(v[3], a);
  a = third ? v[3] : a;
  IntVec<T> inner = replaces<T>(a, v[0]), last = replaces<T>(v[4], inner ? a : v[0]);
  Vec<T> not_last = last ? zero : gb, both = ga + (inner ? not_last : zero), not_third = third ? zero : both;
  return {{inner ? zero : not_last, second ? zero : not_third, second ? not_third : zero, third ? both : zero,
           last ? gb : zero}};
}

// Elements [begin, end) of row `row` and all frames of a sequence.
struct Column {
  int64_t begin, end, part;            // part: the row's region
  int64_t first_frame, frames, first;  // first: its first window among all
};

inline Column column_of(const Shape& s, int64_t c, const SequenceWalk& walk, int64_t h, Range columns) {
  int64_t first = h * s.width, part = 0;
  while (region_rows(s, part).end <= h) ++part;
  return {(first + columns.begin) * c,
          (first + columns.end) * c,
          part,
          walk.frames,
          s.seq_lens[walk.sequence],
          walk.windows};
}

// Adds a window's part to the gradients of its frames. Frames -1 and 0 of the window's three were begun by the window
// before, as its frames 3 and 4; the others begin here.
template <class T>
void window_backward(T* gx, const T* gy, const Map<T>& map, const Gradients<T>& from, const Column& column, int64_t t,
                     const uint8_t* support, int64_t c) {
  const int64_t frame = t * kWindowStride, left = column.frames - frame;
  T* g = gx + (column.first_frame + frame) * map.size;
  const T* x = map.data + (column.first_frame + frame) * map.size;
  const int64_t before = t ? -map.size : 0, after = left > 3 ? 3 * map.size : 2 * map.size;
  for (int64_t first = column.begin; first < column.end; first += c) {
    if (support && !support[first / c]) {
      for (int64_t f = t ? 1 : 0; f < (left > 3 ? 4 : 3); ++f)
        __builtin_memset(g + f * map.size + first, 0, c * sizeof(T));
      continue;
    }
    for (int64_t k = 0; k < c; k += lanes<T>) {
      int64_t e = first + k, valid = c - k;
      const Vec<T> v[kWindowFrames] = {load_some(x + e + before, valid), load_some(x + e, valid),
                                       load_some(x + e + map.size, valid), load_some(x + e + 2 * map.size, valid),
                                       load_some(x + e + after, valid)};
      Vec<T> share = load_some(from.gate + k, valid), mean = load_some(from.gz + k, valid);
      Vec<T> arriving = load_some(gy + e, valid);
      FrameGradients<T> add = frame_gradients<T>(v, arriving * share + mean, arriving * (T(1) - share) + mean);
      Vec<T> own = add.of[1];
      if (t) {
        store_some(g + e - map.size, load_some(g + e - map.size, valid) + add.of[0], valid);
        own += load_some(g + e, valid);
      } else {
        own += add.of[0];
      }
      store_some(g + e, own, valid);
      store_some(g + e + map.size, add.of[2], valid);
      store_some(g + e + 2 * map.size, add.of[3], valid);
      if (left > 3) store_some(g + e + 3 * map.size, add.of[4], valid);
    }
  }
}

// gx of a column. Bytes: x and gy read, gx written once; what two windows share stays in first-level cache.
template <class T>
void column_backward(T* gx, const T* gy, const Map<T>& map, const Gradients<T>& from, const Shape& s, int64_t c,
                     const uint8_t* support, const Column& column) {
  int64_t windows = windows_of(column.frames), size = (column.end - column.begin) * int64_t(sizeof(T));
  for (int64_t t = 0; t < windows; ++t) {
    int64_t f = column.first + t, part = (f * s.regions + column.part) * c;
    Gradients<T> own = {from.gate + part, from.gu + part, from.gz + part};
    window_backward(gx, gy + f * map.size, map, own, column, t, support ? support + f * (map.size / c) : nullptr, c);
  }
  for (int64_t f = windows ? windows * kWindowStride + 1 : 0; f < column.frames; ++f)
    __builtin_memset(gx + (column.first_frame + f) * map.size + column.begin, 0, size);
}

template <class T>
void fta_backward(const FtaBackward<T>& a) {
  const Shape s = shape_of(a);
  const int64_t c = a.c;
  Map<T> map = {a.x, rows_of(s) * s.width * c};
  int64_t outputs = total_windows(s), stride = s.regions * c, height = rows_of(s);
  Arena arena(a.workspace);
  Scratch<T> scratch = allocate<T>(arena, s, c);
  Gradients<T> all = {scratch.gate, scratch.gu, scratch.gz};
  parallel_walk<SequenceWalk>(s.threads, outputs * s.regions, [&](int64_t i, int, SequenceWalk& walk) {
    int64_t f = i / s.regions, r = i % s.regions;
    Window window = window_of(s, walk, f);
    Rows region = {region_rows(s, r), s.width, a.y_support ? a.y_support + f * (map.size / c) : nullptr};
    Gradients<T> mine = {all.gate + i * c, all.gu + i * c, all.gz + i * c};
    gates(mine.gate, a.means + i * c, a.weights + r * 2 * c * c, a.biases + r * 2 * c, c);
    sum_region(mine.gu, region, c, [&](int64_t position, int64_t e, int64_t valid) {
      Maxima<T> m = maxima(map, window, position, e, valid);
      return load_some(a.grad + f * map.size + e, valid) * (m.a - m.b);
    });
    gate_backward(mine, a.weights + r * 2 * c * c, region.rows.size() * s.width, c);
  });
  parallel_for(s.threads, s.regions * c, [&](int64_t i, int) {
    int64_t r = i / c, o = i % c;
    weights_backward(a.gweights + (r * 2 * c + o) * c, a.gbiases + r * 2 * c + o, all.gu + i, a.means + r * c, outputs,
                     stride, c);
  });
  int64_t chunks = smaller(ceil_div(s.width * c, kElements), s.width);
  parallel_walk<SequenceWalk>(s.threads, s.sequences * height * chunks, [&](int64_t i, int, SequenceWalk& walk) {
    int64_t n = i / chunks / height, h = i / chunks % height;
    walk.to_sequence(s.seq_lens, n);
    Column column = column_of(s, c, walk, h, chunk_of(s.width, chunks, i % chunks));
    column_backward(a.gx, a.grad, map, all, s, c, a.y_support, column);
  });
}

template <class T>
void fill(Operators<T>& table) {
  table.fta_workspace = fta_workspace<T>;
  table.fta_forward = fta_forward<T>;
  table.fta_backward = fta_backward<T>;
}

}  // namespace

void fill_fta(Tables& tables) {
  fill(tables.float32);
  fill(tables.float64);
}

}  // namespace HSTL_ISA
}  // namespace hstl
