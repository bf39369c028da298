#include "geometry.h"
#include "parallel.h"
#include "simd.h"
#include "tables.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

constexpr int64_t kStride = 3;

inline int64_t windows_of(int64_t frames) { return frames / kStride; }

inline int64_t total_windows(const Shape& s) {
  int64_t sum = 0;
  for (int64_t n = 0; n < s.sequences; ++n) sum += windows_of(s.seq_lens[n]);
  return sum;
}

// The frames of one output frame: a over [3t', 3t'+3), b over [3t'-1, 3t'+4) inside the sequence.
struct Window {
  int64_t first_frame;  // of the sequence, among all F
  int64_t centre;       // 3t'
  Range wide;           // frames of b within the sequence
};

inline Window window_at(const int64_t* seq_lens, int64_t output_frame) {
  int64_t first_frame = 0;
  while (output_frame >= windows_of(*seq_lens)) {
    output_frame -= windows_of(*seq_lens);
    first_frame += *seq_lens++;
  }
  int64_t centre = output_frame * kStride;
  return {first_frame, centre, {larger(centre - 1, 0), smaller(centre + 4, *seq_lens)}};
}

template <class T>
struct Maxima {
  Vec<T> a, b;
  IntVec<T> a_frame, b_frame;  // of the window, counted from the window's first frame
};

template <class T>
HSTL_INLINE void take_larger(Vec<T>& best, IntVec<T>& best_frame, Vec<T> v, int64_t frame) {
  IntVec<T> better = (v > best) | (v != v);  // NaN wins, as in torch
  best = better ? v : best;
  best_frame = better ? IntVec<T>{} + typename Simd<T>::Lane(frame) : best_frame;
}

// x: first frame of the sequence, at the element wanted; `stride` elements between frames.
template <class T>
HSTL_INLINE Maxima<T> maxima(const T* x, int64_t stride, const Window& window, int64_t valid) {
  Maxima<T> m;
  m.a = m.b = broadcast(-T(__builtin_inf()));
  m.a_frame = m.b_frame = IntVec<T>{};
  for (int64_t t = window.wide.begin; t < window.wide.end; ++t) {
    Vec<T> v = load_some(x + t * stride, valid);
    take_larger<T>(m.b, m.b_frame, v, t - window.wide.begin);
    if (t >= window.centre && t < window.centre + 3) take_larger<T>(m.a, m.a_frame, v, t - window.wide.begin);
  }
  return m;
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
size_t fta_workspace(const Shape& s, int64_t c) {
  Carver carver(nullptr);
  for (int i = 0; i < 3; ++i) carver.take<T>(total_windows(s) * s.regions * c);
  return carver.bytes();
}

template <class T>
void fta_forward(T* y, T* z, const T* x, const T* w, const T* biases, void* workspace, const Shape& s, int64_t c) {
  int64_t map = rows_of(s) * s.width * c;
  T* gate = Carver(workspace).take<T>(total_windows(s) * s.regions * c);
  parallel_for(s.threads, total_windows(s) * s.regions, [&](int64_t i, int) {
    int64_t f = i / s.regions, r = i % s.regions;
    Window window = window_at(s.seq_lens, f);
    Range rows = region_rows(s, r);
    for (int64_t k = 0; k < c; k += lanes<T>) {
      Vec<T> sum = {};
      for (int64_t h = rows.begin; h < rows.end; ++h) {
        Vec<T> row_sum = {};
        for (int64_t q = 0; q < s.width; ++q) {
          Maxima<T> m = maxima(x + window.first_frame * map + (h * s.width + q) * c + k, map, window, c - k);
          row_sum += m.a + m.b;
        }
        sum += row_sum;
      }
      store_some(z + i * c + k, sum / T(rows.size() * s.width), c - k);
    }
    gates(gate + i * c, z + i * c, w + r * 2 * c * c, biases + r * 2 * c, c);
    for (int64_t q = rows.begin * s.width; q < rows.end * s.width; ++q)
      for (int64_t k = 0; k < c; k += lanes<T>) {
        Maxima<T> m = maxima(x + window.first_frame * map + q * c + k, map, window, c - k);
        Vec<T> share = load_some(gate + i * c + k, c - k);
        store_some(y + f * map + q * c + k, share * m.a + (T(1) - share) * m.b, c - k);
      }
  });
}

template <class T>
void fta_backward(T* gx, T* gw, T* gbiases, const T* gy, const T* x, const T* z, const T* w, const T* biases,
                  void* workspace, const Shape& s, int64_t c) {
  int64_t map = rows_of(s) * s.width * c, outputs = total_windows(s);
  Carver carver(workspace);
  T* gate = carver.take<T>(outputs * s.regions * c);
  T* gu = carver.take<T>(outputs * s.regions * c);
  T* gz = carver.take<T>(outputs * s.regions * c);
  parallel_for(s.threads, outputs * s.regions, [&](int64_t i, int) {
    int64_t f = i / s.regions, r = i % s.regions;
    Window window = window_at(s.seq_lens, f);
    Range rows = region_rows(s, r);
    const T* weights = w + r * 2 * c * c;
    gates(gate + i * c, z + i * c, weights, biases + r * 2 * c, c);
    for (int64_t k = 0; k < c; k += lanes<T>) {
      Vec<T> sum = {}, share = load_some(gate + i * c + k, c - k);
      for (int64_t h = rows.begin; h < rows.end; ++h) {
        Vec<T> row_sum = {};
        for (int64_t q = 0; q < s.width; ++q) {
          int64_t e = (h * s.width + q) * c + k;
          Maxima<T> m = maxima(x + window.first_frame * map + e, map, window, c - k);
          row_sum += load_some(gy + f * map + e, c - k) * (m.a - m.b);
        }
        sum += row_sum;
      }
      store_some(gu + i * c + k, sum * share * (T(1) - share), c - k);
      store_some(gz + i * c + k, Vec<T>{}, c - k);
    }
    for (int64_t o = 0; o < c; ++o)
      for (int64_t k = 0; k < c; ++k)
        gz[i * c + k] += gu[i * c + o] * (weights[o * c + k] - weights[(c + o) * c + k]) / T(rows.size() * s.width);
  });
  parallel_for(s.threads, s.regions * c, [&](int64_t i, int) {
    int64_t r = i / c, o = i % c;
    T* row = gw + (r * 2 * c + o) * c;
    T sum = 0;
    for (int64_t k = 0; k < c; ++k) row[k] = 0;
    for (int64_t f = 0; f < outputs; ++f) {
      T g = gu[(f * s.regions + r) * c + o];
      for (int64_t k = 0; k < c; ++k) row[k] += g * z[(f * s.regions + r) * c + k];
      sum += g;
    }
    for (int64_t k = 0; k < c; ++k) row[c * c + k] = -row[k];
    gbiases[r * 2 * c + o] = sum;
    gbiases[(r * 2 + 1) * c + o] = -sum;
  });
  int64_t heights = rows_of(s);
  parallel_for(s.threads, s.sequences * heights, [&](int64_t i, int) {
    int64_t n = i / heights, h = i % heights, r = 0, frames = s.seq_lens[n];
    while (region_rows(s, r).end <= h) ++r;
    int64_t offset = total(s.seq_lens, n) * map + h * s.width * c, first_output = 0;
    for (int64_t before = 0; before < n; ++before) first_output += windows_of(s.seq_lens[before]);
    for (int64_t t = 0; t < frames; ++t) __builtin_memset(gx + offset + t * map, 0, s.width * c * sizeof(T));
    for (int64_t t = 0; t < windows_of(frames); ++t) {
      Window window = window_at(s.seq_lens, first_output + t);
      int64_t f = first_output + t, part = (f * s.regions + r) * c;
      for (int64_t q = 0; q < s.width; ++q)
        for (int64_t k = 0; k < c; k += lanes<T>) {
          int64_t e = q * c + k;
          Maxima<T> m = maxima(x + offset + e, map, window, c - k);
          Vec<T> share = load_some(gate + part + k, c - k), mean = load_some(gz + part + k, c - k);
          Vec<T> g = load_some(gy + f * map + h * s.width * c + e, c - k);
          Vec<T> ga = g * share + mean, gb = g * (T(1) - share) + mean;
          for (int64_t j = 0; j < window.wide.size(); ++j) {
            T* to = gx + offset + (window.wide.begin + j) * map + e;
            IntVec<T> frame = IntVec<T>{} + typename Simd<T>::Lane(j);
            Vec<T> add = (m.a_frame == frame ? ga : Vec<T>{}) + (m.b_frame == frame ? gb : Vec<T>{});
            store_some(to, load_some(to, c - k) + add, c - k);
          }
        }
    }
  });
}

template <class T>
void fill(Operators<T>& table) {
  table.fta_workspace = fta_workspace<T>;
  table.fta_forward = fta_forward<T>;
  table.fta_backward = fta_backward<T>;
}

}  // namespace

void fill_fta(Operators<float>& single, Operators<double>& dual) {
  fill(single);
  fill(dual);
}

}  // namespace HSTL_ISA
}  // namespace hstl
