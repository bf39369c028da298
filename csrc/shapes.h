// Sizes of feature maps: where sequences, regions and fta's windows begin. Shared by all native backends.
//
// A feature map is frames x rows x columns x channels, channels last, densely packed. The frames of all sequences stand
// one after another (F = sum(seq_lens)), the rows of all regions one below another (H = sum(split)). A support is one
// byte per position, [F, H, W]: 1 where the map may be non-zero, the active sites of a sparse convolution.
//
// All but Shape is in an unnamed namespace: each file that includes this has copies of its own, compiled for its own
// instruction set; the linker would keep one copy, perhaps the one compiled for a newer machine.
#pragma once

#include <cstdint>

namespace hstl {

struct Shape {
  const int64_t* seq_lens;  // [sequences] frames of each sequence
  int64_t sequences;        // N
  const int64_t* split;     // [regions] rows of each region
  int64_t regions;          // m
  int64_t width;            // W
  int threads;              // >= 1
};

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

// Chunk i of `chunks` nearly equal chunks of 0..n-1.
inline Range chunk_of(int64_t n, int64_t chunks, int64_t i) { return {n * i / chunks, n * (i + 1) / chunks}; }

// Frames between fta's windows, and the frames that each sees.
constexpr int64_t kWindowStride = 3;
constexpr int64_t kWindowFrames = 5;

inline int64_t windows_of(int64_t frames) { return frames / kWindowStride; }

inline int64_t total_windows(const Shape& s) {
  int64_t sum = 0;
  for (int64_t n = 0; n < s.sequences; ++n) sum += windows_of(s.seq_lens[n]);
  return sum;
}

// The frames of one window, among all F: b sees all five, a the middle three. A frame outside the sequence is replaced
// by its neighbour inside, which changes neither a maximum nor the first frame that attains it.
struct Window {
  int64_t frames[kWindowFrames];
};

// Window t of a sequence of `frames` frames, before which there are `before`.
inline Window window_at(int64_t before, int64_t frames, int64_t t) {
  Window window;
  for (int64_t j = 0; j < kWindowFrames; ++j)
    window.frames[j] = before + smaller(larger(t * kWindowStride - 1 + j, 0), frames - 1);
  return window;
}

}  // namespace
}  // namespace hstl
