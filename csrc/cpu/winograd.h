// Winograd's transforms for three taps (Toom-Cook interpolation), one axis at a time, on vectors of channels.
//
// F(n, 3) gives n outputs of a correlation with three taps from n + 2 inputs d by n + 2 products:
//   y = A^T ((G w) * (B^T d)).
// Polynomials are evaluated at the points 0, +-a, +-b, c and infinity (n = 5; 4 leaves c out, 2 has +-1 in place of
// +-a, +-b). The points, found by search among eighths, keep the errors of rounding small: with unit inputs and weights
// they are amplified 2.2, 3.8 and 6.5 times for n = 2, 4 and 5 (2.9 to 9.7 for the usual 1, 2 of n = 4).
// The same matrices transposed give the gradient of the weights: G^T ((A g) * (B^T d)).
#pragma once

#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Rows and columns of a tile.
constexpr int kSide = 4;
// Rows or columns of its inputs, and of its products.
constexpr int kFrequencies = kSide + 2;

using Floats = Vec<float>;

// The points of F(n, 3).
template <int N>
struct Points;

template <>
struct Points<4> {
  static constexpr float a = 0.625f, b = 1.5f;
};

template <>
struct Points<5> {
  static constexpr float a = 0.5f, b = 1.125f, c = 2.625f;
};

constexpr float squared(float x) { return x * x; }

// B^T d. Two of the six outputs of n = 4 share their products: those at 0 and infinity, at +-a, and at +-b.
template <class P>
struct Inputs4 {
  static constexpr float a2 = squared(P::a), b2 = squared(P::b);

  static HSTL_INLINE Floats zero(const Floats* d) { return d[4] - (a2 + b2) * d[2] + a2 * b2 * d[0]; }
  static HSTL_INLINE Floats infinity(const Floats* d) { return d[5] - (a2 + b2) * d[3] + a2 * b2 * d[1]; }
  static HSTL_INLINE void pair(const Floats* d, float point, float other_squared, Floats& plus, Floats& minus) {
    Floats even = d[4] - other_squared * d[2], odd = (d[3] - other_squared * d[1]) * point;
    plus = even + odd;
    minus = even - odd;
  }
};

template <int N>
struct Transform;

template <>
struct Transform<2> {
  static HSTL_INLINE void input(Floats* v, const Floats* d) {
    v[0] = d[2] - d[0];
    v[1] = d[2] + d[1];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  static HSTL_INLINE void output(Floats* y, const Floats* m) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] + m[3];
  }
  static HSTL_INLINE void weights(Floats* u, const Floats* w) {
    Floats even = (w[0] + w[2]) * 0.5f, odd = w[1] * 0.5f;
    u[0] = -w[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = w[2];
  }
  // A g
  static HSTL_INLINE void gradient(Floats* v, const Floats* g) {
    v[0] = g[0];
    v[1] = g[0] + g[1];
    v[2] = g[0] - g[1];
    v[3] = g[1];
  }
  // G^T m
  static HSTL_INLINE void weights_back(Floats* w, const Floats* m) {
    Floats even = (m[1] + m[2]) * 0.5f;
    w[0] = even - m[0];
    w[1] = (m[1] - m[2]) * 0.5f;
    w[2] = even + m[3];
  }
};

template <>
struct Transform<4> {
  using P = Points<4>;
  static constexpr float a = P::a, b = P::b, a2 = squared(a), b2 = squared(b);
  static constexpr float na = 1 / (2 * a2 * (a2 - b2)), nb = 1 / (2 * b2 * (b2 - a2)), n0 = 1 / (a2 * b2);

  static HSTL_INLINE void input(Floats* v, const Floats* d) {
    v[0] = Inputs4<P>::zero(d);
    Inputs4<P>::pair(d, a, b2, v[1], v[2]);
    Inputs4<P>::pair(d, b, a2, v[3], v[4]);
    v[5] = Inputs4<P>::infinity(d);
  }
  static HSTL_INLINE void output(Floats* y, const Floats* m) {
    Floats sa = m[1] + m[2], da = m[1] - m[2], sb = m[3] + m[4], db = m[3] - m[4];
    y[0] = m[0] + sa + sb;
    y[1] = a * da + b * db;
    y[2] = a2 * sa + b2 * sb;
    y[3] = a * a2 * da + b * b2 * db + m[5];
  }
  static HSTL_INLINE void weights(Floats* u, const Floats* w) {
    Floats ea = (w[0] + a2 * w[2]) * na, oa = w[1] * (a * na), eb = (w[0] + b2 * w[2]) * nb, ob = w[1] * (b * nb);
    u[0] = w[0] * n0;
    u[1] = ea + oa;
    u[2] = ea - oa;
    u[3] = eb + ob;
    u[4] = eb - ob;
    u[5] = w[2];
  }
  static HSTL_INLINE void gradient(Floats* v, const Floats* g) {
    Floats ea = g[0] + a2 * g[2], oa = (g[1] + a2 * g[3]) * a, eb = g[0] + b2 * g[2], ob = (g[1] + b2 * g[3]) * b;
    v[0] = g[0];
    v[1] = ea + oa;
    v[2] = ea - oa;
    v[3] = eb + ob;
    v[4] = eb - ob;
    v[5] = g[3];
  }
  static HSTL_INLINE void weights_back(Floats* w, const Floats* m) {
    Floats sa = (m[1] + m[2]) * na, da = (m[1] - m[2]) * (a * na), sb = (m[3] + m[4]) * nb,
           db = (m[3] - m[4]) * (b * nb);
    w[0] = m[0] * n0 + sa + sb;
    w[1] = da + db;
    w[2] = a2 * sa + b2 * sb + m[5];
  }
};

template <>
struct Transform<5> {
  using P = Points<5>;
  static constexpr float a = P::a, b = P::b, c = P::c, a2 = squared(a), b2 = squared(b), c2 = squared(c);
  static constexpr float na1 = 1 / (2 * a2 * (a2 - b2) * (a - c)), na2 = -1 / (2 * a2 * (a2 - b2) * (a + c)),
                         nb1 = 1 / (2 * b2 * (b2 - a2) * (b - c)), nb2 = -1 / (2 * b2 * (b2 - a2) * (b + c)),
                         n0 = -1 / (a2 * b2 * c), nc = 1 / (c * (c2 - a2) * (c2 - b2));

  // At all points but c, n = 4's transform of the differences that are zero at c.
  static HSTL_INLINE void input(Floats* v, const Floats* d) {
    Floats e[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) e[i] = d[i + 1] - c * d[i];
    v[0] = Inputs4<P>::zero(e);
    Inputs4<P>::pair(e, a, b2, v[1], v[2]);
    Inputs4<P>::pair(e, b, a2, v[3], v[4]);
    v[5] = d[5] - (a2 + b2) * d[3] + a2 * b2 * d[1];
    v[6] = Inputs4<P>::infinity(e);
  }
  static HSTL_INLINE void output(Floats* y, const Floats* m) {
    Floats sa = m[1] + m[2], da = m[1] - m[2], sb = m[3] + m[4], db = m[3] - m[4];
    y[0] = m[0] + sa + sb + m[5];
    y[1] = a * da + b * db + c * m[5];
    y[2] = a2 * sa + b2 * sb + c2 * m[5];
    y[3] = a * a2 * da + b * b2 * db + c * c2 * m[5];
    y[4] = a2 * a2 * sa + b2 * b2 * sb + c2 * c2 * m[5] + m[6];
  }
  static HSTL_INLINE void weights(Floats* u, const Floats* w) {
    Floats ea = w[0] + a2 * w[2], oa = a * w[1], eb = w[0] + b2 * w[2], ob = b * w[1];
    u[0] = w[0] * n0;
    u[1] = (ea + oa) * na1;
    u[2] = (ea - oa) * na2;
    u[3] = (eb + ob) * nb1;
    u[4] = (eb - ob) * nb2;
    u[5] = (w[0] + c * w[1] + c2 * w[2]) * nc;
    u[6] = w[2];
  }
  static HSTL_INLINE void gradient(Floats* v, const Floats* g) {
    Floats ea = g[0] + a2 * g[2] + a2 * a2 * g[4], oa = (g[1] + a2 * g[3]) * a;
    Floats eb = g[0] + b2 * g[2] + b2 * b2 * g[4], ob = (g[1] + b2 * g[3]) * b;
    v[0] = g[0];
    v[1] = ea + oa;
    v[2] = ea - oa;
    v[3] = eb + ob;
    v[4] = eb - ob;
    v[5] = g[0] + c * (g[1] + c * (g[2] + c * (g[3] + c * g[4])));
    v[6] = g[4];
  }
  static HSTL_INLINE void weights_back(Floats* w, const Floats* m) {
    Floats p1 = m[1] * na1, p2 = m[2] * na2, q1 = m[3] * nb1, q2 = m[4] * nb2, r = m[5] * nc;
    w[0] = m[0] * n0 + (p1 + p2) + (q1 + q2) + r;
    w[1] = a * (p1 - p2) + b * (q1 - q2) + c * r;
    w[2] = a2 * (p1 + p2) + b2 * (q1 + q2) + c2 * r + m[6];
  }
};

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
