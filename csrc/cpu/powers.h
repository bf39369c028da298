// Powers of positive numbers relative to one of them, as a generalised mean adds them up: (u / reference)^p, where the
// reference's own is exactly 1 and none is larger.
#pragma once

#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

template <class T>
class RelativePower;

// log2(u / reference) is a whole number plus logarithms of mantissas, so that it needs no division and no error of u's
// own magnitude enters. 36 instructions an element. Powers below 2^-125 come out as about 2^-125.
template <>
class RelativePower<float> {
  using V = Vec<float>;
  using I = IntVec<float>;

 public:
  HSTL_INLINE RelativePower(V reference, float p)
      : reference_(logarithm(reference)), p_(p), by_natural_(p * 1.44269504089f) {}

  HSTL_INLINE V operator()(V u) const {
    Logarithm own = logarithm(u);
    return exp2((own.whole - reference_.whole) * p_ + (own.natural - reference_.natural) * by_natural_);
  }

 private:
  // log(x) = whole * log(2) + natural, where natural is the logarithm of a number in [sqrt(1/2), sqrt(2)).
  struct Logarithm {
    V whole, natural;
  };

  static HSTL_INLINE Logarithm logarithm(V x) {
    Normalised n = normalised(x);
    V square = n.f * n.f;
    return {n.exponent, n.f + (log_polynomial(n.f) * n.f * square - square * 0.5f)};
  }

  // 2^y for y up to rounding at most 0. The polynomial's error is 2e-9.
  static HSTL_INLINE V exp2(V y) {
    const V low = broadcast(-125.0f);
    y = y < low ? low : y;
    const float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which stands in the lowest bits
    V shifted = y + round, r = y - (shifted - round);
    V p = r * 1.5345811971e-4f + 1.3399931385e-3f;
    p = p * r + 9.6184889587e-3f;
    p = p * r + 5.5503287766e-2f;
    p = p * r + 2.4022646891e-1f;
    p = p * r + 6.9314720574e-1f;
    p = p * r + 1.0f;
    return (V)((I)p + ((I)shifted << 23));
  }

  Logarithm reference_;
  float p_, by_natural_;
};

template <>
class RelativePower<double> {
  using V = Vec<double>;

 public:
  HSTL_INLINE RelativePower(V reference, double p) : reference_(reference), p_(p) {}

  HSTL_INLINE V operator()(V u) const { return exp(log(u / reference_) * p_); }

 private:
  V reference_;
  double p_;
};

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
