// Where frames and regions begin, and how a workspace is divided.
#pragma once

#include "../hstl.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

inline int64_t total(const int64_t* sizes, int64_t count) {
  int64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += sizes[i];
  return sum;
}

inline int64_t rows_of(const Shape& s) { return total(s.split, s.regions); }
inline int64_t frames_of(const Shape& s) { return total(s.seq_lens, s.sequences); }

// Rows of region r.
inline Range region_rows(const Shape& s, int64_t r) {
  int64_t begin = total(s.split, r);
  return {begin, begin + s.split[r]};
}

// Hands out 64-byte aligned pieces of a workspace; from a null base it only counts.
struct Carver {
  char* base;
  size_t used = 0;

  explicit Carver(void* workspace) : base(nullptr) {
    uintptr_t address = reinterpret_cast<uintptr_t>(workspace);
    base = reinterpret_cast<char*>((address + 63) & ~uintptr_t(63));
  }

  template <class T>
  T* take(int64_t count) {
    char* piece = base + used;
    used += round_up(count * int64_t(sizeof(T)), 64);
    return reinterpret_cast<T*>(piece);
  }

  size_t bytes() const { return used + 64; }
};

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
