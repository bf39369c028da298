// max_pool 2x2, stride 2: the spatial maximum of maps [frames, h, w, C] -> [frames, h / 2, w / 2, C].
#include "operators.h"
#include "parallel.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Computes a row of outputs from two rows of inputs. Bytes: 5 vectors a position and vector of channels, read and
// written once.
template <class T>
void max_pool_rows(T* y, const T* upper, const T* lower, const uint8_t* inside, int64_t width, int64_t c) {
  for (int64_t q = 0; q < width; ++q, y += c, upper += 2 * c, lower += 2 * c) {
    if (inside && !inside[q]) {
      __builtin_memset(y, 0, c * sizeof(T));
      continue;
    }
    for (int64_t k = 0; k < c; k += lanes<T>) {
      const T* const others[] = {upper + c + k, lower + k, lower + c + k};
      Vec<T> best = load_some(upper + k, c - k);
      for (const T* other : others) {
        Vec<T> x = load_some(other, c - k);
        best = replaces<T>(x, best) ? x : best;
      }
      store_some(y + k, best, c - k);
    }
  }
}

template <class T>
void max_pool(const MaxPool<T>& a) {
  int64_t rows = a.h / 2, width = a.w / 2;
  parallel_for(usable_threads(a.threads), a.frames, [&](int64_t f, int) {
    for (int64_t i = 0; i < rows; ++i) {
      const T* upper = a.x + (f * a.h + 2 * i) * a.w * a.c;
      int64_t at = (f * rows + i) * width;
      max_pool_rows(a.y + at * a.c, upper, upper + a.w * a.c, a.support ? a.support + at : nullptr, width, a.c);
    }
  });
}

}  // namespace

void fill_max_pool(Tables& tables) {
  tables.float32.max_pool = max_pool<float>;
  tables.float64.max_pool = max_pool<double>;
}

}  // namespace HSTL_ISA
}  // namespace hstl
