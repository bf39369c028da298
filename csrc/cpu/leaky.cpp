// LeakyReLU's backward pass by itself: a gradient [F, H, W, C] goes back through the activation in place.
#include "arme.h"
#include "parallel.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

template <class T>
void scale_negative(T* grad, const T* y, int64_t count, T negative_slope) {
  for (int64_t i = 0; i < count; i += lanes<T>) {
    int64_t valid = count - i;
    store_some(grad + i, load_through(grad + i, y + i, negative_slope, valid), valid);
  }
}

// Bytes: inside the support y is read, grad read and written.
template <class T>
void leaky_backward(const LeakyBackward<T>& a) {
  const Shape s = shape_of(a);
  parallel_for(s.threads, frames_of(s) * rows_of(s), [&](int64_t row, int) {
    const int64_t end = (row + 1) * s.width;
    for (int64_t first = row * s.width; first < end;) {
      int64_t last = a.support ? first : end;
      while (last < end && a.support[last]) ++last;
      scale_negative(a.grad + first * a.c, a.y + first * a.c, (last - first) * a.c, a.negative_slope);
      for (first = last; first < end && !a.support[first];) ++first;
    }
  });
}

}  // namespace

void fill_leaky(Tables& tables) {
  tables.float32.leaky_backward = leaky_backward<float>;
  tables.float64.leaky_backward = leaky_backward<double>;
}

}  // namespace HSTL_ISA
}  // namespace hstl
