// astp: of the projection u [N, H, W, c_out] of the frame maximum [N, H, W, c_in] the mean of max(u, 1e-6)^p over each
// region, to the power 1 / p: pooled [N, m, c_out].
#include "arena.h"
#include "astp_foreground.h"
#include "astp_projection.h"
#include "frame_maximum.h"
#include "operators.h"
#include "parallel.h"
#include "powers.h"
#include "sequences.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Regions whose means are worth a second thread.
constexpr int64_t kWorthThreads = 16;
// Gradients of projections that are kept between two phases: in the third-level cache.
constexpr int64_t kGroupBytes = 8 << 20;

template <class T>
HSTL_INLINE Vec<T> clamped(Vec<T> u) {
  return u < T(1e-6) ? Vec<T>{} + T(1e-6) : u;
}

// The one whose power is larger. NaN wins.
template <class T>
HSTL_INLINE Vec<T> larger_power(Vec<T> a, Vec<T> b, T p) {
  IntVec<T> wins = (p < 0 ? b < a : b > a) | (b != b);
  return wins ? b : a;
}

// Of these clamped projections the one whose power is largest. A comparison waits for the one before it, so there are
// four series of them.
template <class T>
Vec<T> largest_power(const T* u, int64_t count, T p) {
  Vec<T> first = clamped<T>(load(u)), best[4] = {first, first, first, first};
  int64_t q = 1;
  for (; q + 4 <= count; q += 4)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) best[i] = larger_power<T>(best[i], clamped<T>(load(u + (q + i) * lanes<T>)), p);
  for (; q < count; ++q) best[0] = larger_power<T>(best[0], clamped<T>(load(u + q * lanes<T>)), p);
  return larger_power<T>(larger_power<T>(best[0], best[1], p), larger_power<T>(best[2], best[3], p), p);
}

template <class T>
struct Pooling {
  const T* maximum;  // [N, H, W, c_in]
  const T* p;        // [m]
  Projection<T> projection;
};

// Positions of a region that are pooled together: their projections stay in L1. They depend on sizes alone, so that
// results do not depend on the number of threads.
constexpr int64_t kPositions = 4 * kTile;

struct PositionChunk {
  int64_t region;
  Range positions;  // of the map
};

int64_t chunks_of(const Shape& s, int64_t region) { return ceil_div(s.split[region] * s.width, kPositions); }

// The chunks of a map, those of region r from firsts[r] on.
struct Chunks {
  PositionChunk* all;
  int64_t* firsts;  // [m + 1]
};

void find_chunks(const Chunks& chunks, const Shape& s) {
  int64_t count = 0, first = 0;
  for (int64_t r = 0; r < s.regions; ++r) {
    int64_t positions = s.split[r] * s.width, parts = chunks_of(s, r);
    chunks.firsts[r] = count;
    for (int64_t i = 0; i < parts; ++i) {
      Range part = chunk_of(positions, parts, i);
      chunks.all[count++] = {r, {first + part.begin, first + part.end}};
    }
    first += positions;
  }
  chunks.firsts[s.regions] = count;
}

// A chunk's rows without those that are zero, for which one row of zeros stands in front: outside the support a map is
// 0 in all frames, and so is its projection.
template <class T>
struct Gathered {
  Rows<T> rows;
  int64_t first_count;  // positions that the first row stands for
};

// `to` [kPositions][channels] is used where a row is zero.
template <class T>
Gathered<T> gather(T* to, const Rows<T>& rows, int64_t channels) {
  const T* others[kPositions];
  int64_t count = 0;
  for (int64_t q = 0; q < rows.count; ++q) {
    const T* row = rows.data + q * rows.stride;
    others[count] = row;
    count += !is_zero(row, channels);
  }
  if (count == rows.count) return {rows, 1};
  __builtin_memset(to, 0, channels * sizeof(T));
  for (int64_t q = 0; q < count; ++q) __builtin_memcpy(to + (q + 1) * channels, others[q], channels * sizeof(T));
  return {{to, channels, count + 1}, rows.count - count};
}

// A sum of powers of a vector of channels: sum of (u / scale)^p, where scale is the u whose power is largest.
template <class T>
struct PowerSum {
  T scale[lanes<T>], sum[lanes<T>];
};

// u [gathered.rows.count][lanes]. Cycles: about 30 an element, most of them for its power.
template <class T>
PowerSum<T> sum_powers(const T* u, const Gathered<T>& gathered, T p) {
  Vec<T> scale = largest_power(u, gathered.rows.count, p);
  RelativePower<T> power(scale, p);
  Vec<T> sum = power(clamped<T>(load(u))) * T(gathered.first_count);
  for (int64_t q = 1; q < gathered.rows.count; ++q) sum += power(clamped<T>(load(u + q * lanes<T>)));
  PowerSum<T> result;
  store(result.scale, scale);
  store(result.sum, sum);
  return result;
}

// The generalised mean of a region from the sums of its chunks, `stride` apart.
template <class T>
Vec<T> mean_of(const PowerSum<T>* sums, int64_t chunks, int64_t stride, int64_t positions, T p) {
  Vec<T> scale = load(sums->scale);
  for (int64_t i = 1; i < chunks; ++i) scale = larger_power<T>(scale, load(sums[i * stride].scale), p);
  RelativePower<T> power(scale, p);
  Vec<T> total = {};
  for (int64_t i = 0; i < chunks; ++i) total += load(sums[i * stride].sum) * power(load(sums[i * stride].scale));
  return scale * exp(log(total / T(positions)) / p);
}

// Memory for both directions: panels of matrices; gradients of a group of projected maps.
template <class T>
struct Scratch {
  T* panels;          // of proj
  T* panels_back;     // of proj transposed
  T* kept;            // [threads][kept_size]
  T* maxima;          // [threads][kPositions][c_in]
  T* gathered;        // [threads][kPositions][c_in]
  PowerSum<T>* sums;  // [N][chunks][blocks]
  Chunks chunks;
  T* gp_parts;         // [N][m][blocks * lanes]
  T* gu;               // [group][H][W][padded to 2 vectors], past the last block neither written nor of use
  T* gproj;            // [c_in][padded to 2 vectors]
  int32_t* positions;  // [group][H][W]
  int64_t* firsts;     // [group][m + 1]
  int64_t group;       // sequences
  int64_t kept_size;
};

template <class T>
Scratch<T> allocate(Arena& arena, const Shape& s, int64_t c_in, int64_t c_out) {
  Scratch<T> scratch;
  int64_t padded = round_up(c_out, 2 * lanes<T>), map = rows_of(s) * s.width * padded, rows = 0, chunks = 0;
  for (int64_t r = 0; r < s.regions; ++r) chunks += chunks_of(s, r);
  for (int64_t r = 0; r < s.regions; ++r) rows = larger(rows, s.split[r]);
  scratch.kept_size = larger(rows * s.width, kPositions) * lanes<T>;
  scratch.group = smaller(larger(kGroupBytes / (map * int64_t(sizeof(T))), s.threads), s.sequences);
  scratch.panels = arena.allocate<T>(panels_size<T>(c_in, c_out));
  scratch.panels_back = arena.allocate<T>(panels_size<T>(c_out, c_in));
  scratch.kept = arena.allocate<T>(s.threads * scratch.kept_size);
  scratch.maxima = arena.allocate<T>(s.threads * kPositions * c_in);
  scratch.gathered = arena.allocate<T>(s.threads * kPositions * c_in);
  scratch.sums = arena.allocate<PowerSum<T>>(s.sequences * chunks * ceil_div(c_out, lanes<T>));
  scratch.chunks = {arena.allocate<PositionChunk>(chunks), arena.allocate<int64_t>(s.regions + 1)};
  scratch.gp_parts = arena.allocate<T>(s.sequences * s.regions * padded);
  scratch.gu = arena.allocate<T>(scratch.group * map);
  scratch.gproj = arena.allocate<T>(c_in * padded);
  scratch.positions = arena.allocate<int32_t>(scratch.group * rows_of(s) * s.width);
  scratch.firsts = arena.allocate<int64_t>(scratch.group * (s.regions + 1));
  return scratch;
}

// The shape where maxima are given: one frame per sequence.
template <class Arguments>
Shape maxima_shape_of(const Arguments& a) {
  return shape_of({nullptr, a.n}, a.split, a.w, a.threads);
}

template <class T>
size_t astp_workspace(const AstpWorkspace<T>& a) {
  Arena arena(nullptr);
  allocate<T>(arena, maxima_shape_of(a), a.c_in, a.c_out);
  return arena.bytes();
}

template <class T>
Projection<T> projection_of(T* panels, const T* proj, int64_t c_in, int64_t c_out) {
  if (proj) copy_panels(panels, proj, c_in, c_out, 1, c_in);
  return {proj ? panels : nullptr, c_in, c_out};
}

// The maxima over the frames of a sequence at some positions: written to `to`, or x itself where there is one frame.
template <class T>
Rows<T> maxima_at(T* to, const FramesOf<T>& of, Range positions) {
  Range elements = {positions.begin * of.c, positions.end * of.c};
  if (of.frames == 1) return {of.x + elements.begin, of.c, positions.size()};
  maximum_inside(to, of, elements);
  return {to, of.c, positions.size()};
}

// A row of zeros is projected as every other: it might meet a weight that is not finite.
template <class T>
void pool_chunk(PowerSum<T>* sums, const Projection<T>& projection, const Rows<T>& rows, T p, T* gathered_rows, T* u) {
  Gathered<T> gathered = gather(gathered_rows, rows, projection.inputs);
  for (int64_t block = 0; block < projection.blocks(); ++block) {
    project<T>({u, lanes<T>, lanes<T>}, projection, block, gathered.rows);
    sums[block] = sum_powers(u, gathered, p);
  }
}

// The means of a region [c_out] from the sums of its chunks.
template <class T>
void finish_region(T* pooled, const PowerSum<T>* sums, int64_t chunks, const Projection<T>& projection,
                   int64_t positions, T p) {
  int64_t blocks = projection.blocks();
  for (int64_t block = 0; block < blocks; ++block)
    store_some(pooled + block * lanes<T>, mean_of(sums + block, chunks, blocks, positions, p), projection.valid(block));
}

// Bytes: x is read once; maxima and projections of a chunk stay in L1 and second-level cache.
template <class T>
void astp_forward(const AstpForward<T>& a) {
  const Shape s = shape_of(a);
  Arena arena(a.workspace);
  Scratch<T> scratch = allocate<T>(arena, s, a.c_in, a.c_out);
  Projection<T> projection = projection_of(scratch.panels, a.proj, a.c_in, a.c_out);
  find_chunks(scratch.chunks, s);
  const int64_t* firsts = scratch.chunks.firsts;
  int64_t blocks = projection.blocks(), chunks = firsts[s.regions], positions = rows_of(s) * s.width;
  auto finish = [&](int64_t n, int64_t r) {
    finish_region(a.pooled + (n * s.regions + r) * a.c_out, scratch.sums + (n * chunks + firsts[r]) * blocks,
                  firsts[r + 1] - firsts[r], projection, s.split[r] * s.width, a.p[r]);
  };
  parallel_walk<SequenceWalk>(s.threads, s.sequences * chunks, [&](int64_t i, int thread, SequenceWalk& walk) {
    int64_t n = i / chunks, memory = thread * kPositions * a.c_in;
    PositionChunk chunk = scratch.chunks.all[i % chunks];
    walk.to_sequence(s.seq_lens, n);
    FramesOf<T> of = {a.x + walk.frames * positions * a.c_in, a.support ? a.support + walk.frames * positions : nullptr,
                      s.seq_lens[n], positions, a.c_in};
    Rows<T> rows = maxima_at(scratch.maxima + memory, of, chunk.positions);
    pool_chunk(scratch.sums + i * blocks, projection, rows, a.p[chunk.region], scratch.gathered + memory,
               scratch.kept + thread * scratch.kept_size);
    if (chunks == s.regions) finish(n, chunk.region);
  });
  if (chunks == s.regions) return;
  parallel_for(s.sequences * s.regions < kWorthThreads ? 1 : s.threads, s.sequences * s.regions,
               [&](int64_t i, int) { finish(i / s.regions, i % s.regions); });
}

// The foreground of a region of a sequence, and a block of its channels.
template <class T>
struct Region {
  Rows<T> rows;
  int64_t positions, block;
  T p;

  int64_t background() const { return positions - rows.count; }
};

template <class T>
Region<T> region_of(const Foreground<T>& found, const Pooling<T>& pooling, const Shape& s, int64_t r, int64_t block) {
  int64_t first = found.firsts[r], stride = pooling.projection.inputs;
  Rows<T> rows = {found.rows + first * stride, stride, found.firsts[r + 1] - first};
  return {rows, s.split[r] * s.width, block, pooling.p[r]};
}

// The projections of a region and block of channels, kept in second-level cache between two passes.
template <class T>
struct Projected {
  T* u;          // [positions][lanes]
  Vec<T> scale;  // the one whose power is largest, clamped: makes that power 1
};

// The result of a region and block of channels, and the gradient that arrives at it.
template <class T>
struct Arriving {
  Vec<T> pooled, gradient;
};

// A sum with the error of its rounding (Kahan): the gradient of p is a small difference of such sums.
template <class T>
struct Compensated {
  Vec<T> total = {}, error = {};

  HSTL_INLINE void add(Vec<T> v) {
    Vec<T> whole = v - error, sum = total + whole;
    error = (sum - total) - whole;
    total = sum;
  }
};

// The clamped projection of a region whose power is largest.
template <class T>
Vec<T> scale_of(const T* u, const Region<T>& region) {
  const Vec<T> background = clamped<T>(Vec<T>{});
  if (region.rows.count == 0) return background;
  Vec<T> scale = largest_power(u, region.rows.count, region.p);
  return region.background() ? larger_power<T>(scale, background, region.p) : scale;
}

// Gradients of u, written with `stride`, and per channel that of p. With r = u / scale, M = mean(r^p), y the result:
// dy/du = y / scale * r^(p-1) / (n M) and dy/dp = y / p * (mean(r^p log r) / M - log(M) / p). One log and one exp per
// element: r^(p-1), 0 below the clamp, takes the place of u until M is known.
template <class T>
Vec<T> region_backward(T* gu, int64_t stride, int64_t valid, const Projected<T>& projected, const Region<T>& region,
                       const Arriving<T>& arriving) {
  Compensated<T> power_sum, logarithm_sum;
  for (int64_t q = 0; q < region.rows.count; ++q) {
    T* at = projected.u + q * lanes<T>;
    Vec<T> u = load(at), ratio = clamped<T>(u) / projected.scale, logarithm = log(ratio);
    Vec<T> power = exp(logarithm * region.p), lower = power / ratio;
    power_sum.add(power);
    logarithm_sum.add(power * logarithm);
    store(at, u >= T(1e-6) ? lower : Vec<T>{});
  }
  if (region.background()) {
    Vec<T> logarithm = log(clamped<T>(Vec<T>{}) / projected.scale);
    Vec<T> power = exp(logarithm * region.p) * T(region.background());
    power_sum.add(power);
    logarithm_sum.add(power * logarithm);
  }
  Vec<T> powers = power_sum.total, logarithms = logarithm_sum.total;
  Vec<T> factor = arriving.gradient * (arriving.pooled / projected.scale) / powers;
  for (int64_t q = 0; q < region.rows.count; ++q)
    store_some(gu + q * stride, factor * load(projected.u + q * lanes<T>), valid);
  Vec<T> slope = {};  // nearly equal numbers are subtracted
  for (int i = 0; i < lanes<T>; ++i)
    slope[i] = T(double(logarithms[i]) / double(powers[i]) -
                 __builtin_log(double(powers[i]) / double(region.positions)) / double(region.p));
  return arriving.gradient * arriving.pooled * slope / region.p;
}

template <class T>
void reduce_gp(T* gp, const T* parts, const Shape& s, int64_t c_out, int64_t padded) {
  for (int64_t r = 0; r < s.regions; ++r) {
    double sum = 0;
    for (int64_t n = 0; n < s.sequences; ++n)
      for (int64_t o = 0; o < c_out; ++o) sum += double(parts[(n * s.regions + r) * padded + o]);
    gp[r] = T(sum);
  }
}

template <class T>
void astp_backward(const AstpBackward<T>& a) {
  const Shape s = maxima_shape_of(a);
  Arena arena(a.workspace);
  Scratch<T> scratch = allocate<T>(arena, s, a.c_in, a.c_out);
  Pooling<T> pooling = {a.maximum, a.p, projection_of(scratch.panels, a.proj, a.c_in, a.c_out)};
  const Projection<T>& projection = pooling.projection;
  int64_t padded = round_up(a.c_out, 2 * lanes<T>), map = rows_of(s) * s.width, units = s.regions * projection.blocks();
  if (a.proj) copy_panels(scratch.panels_back, a.proj, a.c_out, a.c_in, a.c_in, 1);
  __builtin_memset(scratch.gproj, 0, a.c_in * padded * sizeof(T));
  for (int64_t n = 0; n < s.sequences; n += scratch.group) {
    T* gmaximum = a.gmaximum + n * map * a.c_in;
    const T* maximum = a.maximum + n * map * a.c_in;
    Group<T> group = {{nullptr, scratch.positions, scratch.firsts},
                      gmaximum,
                      a.proj ? scratch.gu : gmaximum,
                      a.proj ? padded : a.c_in,
                      smaller(scratch.group, s.sequences - n),
                      map,
                      a.c_in};
    gather_foregrounds(group, maximum, s);
    parallel_for(s.threads, group.count * units, [&](int64_t i, int thread) {
      int64_t part = i / projection.blocks(), r = part % s.regions;
      Foreground<T> found = group.foreground(i / units, maximum, s);
      Region<T> region = region_of(found, pooling, s, r, i % projection.blocks());
      T* u = scratch.kept + thread * scratch.kept_size;
      project<T>({u, lanes<T>, lanes<T>}, projection, region.block, region.rows);
      Projected<T> projected = {u, scale_of(u, region)};
      int64_t first = region.block * lanes<T>, valid = projection.valid(region.block);
      part += n * s.regions;
      Arriving<T> arriving = {load_some(a.pooled + part * a.c_out + first, valid),
                              load_some(a.grad + part * a.c_out + first, valid)};
      T* to = group.gu + (i / units * map + found.firsts[r]) * group.stride + first;
      store(scratch.gp_parts + part * padded + first,
            region_backward(to, group.stride, a.proj ? int64_t(lanes<T>) : valid, projected, region, arriving));
    });
    if (a.proj) {
      projection_backward(scratch.gproj, group, maximum, s);
      maximum_backward(group, Projection<T>{scratch.panels_back, a.c_out, a.c_in}, s);
    }
    parallel_for(s.threads, group.count, [&](int64_t i, int) {
      spread_rows(gmaximum + i * map * a.c_in, group.foreground(i, maximum, s), a.c_in, s);
    });
  }
  reduce_gp(a.gp, scratch.gp_parts, s, a.c_out, padded);
  for (int64_t o = 0; a.proj && o < a.c_out; ++o)
    for (int64_t k = 0; k < a.c_in; ++k) a.gproj[o * a.c_in + k] = scratch.gproj[k * padded + o];
}

template <class T>
void fill(Operators<T>& table) {
  table.astp_workspace = astp_workspace<T>;
  table.astp_forward = astp_forward<T>;
  table.astp_backward = astp_backward<T>;
}

}  // namespace

void fill_astp(Tables& tables) {
  fill(tables.float32);
  fill(tables.float64);
}

}  // namespace HSTL_ISA
}  // namespace hstl
