// The 2-byte types and TF32: conversions to the nearest, in integers, with NaN, infinities and subnormals.
#pragma once

#include "shim_cuda.h"

namespace hstl {

struct half_t {
  uint16_t bits;
};
struct bfloat16_t {
  uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(bfloat16_t x) { return __uint_as_float(uint32_t(x.bits) << 16); }
inline float to_float(half_t x) {
  uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = uint32_t(x.bits & 0x7fff) << 13;
  if (rest >= 0x0f800000) return __uint_as_float(sign | rest | 0x7f800000);    // infinity, NaN
  if (rest >= 0x00800000) return __uint_as_float(sign | (rest + 0x38000000));  // the exponent's bias: 127 - 15
  // A subnormal m is m / 2^24: the float 2^-14 (1 + m / 1024) without its leading one.
  float tiny = __uint_as_float(rest | 0x38800000) - __uint_as_float(0x38800000);
  return __uint_as_float(sign | __float_as_uint(tiny));
}

// To the nearest, ties to even; every NaN becomes 0x7fff, as on the device.
template <class T>
T from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline half_t from_float<half_t>(float x) {
  uint32_t bits = __float_as_uint(x), sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return {0x7fff};
  if (bits >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // from 65520 on
  if (bits >= 0x38800000) {                                  // from 2^-14 on, the smallest normal number
    uint32_t rounded = bits + 0xfff + ((bits >> 13) & 1);
    return {uint16_t(sign | ((rounded - 0x38000000) >> 13))};
  }
  // A float's last bit beside 0.5 is 2^-24, a subnormal's: the sum rounds as it should.
  return {uint16_t(sign | (__float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000))};
}
template <>
inline bfloat16_t from_float<bfloat16_t>(float x) {
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// To the nearest, ties away from zero.
inline float round_to_tf32(float x) {
  uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return __uint_as_float(0x7fffffff);
  if (magnitude == 0x7f800000) return x;
  return __uint_as_float((bits + 0x1000) & 0xffffe000);
}

}  // namespace hstl
