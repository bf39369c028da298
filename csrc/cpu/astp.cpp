#include "geometry.h"
#include "parallel.h"
#include "simd.h"
#include "tables.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Elements of a map that are followed through all frames: their maxima and indices stay in L1 while the frames stream
// by.
constexpr int64_t kElements = 1024;

// best and first of `size` elements at most kElements, over frames `stride` apart. Bytes: size * frames * sizeof(T)
// read.
template <class T>
void maximum_of(T* best, typename Simd<T>::Lane* first, const T* frame, int64_t stride, int64_t size, int64_t frames) {
  using Lane = typename Simd<T>::Lane;
  for (int64_t t = 0; t < frames; ++t, frame += stride)
    for (int64_t e = 0; e < size; e += lanes<T>) {
      Vec<T> x = load_some(frame + e, size - e), old = load(best + e);
      IntVec<T> old_first, better = t ? replaces<T>(x, old) : ~IntVec<T>{};
      __builtin_memcpy(&old_first, first + e, sizeof old_first);
      store(best + e, better ? x : old);
      IntVec<T> new_first = better ? IntVec<T>{} + Lane(t) : old_first;
      __builtin_memcpy(first + e, &new_first, sizeof new_first);
    }
}

template <class T>
void frame_maximum(T* maximum, int16_t* index, const T* x, const Shape& s, int64_t c) {
  int64_t map = rows_of(s) * s.width * c, pieces = ceil_div(map, kElements);
  parallel_for(s.threads, s.sequences * pieces, [&](int64_t i, int) {
    int64_t n = i / pieces, begin = i % pieces * kElements, size = smaller(kElements, map - begin);
    T best[kElements] = {};
    typename Simd<T>::Lane first[kElements] = {};
    maximum_of(best, first, x + total(s.seq_lens, n) * map + begin, map, size, s.seq_lens[n]);
    T* maximum_out = maximum + n * map + begin;
    int16_t* index_out = index + n * map + begin;
    for (int64_t e = 0; e < size; ++e) maximum_out[e] = best[e];
    for (int64_t e = 0; e < size; ++e) index_out[e] = int16_t(first[e]);
  });
}

template <class T>
void frame_maximum_backward(T* gx, const T* gmaximum, const int16_t* index, const Shape& s, int64_t c) {
  int64_t map = rows_of(s) * s.width * c, pieces = ceil_div(map, kElements);
  parallel_for(s.threads, s.sequences * pieces, [&](int64_t i, int) {
    int64_t n = i / pieces, begin = i % pieces * kElements, size = smaller(kElements, map - begin);
    const T* gradient = gmaximum + n * map + begin;
    const int16_t* first = index + n * map + begin;
    T* frame = gx + total(s.seq_lens, n) * map + begin;
    for (int64_t t = 0; t < s.seq_lens[n]; ++t, frame += map)
      for (int64_t e = 0; e < size; ++e) frame[e] = first[e] == t ? gradient[e] : T(0);
  });
}

// Positions whose projections stand in registers together, one vector of output channels each.
constexpr int kTile = kVectorRegisters == 32 ? 14 : 12;
// Terms summed in a row before their sum is added to the total: keeps float32's rounding small.
constexpr int64_t kSummed = 64;
// Gradients of projections that are kept between two phases: in the third-level cache.
constexpr int64_t kGroupBytes = 8 << 20;

// A matrix [outputs, inputs] packed as [blocks of lanes][inputs][lanes], applied to rows of `inputs` numbers.
template <class T>
struct Projection {
  const T* packed;  // null: the identity
  int64_t inputs, outputs;

  int64_t blocks() const { return ceil_div(outputs, lanes<T>); }
  int64_t valid(int64_t block) const { return outputs - block * lanes<T>; }
};

template <class T>
int64_t packed_size(int64_t inputs, int64_t outputs) {
  return round_up(outputs, lanes<T>) * inputs;
}

// Element (o, k) of the matrix is w[o * output_stride + k * input_stride].
template <class T>
void pack(T* packed, const T* w, int64_t inputs, int64_t outputs, int64_t input_stride, int64_t output_stride) {
  for (int64_t first = 0; first < outputs; first += lanes<T>)
    for (int64_t k = 0; k < inputs; ++k)
      for (int64_t o = first; o < first + lanes<T>; ++o)
        *packed++ = o < outputs ? w[o * output_stride + k * input_stride] : T(0);
}

// One block of outputs at P rows, `stride` apart. FLOPs: 2 * inputs * P * lanes. Per input one vector load of weights
// (from L1) and P broadcasts; registers: P sums, 1 weight, 1 input.
template <int P, class T>
HSTL_INLINE void project(Vec<T> (&u)[P], const Projection<T>& projection, int64_t block, const T* rows,
                         int64_t stride) {
  if (!projection.packed) {
    for (int p = 0; p < P; ++p) u[p] = load_some(rows + p * stride + block * lanes<T>, projection.valid(block));
    return;
  }
  const T* w = projection.packed + block * projection.inputs * lanes<T>;
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
struct Sum {
  Vec<T> total = {}, part = {};
  int64_t terms = 0;

  HSTL_INLINE void add(Vec<T> v) {
    part += v;
    if (++terms % kSummed) return;
    total += part;
    part = Vec<T>{};
  }
  HSTL_INLINE Vec<T> value() const { return total + part; }
};

template <class T>
HSTL_INLINE Vec<T> clamped(Vec<T> u) {
  return u < T(1e-6) ? Vec<T>{} + T(1e-6) : u;
}

// One region of one sequence, one block of channels.
template <class T>
struct Region {
  const T* rows;  // [positions, cin]
  int64_t positions, stride, block;
  T p;
};

// The scale that makes the largest power 1, and the mean of (u / scale)^p.
template <class T>
struct Mean {
  Vec<T> scale, mean;
};

// Per element two projections (2 * 2 * cin FLOPs), one log, one exp: about 4 cin + 40 FLOPs.
template <class T>
Mean<T> mean_of(const Projection<T>& projection, const Region<T>& region) {
  Vec<T> scale = Vec<T>{} + (region.p < 0 ? T(__builtin_inf()) : T(0));
  for_each_projected(projection, region.block, region.rows, region.stride, region.positions, [&](int64_t, Vec<T> u) {
    u = clamped<T>(u);
    IntVec<T> wins = (region.p < 0 ? u < scale : u > scale) | (u != u);
    scale = wins ? u : scale;
  });
  Sum<T> powers;
  for_each_projected(projection, region.block, region.rows, region.stride, region.positions,
                     [&](int64_t, Vec<T> u) { powers.add(exp(log(clamped<T>(u) / scale) * region.p)); });
  return {scale, powers.value() / T(region.positions)};
}

template <class T>
struct Pooling {
  const T* maximum;  // [N, H, W, cin]
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

// Memory for both directions: packed matrices; gradients of a group of projected maps.
template <class T>
struct Scratch {
  T* packed;       // proj
  T* packed_back;  // proj transposed
  T* gp_parts;     // [N][m][blocks * lanes]
  T* gu;           // [group][H][W][blocks * lanes]
  T* gproj;        // [cin][blocks * lanes]
  int64_t group;   // sequences
};

template <class T>
Scratch<T> carve(Carver& carver, const Shape& s, int64_t cin, int64_t cout) {
  Scratch<T> scratch;
  int64_t padded = round_up(cout, lanes<T>), map = rows_of(s) * s.width * padded;
  scratch.group = smaller(larger(kGroupBytes / (map * int64_t(sizeof(T))), s.threads), s.sequences);
  scratch.packed = carver.take<T>(packed_size<T>(cin, cout));
  scratch.packed_back = carver.take<T>(packed_size<T>(cout, cin));
  scratch.gp_parts = carver.take<T>(s.sequences * s.regions * padded);
  scratch.gu = carver.take<T>(scratch.group * map);
  scratch.gproj = carver.take<T>(cin * padded);
  return scratch;
}

template <class T>
size_t astp_workspace(const Shape& s, int64_t cin, int64_t cout) {
  Carver carver(nullptr);
  carve<T>(carver, s, cin, cout);
  return carver.bytes();
}

template <class T>
Projection<T> packed_projection(T* packed, const T* proj, int64_t cin, int64_t cout) {
  if (proj) pack(packed, proj, cin, cout, 1, cin);
  return {proj ? packed : nullptr, cin, cout};
}

template <class T>
void astp_forward(T* pooled, const T* maximum, const T* proj, const T* p, void* workspace, const Shape& s, int64_t cin,
                  int64_t cout) {
  Carver carver(workspace);
  Pooling<T> pooling = {maximum, p, packed_projection(carve<T>(carver, s, cin, cout).packed, proj, cin, cout)};
  const Projection<T>& projection = pooling.projection;
  parallel_for(s.threads, s.sequences * s.regions * projection.blocks(), [&](int64_t i, int) {
    Region<T> region = region_of(pooling, s, i);
    Mean<T> mean = mean_of(projection, region);
    Vec<T> result = mean.scale * exp(log(mean.mean) / region.p);
    store_some(pooled + i / projection.blocks() * cout + region.block * lanes<T>, result,
               projection.valid(region.block));
  });
}

// What arrives at the result of a region and block of channels.
template <class T>
struct Arriving {
  Vec<T> pooled, gradient;
};

// Gradients of u, written with `stride`, and per channel that of p. With r = u / scale, M = mean(r^p), y the result:
// dy/du = y / scale * r^(p-1) / (n M) and dy/dp = y / p * (mean(r^p log r) / M - log(M) / p).
template <class T>
Vec<T> region_backward(T* gu, int64_t stride, int64_t valid, const Projection<T>& projection, const Region<T>& region,
                       const Arriving<T>& arriving) {
  Mean<T> mean = mean_of(projection, region);
  Vec<T> share = T(1) / (mean.mean * T(region.positions));
  Vec<T> factor = arriving.gradient * (arriving.pooled / mean.scale) * share;
  Sum<T> logarithms;
  for_each_projected(projection, region.block, region.rows, region.stride, region.positions, [&](int64_t q, Vec<T> u) {
    Vec<T> ratio = clamped<T>(u) / mean.scale, logarithm = log(ratio);
    Vec<T> power = exp(logarithm * (region.p - 1));
    logarithms.add(power * ratio * logarithm);
    store_some(gu + q * stride, u >= T(1e-6) ? factor * power : Vec<T>{}, valid);
  });
  Vec<T> slope = logarithms.value() * share - log(mean.mean) / region.p;
  return arriving.gradient * arriving.pooled * slope / region.p;
}

// totals [cin][padded] += maximum^T gu over the positions: J input channels and one block of outputs.
template <int J, class T>
void add_products(T* totals, const T* maximum, int64_t cin, const T* gu, int64_t padded, int64_t positions) {
  Sum<T> sums[J];
  for (int64_t q = 0; q < positions; ++q, maximum += cin, gu += padded) {
    Vec<T> g = load(gu);
#pragma GCC unroll 8
    for (int j = 0; j < J; ++j) sums[j].add(g * maximum[j]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < J; ++j) store(totals + j * padded, load(totals + j * padded) + sums[j].value());
}

template <class T>
void projection_backward(T* gmaximum, const Scratch<T>& scratch, const T* maximum, int64_t positions, int64_t cin,
                         int64_t cout, int threads) {
  constexpr int64_t kRows = 4 * kTile, kInputs = 4;
  int64_t padded = round_up(cout, lanes<T>), blocks = padded / lanes<T>;
  Projection<T> back = {scratch.packed_back, cout, cin};
  parallel_for(threads, ceil_div(positions, kRows), [&](int64_t i, int) {
    int64_t first = i * kRows;
    for (int64_t block = 0; block < back.blocks(); ++block) {
      T* to = gmaximum + first * cin + block * lanes<T>;
      for_each_projected(back, block, scratch.gu + first * padded, padded, smaller(kRows, positions - first),
                         [&](int64_t q, Vec<T> g) { store_some(to + q * cin, g, back.valid(block)); });
    }
  });
  parallel_for(threads, ceil_div(cin, kInputs) * blocks, [&](int64_t i, int) {
    int64_t k = i / blocks * kInputs, first = i % blocks * lanes<T>;
    T* totals = scratch.gproj + k * padded + first;
    if (k + kInputs <= cin)
      return add_products<kInputs>(totals, maximum + k, cin, scratch.gu + first, padded, positions);
    for (; k < cin; ++k, totals += padded)
      add_products<1>(totals, maximum + k, cin, scratch.gu + first, padded, positions);
  });
}

template <class T>
void reduce_gp(T* gp, const T* parts, const Shape& s, int64_t cout, int64_t padded) {
  for (int64_t r = 0; r < s.regions; ++r) {
    double sum = 0;
    for (int64_t n = 0; n < s.sequences; ++n)
      for (int64_t o = 0; o < cout; ++o) sum += double(parts[(n * s.regions + r) * padded + o]);
    gp[r] = T(sum);
  }
}

template <class T>
void astp_backward(T* gmaximum, T* gproj, T* gp, const T* gpooled, const T* pooled, const T* maximum, const T* proj,
                   const T* p, void* workspace, const Shape& s, int64_t cin, int64_t cout) {
  Carver carver(workspace);
  Scratch<T> scratch = carve<T>(carver, s, cin, cout);
  Pooling<T> pooling = {maximum, p, packed_projection(scratch.packed, proj, cin, cout)};
  const Projection<T>& projection = pooling.projection;
  int64_t padded = projection.blocks() * lanes<T>, map = rows_of(s) * s.width, units = s.regions * projection.blocks();
  if (proj) pack(scratch.packed_back, proj, cout, cin, cin, 1);
  __builtin_memset(scratch.gproj, 0, cin * padded * sizeof(T));
  for (int64_t n = 0; n < s.sequences; n += scratch.group) {
    int64_t group = smaller(scratch.group, s.sequences - n);
    T* gu = proj ? scratch.gu : gmaximum + n * map * cin;
    int64_t stride = proj ? padded : cin;
    parallel_for(s.threads, group * units, [&](int64_t i, int) {
      Region<T> region = region_of(pooling, s, n * units + i);
      int64_t first = region.block * lanes<T>, valid = projection.valid(region.block);
      int64_t part = n * s.regions + i / projection.blocks();
      Arriving<T> arriving = {load_some(pooled + part * cout + first, valid),
                              load_some(gpooled + part * cout + first, valid)};
      T* to = gu + ((region.rows - maximum) / cin - n * map) * stride + first;
      store(scratch.gp_parts + part * padded + first,
            region_backward(to, stride, proj ? int64_t(lanes<T>) : valid, projection, region, arriving));
    });
    if (proj)
      projection_backward(gmaximum + n * map * cin, scratch, maximum + n * map * cin, group * map, cin, cout,
                          s.threads);
  }
  reduce_gp(gp, scratch.gp_parts, s, cout, padded);
  for (int64_t o = 0; proj && o < cout; ++o)
    for (int64_t k = 0; k < cin; ++k) gproj[o * cin + k] = scratch.gproj[k * padded + o];
}

template <class T>
void fill(Operators<T>& table) {
  table.frame_maximum = frame_maximum<T>;
  table.frame_maximum_backward = frame_maximum_backward<T>;
  table.astp_workspace = astp_workspace<T>;
  table.astp_forward = astp_forward<T>;
  table.astp_backward = astp_backward<T>;
}

}  // namespace

void fill_astp(Operators<float>& single, Operators<double>& dual) {
  fill(single);
  fill(dual);
}

}  // namespace HSTL_ISA
}  // namespace hstl
