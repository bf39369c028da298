// astp: the maximum of maps [F, H, W, c_in] over the frames of each sequence, then, of its projection u [N, H, W,
// c_out], the mean of max(u, 1e-6)^p over each region, to the power 1 / p: pooled [N, m, c_out].
#include "arena.h"
#include "operators.h"
#include "parallel.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Elements of a map that are followed through all frames: their maxima and indices stay in L1 while the frames stream
// by.
constexpr int64_t kElements = 1024;

// best and first of `size` elements after frames t..t+N-1, `stride` apart. Side by side they are as many streams of
// memory, and maxima and indices pass through L1 once for all.
template <int N, class T>
void take_frames(T* best, typename Simd<T>::Lane* first, const T* frame, int64_t stride, int64_t size, int64_t t) {
  using Lane = typename Simd<T>::Lane;
  for (int64_t e = 0; e < size; e += lanes<T>) {
    Vec<T> maximum = load(best + e);
    IntVec<T> index;
    __builtin_memcpy(&index, first + e, sizeof index);
    for (int j = 0; j < N; ++j) {
      Vec<T> x = load_some(frame + j * stride + e, size - e);
      IntVec<T> better = t + j ? replaces<T>(x, maximum) : ~IntVec<T>{};
      maximum = better ? x : maximum;
      index = better ? IntVec<T>{} + Lane(t + j) : index;
    }
    store(best + e, maximum);
    __builtin_memcpy(first + e, &index, sizeof index);
  }
}

// Bytes: size * frames * sizeof(T) read.
template <class T>
void maximum_of(T* best, typename Simd<T>::Lane* first, const T* frame, int64_t stride, int64_t size, int64_t frames) {
  int64_t t = 0;
  for (; t + 10 <= frames; t += 10) take_frames<10>(best, first, frame + t * stride, stride, size, t);
  for (; t + 3 <= frames; t += 3) take_frames<3>(best, first, frame + t * stride, stride, size, t);
  for (; t < frames; ++t) take_frames<1>(best, first, frame + t * stride, stride, size, t);
}

// The elements among [begin, end) of a map between its first and its last position inside the support of any frame.
inline Range elements_inside(const uint8_t* support, int64_t positions, int64_t frames, int64_t c, Range elements) {
  Range inside = {elements.begin / c, ceil_div(elements.end, c)};
  auto empty = [&](int64_t position) {
    uint8_t any = 0;
    for (int64_t t = 0; t < frames; ++t) any |= support[t * positions + position];
    return any == 0;
  };
  while (inside.begin < inside.end && empty(inside.begin)) ++inside.begin;
  while (inside.begin < inside.end && empty(inside.end - 1)) --inside.end;
  return {smaller(larger(inside.begin * c, elements.begin), elements.end), smaller(inside.end * c, elements.end)};
}

template <class T>
void frame_maximum(const FrameMaximum<T>& a) {
  const Shape s = undivided_shape_of(a);
  int64_t positions = a.h * a.w, map = positions * a.c, chunks = ceil_div(map, kElements);
  parallel_for(s.threads, s.sequences * chunks, [&](int64_t i, int) {
    int64_t n = i / chunks, frames = s.seq_lens[n], before = total(s.seq_lens, n);
    Range chunk = {i % chunks * kElements, 0}, inside;
    chunk.end = inside.end = smaller(chunk.begin + kElements, map);
    inside.begin = chunk.begin;
    if (a.support) inside = elements_inside(a.support + before * positions, positions, frames, a.c, chunk);
    T best[kElements + lanes<T>] = {};
    typename Simd<T>::Lane first[kElements + lanes<T>] = {};
    if (inside.size() > 0)
      maximum_of(best + inside.begin - chunk.begin, first + inside.begin - chunk.begin,
                 a.x + before * map + inside.begin, map, inside.size(), frames);
    T* maximum = a.maximum + n * map + chunk.begin;
    for (int64_t e = 0; e < chunk.size(); ++e) maximum[e] = best[e];
    for (int64_t e = 0; a.index && e < chunk.size(); ++e) a.index[n * map + chunk.begin + e] = int16_t(first[e]);
  });
}

template <class T>
void frame_maximum_backward(const FrameMaximumBackward<T>& a) {
  const Shape s = undivided_shape_of(a);
  int64_t map = a.h * a.w * a.c, chunks = ceil_div(map, kElements);
  parallel_for(s.threads, s.sequences * chunks, [&](int64_t i, int) {
    int64_t n = i / chunks, begin = i % chunks * kElements, size = smaller(kElements, map - begin);
    const T* gradient = a.grad + n * map + begin;
    const int16_t* first = a.index + n * map + begin;
    T* frame = a.gx + total(s.seq_lens, n) * map + begin;
    for (int64_t t = 0; t < s.seq_lens[n]; ++t, frame += map)
      for (int64_t e = 0; e < size; ++e) frame[e] = first[e] == t ? gradient[e] : T(0);
  });
}

// Bytes: those of one frame per sequence read and written, in whole cache lines, whatever the number of frames.
template <class T>
void frame_maximum_backward_add(const FrameMaximumBackwardAdd<T>& a) {
  const Shape s = undivided_shape_of(a);
  int64_t map = a.h * a.w * a.c, chunks = ceil_div(map, kElements);
  parallel_for(s.threads, s.sequences * chunks, [&](int64_t i, int) {
    int64_t n = i / chunks, begin = i % chunks * kElements, size = smaller(kElements, map - begin);
    const T* gradient = a.grad + n * map + begin;
    const int16_t* first = a.index + n * map + begin;
    T* frames = a.gx + total(s.seq_lens, n) * map + begin;
    for (int64_t e = 0; e < size; ++e) frames[first[e] * map + e] += gradient[e];
  });
}

// Positions whose projections stand in registers together, one vector of output channels each.
constexpr int kTile = kVectorRegisters == 32 ? 14 : 12;
// Terms summed in a row before their sum is added to the total: keeps float32's rounding small.
constexpr int64_t kSummed = 64;
// The tile of the projection's gradient: inputs x 2 vectors of outputs.
constexpr int kInputs = kVectorRegisters == 32 ? 8 : 4;
// Gradients of projections that are kept between two phases: in the third-level cache.
constexpr int64_t kGroupBytes = 8 << 20;

// A matrix [outputs, inputs], stored as panels [blocks of lanes][inputs][lanes], applied to rows of `inputs` numbers.
template <class T>
struct Projection {
  const T* panels;  // null: the identity
  int64_t inputs, outputs;

  int64_t blocks() const { return ceil_div(outputs, lanes<T>); }
  int64_t valid(int64_t block) const { return outputs - block * lanes<T>; }
};

template <class T>
int64_t panels_size(int64_t inputs, int64_t outputs) {
  return round_up(outputs, lanes<T>) * inputs;
}

// Element (o, k) of the matrix is w[o * output_stride + k * input_stride].
template <class T>
void copy_panels(T* panels, const T* w, int64_t inputs, int64_t outputs, int64_t input_stride, int64_t output_stride) {
  for (int64_t first = 0; first < outputs; first += lanes<T>)
    for (int64_t k = 0; k < inputs; ++k)
      for (int64_t o = first; o < first + lanes<T>; ++o)
        *panels++ = o < outputs ? w[o * output_stride + k * input_stride] : T(0);
}

// Computes a block of outputs at P rows, `stride` apart. FLOPs: 2 * inputs * P * lanes. Per input one vector load of
// weights (from L1) and P broadcasts; registers: P sums, 1 weight, 1 input.
template <int P, class T>
HSTL_INLINE void project(Vec<T> (&u)[P], const Projection<T>& projection, int64_t block, const T* rows,
                         int64_t stride) {
  if (!projection.panels) {
    for (int p = 0; p < P; ++p) u[p] = load_some(rows + p * stride + block * lanes<T>, projection.valid(block));
    return;
  }
  const T* w = projection.panels + block * projection.inputs * lanes<T>;
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) u[p] = Vec<T>{};
  for (int64_t k = 0; k < projection.inputs; ++k, w += lanes<T>, ++rows) {
    Vec<T> weights = load(w);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) u[p] += weights * rows[p * stride];
  }
}

// f(q, u) for the projections u of rows q = 0..count-1, never more than a tile of them at once.
template <class T, class F>
HSTL_INLINE void for_each_projected(const Projection<T>& projection, int64_t block, const T* rows, int64_t stride,
                                    int64_t count, const F& f) {
  int64_t q = 0;
  for (; q + kTile <= count; q += kTile) {
    Vec<T> u[kTile];
    project<kTile>(u, projection, block, rows + q * stride, stride);
    for (int p = 0; p < kTile; ++p) f(q + p, u[p]);
  }
  for (; q < count; ++q) {
    Vec<T> u[1];
    project<1>(u, projection, block, rows + q * stride, stride);
    f(q, u[0]);
  }
}

template <class T>
HSTL_INLINE Vec<T> clamped(Vec<T> u) {
  return u < T(1e-6) ? Vec<T>{} + T(1e-6) : u;
}

// A region of a sequence, and a block of its channels.
template <class T>
struct Region {
  const T* rows;  // [positions, c_in]
  int64_t positions, stride, block;
  T p;
};

// The projections of a region and block of channels, kept in second-level cache between two passes.
template <class T>
struct Projected {
  T* u;          // [positions][lanes]
  Vec<T> scale;  // the one whose power is largest, clamped: makes that power 1
};

// FLOPs: 2 c_in per element.
template <class T>
Projected<T> project_region(T* kept, const Projection<T>& projection, const Region<T>& region) {
  Vec<T> scale = Vec<T>{} + (region.p < 0 ? T(__builtin_inf()) : T(0));
  for_each_projected(projection, region.block, region.rows, region.stride, region.positions, [&](int64_t q, Vec<T> u) {
    store(kept + q * lanes<T>, u);
    u = clamped<T>(u);
    IntVec<T> wins = (region.p < 0 ? u < scale : u > scale) | (u != u);
    scale = wins ? u : scale;
  });
  return {kept, scale};
}

// The mean of (u / scale)^p. About 45 FLOPs per element, most of them in log and exp.
template <class T>
Vec<T> mean_power(const Projected<T>& projected, const Region<T>& region) {
  Vec<T> total = {};
  for (int64_t begin = 0; begin < region.positions; begin += kSummed) {
    Vec<T> part = {};
    for (int64_t q = begin; q < smaller(begin + kSummed, region.positions); ++q)
      part += exp(log(clamped<T>(load(projected.u + q * lanes<T>)) / projected.scale) * region.p);
    total += part;
  }
  return total / T(region.positions);
}

template <class T>
struct Pooling {
  const T* maximum;  // [N, H, W, c_in]
  const T* p;        // [m]
  Projection<T> projection;
};

// Unit i of [N][m][blocks].
template <class T>
Region<T> region_of(const Pooling<T>& pooling, const Shape& s, int64_t i) {
  int64_t blocks = pooling.projection.blocks(), r = i / blocks % s.regions, n = i / blocks / s.regions;
  Range rows = region_rows(s, r);
  int64_t stride = pooling.projection.inputs;
  return {pooling.maximum + (n * rows_of(s) + rows.begin) * s.width * stride, rows.size() * s.width, stride, i % blocks,
          pooling.p[r]};
}

// Memory for both directions: panels of matrices; gradients of a group of projected maps.
template <class T>
struct Scratch {
  T* panels;       // of proj
  T* panels_back;  // of proj transposed
  T* kept;         // [threads][kept_size]
  T* gp_parts;     // [N][m][blocks * lanes]
  T* gu;           // [group][H][W][padded to 2 vectors], past the last block neither written nor of use
  T* gproj;        // [c_in][padded to 2 vectors]
  int64_t group;   // sequences
  int64_t kept_size;
};

template <class T>
Scratch<T> allocate(Arena& arena, const Shape& s, int64_t c_in, int64_t c_out) {
  Scratch<T> scratch;
  int64_t padded = round_up(c_out, 2 * lanes<T>), map = rows_of(s) * s.width * padded, rows = 0;
  for (int64_t r = 0; r < s.regions; ++r) rows = larger(rows, s.split[r]);
  scratch.kept_size = rows * s.width * lanes<T>;
  scratch.group = smaller(larger(kGroupBytes / (map * int64_t(sizeof(T))), s.threads), s.sequences);
  scratch.panels = arena.allocate<T>(panels_size<T>(c_in, c_out));
  scratch.panels_back = arena.allocate<T>(panels_size<T>(c_out, c_in));
  scratch.kept = arena.allocate<T>(s.threads * scratch.kept_size);
  scratch.gp_parts = arena.allocate<T>(s.sequences * s.regions * padded);
  scratch.gu = arena.allocate<T>(scratch.group * map);
  scratch.gproj = arena.allocate<T>(c_in * padded);
  return scratch;
}

// The shape of the maxima: one frame per sequence.
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

template <class T>
void astp_forward(const AstpForward<T>& a) {
  const Shape s = maxima_shape_of(a);
  Arena arena(a.workspace);
  Scratch<T> scratch = allocate<T>(arena, s, a.c_in, a.c_out);
  Pooling<T> pooling = {a.maximum, a.p, projection_of(scratch.panels, a.proj, a.c_in, a.c_out)};
  const Projection<T>& projection = pooling.projection;
  parallel_for(s.threads, s.sequences * s.regions * projection.blocks(), [&](int64_t i, int thread) {
    Region<T> region = region_of(pooling, s, i);
    Projected<T> projected = project_region(scratch.kept + thread * scratch.kept_size, projection, region);
    Vec<T> result = projected.scale * exp(log(mean_power(projected, region)) / region.p);
    store_some(a.pooled + i / projection.blocks() * a.c_out + region.block * lanes<T>, result,
               projection.valid(region.block));
  });
}

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

// Gradients of u, written with `stride`, and per channel that of p. With r = u / scale, M = mean(r^p), y the result:
// dy/du = y / scale * r^(p-1) / (n M) and dy/dp = y / p * (mean(r^p log r) / M - log(M) / p). One log and one exp per
// element: r^(p-1), 0 below the clamp, takes the place of u until M is known.
template <class T>
Vec<T> region_backward(T* gu, int64_t stride, int64_t valid, const Projected<T>& projected, const Region<T>& region,
                       const Arriving<T>& arriving) {
  Compensated<T> power_sum, logarithm_sum;
  for (int64_t q = 0; q < region.positions; ++q) {
    T* at = projected.u + q * lanes<T>;
    Vec<T> u = load(at), ratio = clamped<T>(u) / projected.scale, logarithm = log(ratio);
    Vec<T> power = exp(logarithm * region.p), lower = power / ratio;
    power_sum.add(power);
    logarithm_sum.add(power * logarithm);
    store(at, u >= T(1e-6) ? lower : Vec<T>{});
  }
  Vec<T> powers = power_sum.total, logarithms = logarithm_sum.total;
  Vec<T> factor = arriving.gradient * (arriving.pooled / projected.scale) / powers;
  for (int64_t q = 0; q < region.positions; ++q)
    store_some(gu + q * stride, factor * load(projected.u + q * lanes<T>), valid);
  Vec<T> slope = {};  // nearly equal numbers are subtracted
  for (int i = 0; i < lanes<T>; ++i)
    slope[i] = T(double(logarithms[i]) / double(powers[i]) -
                 __builtin_log(double(powers[i]) / double(region.positions)) / double(region.p));
  return arriving.gradient * arriving.pooled * slope / region.p;
}

// totals [J][padded] += maximum^T gu over at most kSummed positions: J inputs and two vectors of outputs.
// FLOPs: 4 J lanes per position, with J broadcasts and 2 vector loads from L1 or L2. Registers: 2 J sums, 2 vectors of
// gu, 1 input.
template <int J, class T>
void add_products(T* totals, const T* maximum, int64_t c_in, const T* gu, int64_t padded, int64_t positions) {
  Vec<T> sums[J][2] = {};
  for (int64_t q = 0; q < positions; ++q, maximum += c_in, gu += padded) {
    Vec<T> g0 = load(gu), g1 = load(gu + lanes<T>);
#pragma GCC unroll 8
    for (int j = 0; j < J; ++j) {
      sums[j][0] += g0 * maximum[j];
      sums[j][1] += g1 * maximum[j];
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < J; ++j, totals += padded) {
    store(totals, load(totals) + sums[j][0]);
    store(totals + lanes<T>, load(totals + lanes<T>) + sums[j][1]);
  }
}

// gmaximum = proj^T gu.
template <class T>
void maximum_backward(T* gmaximum, const Projection<T>& back, const T* gu, int64_t padded, int64_t positions,
                      int threads) {
  constexpr int64_t kRows = 4 * kTile;
  parallel_for(threads, ceil_div(positions, kRows), [&](int64_t i, int) {
    int64_t first = i * kRows;
    for (int64_t block = 0; block < back.blocks(); ++block) {
      T* to = gmaximum + first * back.outputs + block * lanes<T>;
      for_each_projected(back, block, gu + first * padded, padded, smaller(kRows, positions - first),
                         [&](int64_t q, Vec<T> g) { store_some(to + q * back.outputs, g, back.valid(block)); });
    }
  });
}

// gproj [c_in][padded] += maximum^T gu: every chunk of its tiles walks over all positions, a few at a time.
template <class T>
void projection_backward(T* gproj, const T* maximum, const T* gu, int64_t c_in, int64_t padded, int64_t positions,
                         int threads) {
  int64_t across = padded / (2 * lanes<T>), tiles = ceil_div(c_in, kInputs) * across;
  int64_t chunks = smaller(threads == 1 ? 1 : 4 * threads, tiles);
  parallel_for(threads, chunks, [&](int64_t i, int) {
    Range mine = chunk_of(tiles, chunks, i);
    for (int64_t q = 0; q < positions; q += kSummed)
      for (int64_t tile = mine.begin; tile < mine.end; ++tile) {
        int64_t k = tile / across * kInputs, first = tile % across * 2 * lanes<T>,
                some = smaller(kSummed, positions - q);
        const T *x = maximum + q * c_in + k, *g = gu + q * padded + first;
        T* totals = gproj + k * padded + first;
        if (k + kInputs <= c_in)
          add_products<kInputs>(totals, x, c_in, g, padded, some);
        else
          for (; k < c_in; ++k, ++x, totals += padded) add_products<1>(totals, x, c_in, g, padded, some);
      }
  });
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
    int64_t group = smaller(scratch.group, s.sequences - n);
    T* gu = a.proj ? scratch.gu : a.gmaximum + n * map * a.c_in;
    int64_t stride = a.proj ? padded : a.c_in;
    parallel_for(s.threads, group * units, [&](int64_t i, int thread) {
      Region<T> region = region_of(pooling, s, n * units + i);
      Projected<T> projected = project_region(scratch.kept + thread * scratch.kept_size, projection, region);
      int64_t first = region.block * lanes<T>, valid = projection.valid(region.block);
      int64_t part = n * s.regions + i / projection.blocks();
      Arriving<T> arriving = {load_some(a.pooled + part * a.c_out + first, valid),
                              load_some(a.grad + part * a.c_out + first, valid)};
      T* to = gu + ((region.rows - a.maximum) / a.c_in - n * map) * stride + first;
      store(scratch.gp_parts + part * padded + first,
            region_backward(to, stride, a.proj ? int64_t(lanes<T>) : valid, projected, region, arriving));
    });
    if (!a.proj) continue;
    maximum_backward(a.gmaximum + n * map * a.c_in, Projection<T>{scratch.panels_back, a.c_out, a.c_in}, gu, padded,
                     group * map, s.threads);
    projection_backward(scratch.gproj, a.maximum + n * map * a.c_in, gu, a.c_in, padded, group * map, s.threads);
  }
  reduce_gp(a.gp, scratch.gp_parts, s, a.c_out, padded);
  for (int64_t o = 0; a.proj && o < a.c_out; ++o)
    for (int64_t k = 0; k < a.c_in; ++k) a.gproj[o * a.c_in + k] = scratch.gproj[k * padded + o];
}

template <class T>
void fill(Operators<T>& table) {
  table.frame_maximum = frame_maximum<T>;
  table.frame_maximum_backward = frame_maximum_backward<T>;
  table.frame_maximum_backward_add = frame_maximum_backward_add<T>;
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
