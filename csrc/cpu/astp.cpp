#include "geometry.h"
#include "parallel.h"
#include "simd.h"
#include "tables.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

template <class T>
void frame_maximum(T* maximum, int16_t* index, const T* x, const Shape& s, int64_t c) {
  constexpr int64_t kChunk = 1024;  // elements: values and indices stay in L1 while the frames stream by
  int64_t map = rows_of(s) * s.width * c, chunks = ceil_div(map, kChunk);
  parallel_for(s.threads, s.sequences * chunks, [&](int64_t i, int) {
    int64_t n = i / chunks, begin = i % chunks * kChunk, size = smaller(kChunk, map - begin);
    const T* frame = x + total(s.seq_lens, n) * map + begin;
    T best[kChunk];
    typename Simd<T>::Lane first[kChunk];
    for (int64_t e = 0; e < size; ++e) best[e] = frame[e], first[e] = 0;
    for (int64_t t = 1; t < s.seq_lens[n]; ++t) {
      frame += map;
      for (int64_t e = 0; e < size; ++e) {
        bool better = (frame[e] > best[e]) | ((frame[e] != frame[e]) & (best[e] == best[e]));  // NaN wins, as in torch
        best[e] = better ? frame[e] : best[e];
        first[e] = better ? t : first[e];
      }
    }
    T* maximum_out = maximum + n * map + begin;
    int16_t* index_out = index + n * map + begin;
    for (int64_t e = 0; e < size; ++e) maximum_out[e] = best[e], index_out[e] = int16_t(first[e]);
  });
}

template <class T>
void frame_maximum_backward(T* gx, const T* gmaximum, const int16_t* index, const Shape& s, int64_t c) {
  constexpr int64_t kChunk = 1024;
  int64_t map = rows_of(s) * s.width * c, chunks = ceil_div(map, kChunk);
  parallel_for(s.threads, s.sequences * chunks, [&](int64_t i, int) {
    int64_t n = i / chunks, begin = i % chunks * kChunk, size = smaller(kChunk, map - begin);
    const T* gradient = gmaximum + n * map + begin;
    const int16_t* first = index + n * map + begin;
    T* frame = gx + total(s.seq_lens, n) * map + begin;
    for (int64_t t = 0; t < s.seq_lens[n]; ++t, frame += map)
      for (int64_t e = 0; e < size; ++e) frame[e] = first[e] == t ? gradient[e] : T(0);
  });
}

// What one region of one sequence needs.
template <class T>
struct Region {
  const T* maximum;  // [positions, cin]
  int64_t positions;
  T p;
};

template <class T>
Region<T> region_of(const T* maximum, const T* p, const Shape& s, int64_t n, int64_t r, int64_t cin) {
  Range rows = region_rows(s, r);
  return {maximum + (n * rows_of(s) + rows.begin) * s.width * cin, rows.size() * s.width, p[r]};
}

// proj [cout, cin] -> [blocks of lanes, cin, lanes]
template <class T>
void pack_projection(T* packed, const T* proj, int64_t cin, int64_t cout) {
  for (int64_t o = 0; o < round_up(cout, lanes<T>); ++o)
    for (int64_t k = 0; k < cin; ++k)
      packed[(o / lanes<T> * cin + k) * lanes<T> + o % lanes<T>] = o < cout ? proj[o * cin + k] : T(0);
}

// u of one position, one block of channels.
template <class T>
HSTL_INLINE Vec<T> projected(const T* maximum, const T* packed, int64_t block, int64_t cin, int64_t cout) {
  if (!packed) return load_some(maximum + block * lanes<T>, cout - block * lanes<T>);
  const T* w = packed + block * cin * lanes<T>;
  Vec<T> u = {};
  for (int64_t k = 0; k < cin; ++k) u += load(w + k * lanes<T>) * maximum[k];
  return u;
}

template <class T>
HSTL_INLINE Vec<T> clamped(Vec<T> u) {
  const Vec<T> least = broadcast(T(1e-6));
  return u < least ? least : u;
}

template <class T>
size_t astp_workspace(const Shape& s, int64_t cin, int64_t cout) {
  Carver carver(nullptr);
  carver.take<T>(round_up(cout, lanes<T>) * cin);
  carver.take<T>(s.sequences * s.regions * round_up(cout, lanes<T>));
  carver.take<T>(s.sequences * rows_of(s) * s.width * round_up(cout, lanes<T>));
  return carver.bytes();
}

template <class T>
void astp_forward(T* pooled, const T* maximum, const T* proj, const T* p, void* workspace, const Shape& s, int64_t cin,
                  int64_t cout) {
  T* packed = proj ? Carver(workspace).take<T>(round_up(cout, lanes<T>) * cin) : nullptr;
  if (proj) pack_projection(packed, proj, cin, cout);
  int64_t blocks = ceil_div(cout, lanes<T>);
  parallel_for(s.threads, s.sequences * s.regions * blocks, [&](int64_t i, int) {
    int64_t block = i % blocks, r = i / blocks % s.regions, n = i / blocks / s.regions;
    Region<T> region = region_of(maximum, p, s, n, r, cin);
    Vec<T> largest = broadcast(T(1e-6));
    for (int64_t q = 0; q < region.positions; ++q) {
      Vec<T> u = projected(region.maximum + q * cin, packed, block, cin, cout);
      largest = u > largest ? u : largest;
    }
    Vec<T> scale = T(1) / largest, powers = {};
    for (int64_t q = 0; q < region.positions; ++q) {
      Vec<T> u = clamped<T>(projected(region.maximum + q * cin, packed, block, cin, cout));
      powers += exp(log(u * scale) * region.p);
    }
    Vec<T> result = largest * exp(log(powers / T(region.positions)) / region.p);
    store_some(pooled + (n * s.regions + r) * cout + block * lanes<T>, result, cout - block * lanes<T>);
  });
}

template <class T>
void astp_backward(T* gmaximum, T* gproj, T* gp, const T* gpooled, const T* pooled, const T* maximum, const T* proj,
                   const T* p, void* workspace, const Shape& s, int64_t cin, int64_t cout) {
  int64_t blocks = ceil_div(cout, lanes<T>), padded = blocks * lanes<T>, map = rows_of(s) * s.width;
  Carver carver(workspace);
  T* packed = carver.take<T>(padded * cin);
  T* gp_parts = carver.take<T>(s.sequences * s.regions * padded);
  T* gu = carver.take<T>(s.sequences * map * padded);
  if (proj) pack_projection(packed, proj, cin, cout);
  parallel_for(s.threads, s.sequences * s.regions * blocks, [&](int64_t i, int) {
    int64_t block = i % blocks, r = i / blocks % s.regions, n = i / blocks / s.regions;
    Region<T> region = region_of(maximum, p, s, n, r, cin);
    int64_t valid = cout - block * lanes<T>, part = (n * s.regions + r) * cout + block * lanes<T>;
    int64_t first = (region.maximum - maximum) / cin;
    Vec<T> y = load_some(pooled + part, valid), g = load_some(gpooled + part, valid), gp_sum = {};
    y = clamped<T>(y);
    Vec<T> scale = T(1) / y;
    g /= T(region.positions);
    for (int64_t q = 0; q < region.positions; ++q) {
      Vec<T> raw = projected(region.maximum + q * cin, proj ? packed : nullptr, block, cin, cout);
      Vec<T> ratio = clamped<T>(raw) * scale, logarithm = log(ratio);
      Vec<T> slope = exp(logarithm * (region.p - 1));
      gp_sum += slope * ratio * logarithm;
      store(gu + (first + q) * padded + block * lanes<T>, raw >= T(1e-6) ? g * slope : Vec<T>{});
    }
    store(gp_parts + (n * s.regions + r) * padded + block * lanes<T>, gp_sum * g * y / region.p);
  });
  for (int64_t r = 0; r < s.regions; ++r) {
    T sum = 0;
    for (int64_t n = 0; n < s.sequences; ++n)
      for (int64_t o = 0; o < cout; ++o) sum += gp_parts[(n * s.regions + r) * padded + o];
    gp[r] = sum;
  }
  parallel_for(s.threads, s.sequences * map, [&](int64_t q, int) {
    for (int64_t k = 0; k < cin; ++k) {
      T sum = 0;
      for (int64_t o = 0; proj && o < cout; ++o) sum += gu[q * padded + o] * proj[o * cin + k];
      gmaximum[q * cin + k] = proj ? sum : gu[q * padded + k];
    }
  });
  if (!proj) return;
  parallel_for(s.threads, cout, [&](int64_t o, int) {
    for (int64_t k = 0; k < cin; ++k) gproj[o * cin + k] = 0;
    for (int64_t q = 0; q < s.sequences * map; ++q)
      for (int64_t k = 0; k < cin; ++k) gproj[o * cin + k] += gu[q * padded + o] * maximum[q * cin + k];
  });
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
