// The frames that fta's windows see.
#pragma once

#include "geometry.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Frames between the windows, and the frames that each sees.
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

inline Window window_at(const int64_t* seq_lens, int64_t output_frame) {
  int64_t first = 0;
  while (output_frame >= windows_of(*seq_lens)) {
    output_frame -= windows_of(*seq_lens);
    first += *seq_lens++;
  }
  Window window;
  for (int64_t j = 0; j < kWindowFrames; ++j)
    window.frames[j] = first + smaller(larger(output_frame * kWindowStride - 1 + j, 0), *seq_lens - 1);
  return window;
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
