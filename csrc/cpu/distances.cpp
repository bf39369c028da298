// Distances of probes [n, parts, c] to gallery sequences [k, parts, c]: the mean over the parts of the Euclidean or the
// cosine distance. The Euclidean one is that of the product form |a|^2 + |b|^2 - 2ab, whose cancellation is harmless
// where the distance is large against the norms; elsewhere a part's distance is computed again from differences. For
// few probes all are: see `difference_distances`.
//
// The model of the cost, per pair of sequences and part: 2 c FLOPs of the product against one square root, four
// operations and the addition to a tile: for c = 256 on Zen 4 16 pairs take 256 cycles of multiply-adds and about 14 of
// the rest. A task is kProbes probes against kRows gallery sequences. For each part it reads kProbes * c packed values
// of probes (512 KiB for c = 256) and adds to kProbes * kRows sums (224 KiB), both in the second-level cache, and
// copies kRows * c values of the gallery once: 4 bytes from memory for 2 kProbes FLOPs, below 1 GB/s at 228 GFLOP/s.
// The output is written once, after the last part.
#include "arena.h"
#include "operators.h"
#include "parallel.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Gallery sequences and probes whose products are in registers together: kTile x 2 sums, 2 probes' vectors, 1 value.
constexpr int kTile = kVectorRegisters == 32 ? 14 : 6;
template <class T>
constexpr int kPanel = 2 * lanes<T>;
// Probes and, at most, gallery sequences of a task.
constexpr int64_t kProbes = 512;
constexpr int64_t kTiles = 112 / kTile;
constexpr int64_t kRows = kTiles * kTile;
// Terms summed in a row before their sum is added to the total: keeps the rounding small. It is part of the bound in
// hstl_fast/evaluation/distances.py.
constexpr int64_t kSummed = 64;
// Share of |a|^2 + |b|^2 up to which a squared distance is computed from differences; part of that bound, too.
constexpr double kNear = 1.0 / 16;
// The norm that a vector is divided by is at least this, as in torch.nn.functional.normalize.
constexpr double kLeastNorm = 1e-12;

HSTL_INLINE float root(float x) { return __builtin_sqrtf(x); }
HSTL_INLINE double root(double x) { return __builtin_sqrt(x); }

template <class T>
struct Packed {
  T* probes;   // [parts][panels][channels][kPanel], the channels padded by zeros to whole vectors
  T* squares;  // [parts][panels * kPanel] squared norms
  int64_t panels, channels;
};

// What one thread works with.
template <class T>
struct Scratch {
  T* rows;      // [channels / lanes][kTile][lanes] of gallery sequences
  T* squares;   // [kTile]
  T* products;  // [kTile][kPanel]
  T* sums;      // [kTiles][kProbes / kPanel][kTile][kPanel], over the parts
};

template <class T>
struct Workspace {
  Packed<T> packed;
  Scratch<T> first;
  int64_t stride;  // bytes from one thread's scratch memory to the next one's
  size_t bytes;

  Scratch<T> of_thread(int thread) const {
    auto move = [&](T* array) { return reinterpret_cast<T*>(reinterpret_cast<char*>(array) + thread * stride); };
    return {move(first.rows), move(first.squares), move(first.products), move(first.sums)};
  }
};

template <class T>
Workspace<T> workspace_at(void* memory, int64_t n, int64_t parts, int64_t c, int threads) {
  Arena arena(memory);
  Workspace<T> w;
  w.packed.panels = ceil_div(n, kPanel<T>);
  w.packed.channels = round_up(c, lanes<T>);
  w.packed.probes = arena.allocate<T>(parts * w.packed.panels * w.packed.channels * kPanel<T>);
  w.packed.squares = arena.allocate<T>(parts * w.packed.panels * kPanel<T>);
  size_t before = arena.used;
  w.first.rows = arena.allocate<T>(w.packed.channels * kTile);
  w.first.squares = arena.allocate<T>(kTile);
  w.first.products = arena.allocate<T>(kTile * kPanel<T>);
  w.first.sums = arena.allocate<T>(kRows * kProbes);
  w.stride = int64_t(arena.used - before);
  arena.used += size_t(threads - 1) * size_t(w.stride);
  w.bytes = arena.bytes();
  return w;
}

// The sum of term(i, valid) over the vectors of c values: in four sums, so that each adds few terms.
template <class T, class Term>
HSTL_INLINE T sum_of(int64_t c, const Term& term) {
  Vec<T> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * lanes<T> <= c; i += 4 * lanes<T>)
    for (int v = 0; v < 4; ++v) sums[v] += term(i + v * lanes<T>, lanes<T>);
  for (; i < c; i += lanes<T>) sums[0] += term(i, c - i);
  return sum<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// One vector: moved by the centre, or divided by its norm.
template <class T>
struct Prepared {
  const T* x;
  const T* centre;  // or null
  T scale, square;

  HSTL_INLINE Vec<T> at(int64_t i, int64_t valid) const {
    Vec<T> v = load_some(x + i, valid);
    return (centre ? v - load_some(centre + i, valid) : v) * scale;
  }
};

template <class T>
__attribute__((noinline)) Prepared<T> prepared(const PartDistances<T>& a, const T* x, int64_t part) {
  Prepared<T> v = {x, a.cosine || !a.centre ? nullptr : a.centre + part * a.c, 1, 0};
  v.square = sum_of<T>(a.c, [&](int64_t i, int64_t valid) {
    Vec<T> value = v.at(i, valid);
    return value * value;
  });
  if (a.cosine) {
    T norm = root(v.square);
    v.scale = T(1) / (norm > T(kLeastNorm) ? norm : T(kLeastNorm));
  }
  return v;
}

// kPanel probes of one part, transposed.
template <class T>
void pack_panel(const PartDistances<T>& a, const Packed<T>& packed, int64_t part, int64_t panel) {
  T* to = packed.probes + (part * packed.panels + panel) * packed.channels * kPanel<T>;
  T* squares = packed.squares + (part * packed.panels + panel) * kPanel<T>;
  for (int j = 0; j < kPanel<T>; ++j) {
    int64_t i = panel * kPanel<T> + j;
    Prepared<T> probe = {nullptr, nullptr, 1, 0};
    if (i < a.n) probe = prepared(a, a.probe + (i * a.parts + part) * a.c, part);
    squares[j] = probe.square;
    for (int64_t k = 0; k < packed.channels; k += lanes<T>) {
      Vec<T> v = i < a.n ? probe.at(k, a.c - k) : Vec<T>{};
      for (int l = 0; l < lanes<T>; ++l) to[(k + l) * kPanel<T> + j] = v[l];
    }
  }
}

// kTile gallery sequences of one part from `first` on; zeros past the last.
template <class T>
void copy_rows(const PartDistances<T>& a, const Scratch<T>& scratch, int64_t part, int64_t first, int64_t channels) {
  for (int r = 0; r < kTile; ++r) {
    bool valid = first + r < a.k;
    Prepared<T> row = {nullptr, nullptr, 1, 0};
    if (valid) row = prepared(a, a.gallery + (a.order[first + r] * a.parts + part) * a.c, part);
    scratch.squares[r] = row.square;
    for (int64_t k = 0; k < channels; k += lanes<T>)
      store(scratch.rows + k * kTile + r * lanes<T>, valid ? row.at(k, a.c - k) : Vec<T>{});
  }
}

// out [kTile][kPanel] = rows x probes. FLOPs: 2 * channels * kTile * kPanel. Registers: 2 kTile sums, 2 vectors of
// probes, 1 value. Per channel 2 vectors of probes (from the second-level cache) and kTile broadcasts from the first.
template <class T>
__attribute__((noinline)) void multiply(T* out, const T* rows, const T* probes, int64_t channels) {
  for (int64_t first = 0; first < channels; first += kSummed) {
    Vec<T> sums[kTile][2] = {};
    for (int64_t k = first; k < smaller(first + kSummed, channels); k += lanes<T>, rows += kTile * lanes<T>)
      for (int l = 0; l < lanes<T>; ++l, probes += kPanel<T>) {
        Vec<T> p0 = load(probes), p1 = load(probes + lanes<T>);
#pragma GCC unroll 16
        for (int r = 0; r < kTile; ++r) {
          sums[r][0] += p0 * rows[r * lanes<T> + l];
          sums[r][1] += p1 * rows[r * lanes<T> + l];
        }
      }
#pragma GCC unroll 16
    for (int r = 0; r < kTile; ++r)
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        T* to = out + r * kPanel<T> + i * lanes<T>;
        store(to, first ? load(to) + sums[r][i] : sums[r][i]);
      }
  }
}

// The distance of two vectors from their differences: exactly 0 for equal ones.
template <class T>
__attribute__((noinline)) T from_differences(const T* a, const T* b, int64_t c) {
  return root(sum_of<T>(c, [&](int64_t i, int64_t valid) {
    Vec<T> difference = load_some(a + i, valid) - load_some(b + i, valid);
    return difference * difference;
  }));
}

// Turns products into distances in place, NaN where the distance is small against the norms or not finite; returns
// whether there is one.
template <class T>
__attribute__((noinline)) bool roots(T* products, const T* row_squares, const T* probe_squares) {
  IntVec<T> any = {};
  for (int r = 0; r < kTile; ++r)
    for (int i = 0; i < kPanel<T>; i += lanes<T>) {
      T* at = products + r * kPanel<T> + i;
      Vec<T> norms = load(probe_squares + i) + row_squares[r];
      Vec<T> square = norms - load(at) * T(2);
      IntVec<T> near = ~(square > norms * T(kNear));
      any |= near;
      store(at, near ? broadcast(T(-1)) : square);
    }
  for (int i = 0; i < kTile * kPanel<T>; ++i) products[i] = root(products[i]);
  for (int i = 0; i < lanes<T>; ++i)
    if (any[i]) return true;
  return false;
}

// Replaces the NaN of kTile gallery sequences from `row` and kPanel probes from `probe` on.
template <class T>
void replace_near(const PartDistances<T>& a, T* distances, int64_t part, int64_t row, int64_t probe) {
  for (int r = 0; r < kTile; ++r)
    for (int i = 0; i < kPanel<T>; ++i) {
      T& distance = distances[r * kPanel<T> + i];
      if (distance == distance || row + r >= a.k || probe + i >= a.n) continue;
      distance = from_differences(a.probe + ((probe + i) * a.parts + part) * a.c,
                                  a.gallery + (a.order[row + r] * a.parts + part) * a.c, a.c);
    }
}

// The means of a task's sums, transposed into the output.
template <class T>
void write_means(const PartDistances<T>& a, const T* sums, Range probes, Range rows) {
  const int64_t panels = ceil_div(probes.size(), kPanel<T>);
  const T parts = T(a.parts);
  for (int64_t i = 0; i < probes.size(); ++i) {
    const T* of_probe = sums + i / kPanel<T> * kTile * kPanel<T> + i % kPanel<T>;
    T* to = a.distances + (probes.begin + i) * a.k + rows.begin;
    for (int64_t j = 0; j < rows.size(); ++j) {
      T mean = of_probe[(j / kTile * panels * kTile + j % kTile) * kPanel<T>] / parts;
      to[j] = a.cosine ? T(1) - mean : mean;
    }
  }
}

// All distances of kProbes probes and kRows gallery sequences, or of those that are left.
template <class T>
void distances_of_task(const PartDistances<T>& a, const Packed<T>& packed, const Scratch<T>& scratch, Range probes,
                       Range rows) {
  const int64_t panels = ceil_div(probes.size(), kPanel<T>), first_panel = probes.begin / kPanel<T>;
  const int64_t tile_size = kTile * kPanel<T>;
  for (int64_t part = 0; part < a.parts; ++part)
    for (int64_t row = rows.begin; row < rows.end; row += kTile) {
      copy_rows(a, scratch, part, row, packed.channels);
      T* sums = scratch.sums + (row - rows.begin) / kTile * panels * tile_size;
      for (int64_t panel = first_panel; panel < first_panel + panels; ++panel, sums += tile_size) {
        const int64_t at = part * packed.panels + panel;
        multiply(scratch.products, scratch.rows, packed.probes + at * packed.channels * kPanel<T>, packed.channels);
        if (!a.cosine && roots(scratch.products, scratch.squares, packed.squares + at * kPanel<T>))
          replace_near(a, scratch.products, part, row, panel * kPanel<T>);
        for (int64_t i = 0; i < tile_size; ++i) sums[i] = part ? sums[i] + scratch.products[i] : scratch.products[i];
      }
    }
  write_means(a, scratch.sums, probes, rows);
}

template <class T>
size_t part_distances_workspace(const PartDistancesWorkspace<T>& a) {
  return workspace_at<T>(nullptr, a.n, a.parts, a.c, usable_threads(a.threads)).bytes;
}

template <class T>
void part_distances(const PartDistances<T>& a) {
  const int threads = usable_threads(a.threads);
  const Workspace<T> workspace = workspace_at<T>(a.workspace, a.n, a.parts, a.c, threads);
  const Packed<T>& packed = workspace.packed;
  parallel_for(threads, a.parts * packed.panels,
               [&](int64_t i, int) { pack_panel(a, packed, i / packed.panels, i % packed.panels); });
  const int64_t blocks = ceil_div(a.n, kProbes), chunks = ceil_div(a.k, kRows);
  parallel_for(threads, blocks * chunks, [&](int64_t i, int thread) {
    const int64_t probe = i / chunks * kProbes, row = i % chunks * kRows;
    distances_of_task(a, packed, workspace.of_thread(thread), {probe, smaller(probe + kProbes, a.n)},
                      {row, smaller(row + kRows, a.k)});
  });
}

// ---- few probes

// Gallery rows that are compared with a probe together, parts whose squared distances are kept until their roots are
// found, probes whose sums are kept, and rows of a task.
constexpr int kRowsTogether = 4;
constexpr int kPartsTogether = 4;
constexpr int kKept = kRowsTogether * kPartsTogether;
constexpr int64_t kProbesTogether = 16;
constexpr int64_t kRowsOfTask = 64;

// The sum of the lanes, halves added to halves.
template <class T>
HSTL_INLINE T sum_of_halves(Vec<T> v) {
  T left[lanes<T>];
  store(left, v);
#pragma GCC unroll 8
  for (int half = lanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) left[i] += left[i + half];
  return left[0];
}

// The squared distances of a part of a probe to that of kRowsTogether rows, from differences: one sum for each row, so
// that c / lanes terms are added in a row, and the lanes after them.
template <class T>
HSTL_INLINE void squared_differences(T* squares, const T* probe, const T* const* rows, int64_t c) {
  Vec<T> sums[kRowsTogether] = {};
  int64_t i = 0;
  for (; i + lanes<T> <= c; i += lanes<T>) {
    Vec<T> p = load(probe + i);
    for (int r = 0; r < kRowsTogether; ++r) {
      Vec<T> difference = p - load(rows[r] + i);
      sums[r] += difference * difference;
    }
  }
  for (int r = 0; r < kRowsTogether; ++r) {
    if (i < c) {
      Vec<T> difference = load_some(probe + i, c - i) - load_some(rows[r] + i, c - i);
      sums[r] += difference * difference;
    }
    squares[r] = sum_of_halves<T>(sums[r]);
  }
}

// Adds to the sums [n][kKept] the distances of n probes to kRowsTogether rows in some parts from `first` on.
template <class T>
__attribute__((noinline)) void add_parts(T* sums, const DifferenceDistances<T>& a, const T* probe, int64_t n,
                                         const T* const* rows, int64_t first) {
  const int64_t end = smaller(first + kPartsTogether, a.parts);
  for (int64_t j = 0; j < n; ++j, probe += a.parts * a.c, sums += kKept) {
    T squares[kKept] = {};
    for (int64_t part = first; part < end; ++part) {
      const T* of_part[kRowsTogether];
      for (int r = 0; r < kRowsTogether; ++r) of_part[r] = rows[r] + part * a.c;
      squared_differences(squares + (part - first) * kRowsTogether, probe + part * a.c, of_part, a.c);
    }
    for (int i = 0; i < kKept; ++i) sums[i] += root(squares[i]);
  }
}

// The distances of all probes to kRowsTogether rows from `row` on, or to those that are left.
template <class T>
void distances_of_rows(const DifferenceDistances<T>& a, int64_t row) {
  const T* rows[kRowsTogether];
  for (int r = 0; r < kRowsTogether; ++r) rows[r] = a.gallery + smaller(row + r, a.k - 1) * a.parts * a.c;
  for (int64_t first = 0; first < a.n; first += kProbesTogether) {
    const int64_t n = smaller(kProbesTogether, a.n - first);
    T sums[kProbesTogether * kKept];
    for (int64_t i = 0; i < n * kKept; ++i) sums[i] = 0;
    for (int64_t part = 0; part < a.parts; part += kPartsTogether)
      add_parts(sums, a, a.probe + first * a.parts * a.c, n, rows, part);
    for (int64_t j = 0; j < n; ++j)
      for (int r = 0; r < smaller(kRowsTogether, a.k - row); ++r) {
        T total = 0;
        for (int p = 0; p < kPartsTogether; ++p) total += sums[j * kKept + p * kRowsTogether + r];
        a.distances[(first + j) * a.k + row + r] = total / T(a.parts);
      }
  }
}

// The model of the cost: c parts * 4 bytes of every gallery row from memory, once, and for each probe 2 c operations of
// vectors, the sum of their lanes and a root per part: for few probes memory is the limit, as nothing is copied.
template <class T>
void difference_distances(const DifferenceDistances<T>& a) {
  parallel_for(usable_threads(a.threads), ceil_div(a.k, kRowsOfTask), [&](int64_t task, int) {
    const int64_t end = smaller((task + 1) * kRowsOfTask, a.k);
    for (int64_t row = task * kRowsOfTask; row < end; row += kRowsTogether) distances_of_rows(a, row);
  });
}

// ---- single pairs

// Four sums, each of every fourth term, in double.
template <class T, class Term>
HSTL_INLINE double sum_in_double(int64_t c, const Term& term) {
  constexpr int width = lanes<double>;
  Vec<double> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * width <= c; i += 4 * width)
    for (int v = 0; v < 4; ++v)
      for (int l = 0; l < width; ++l) sums[v][l] += term(i + v * width + l);
  double rest = 0;
  for (; i < c; ++i) rest += term(i);
  return sum<double>((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

// The distance of two parts in double. Bytes: 2 c values from memory, which are the cost.
template <class T>
double distance_in_double(const T* a, const T* b, int64_t c, bool cosine) {
  if (!cosine)
    return root(sum_in_double<T>(c, [&](int64_t i) {
      double difference = double(a[i]) - double(b[i]);
      return difference * difference;
    }));
  auto dot = [&](const T* x, const T* y) {
    return sum_in_double<T>(c, [&](int64_t i) { return double(x[i]) * double(y[i]); });
  };
  double norms[2] = {root(dot(a, a)), root(dot(b, b))};
  for (double& norm : norms)
    if (norm < kLeastNorm) norm = kLeastNorm;
  return 1 - dot(a, b) / (norms[0] * norms[1]);
}

template <class T>
void pair_distances(const PairDistances<T>& a) {
  constexpr int64_t at_once = 64;
  parallel_for(usable_threads(a.threads), ceil_div(a.pairs, at_once), [&](int64_t chunk, int) {
    for (int64_t i = chunk * at_once; i < smaller((chunk + 1) * at_once, a.pairs); ++i) {
      const T* x = a.probe + a.probe_rows[i] * a.parts * a.c;
      const T* y = a.gallery + a.gallery_rows[i] * a.parts * a.c;
      double total = 0;
      for (int64_t p = 0; p < a.parts; ++p) total += distance_in_double(x + p * a.c, y + p * a.c, a.c, a.cosine);
      a.distances[i] = total / double(a.parts);
    }
  });
}

template <class T>
void fill(Operators<T>& table) {
  table.part_distances_workspace = part_distances_workspace<T>;
  table.part_distances = part_distances<T>;
  table.difference_distances = difference_distances<T>;
  table.pair_distances = pair_distances<T>;
}

}  // namespace

void fill_distances(Tables& tables) {
  fill(tables.float32);
  fill(tables.float64);
}

}  // namespace HSTL_ISA
}  // namespace hstl
