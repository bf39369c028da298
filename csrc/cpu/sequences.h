// Where the sequences of a map begin, found by walking along them.
#pragma once

#include "../shapes.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// A place among the sequences. It only moves forward, from where it was, so that many sequences take linear time.
struct SequenceWalk {
  int64_t sequence = 0;
  int64_t frames = 0, windows = 0;  // of all sequences before it

  void to_sequence(const int64_t* seq_lens, int64_t n) {
    while (sequence < n) next(seq_lens);
  }

  void to_frame(const int64_t* seq_lens, int64_t frame) {
    while (frames + seq_lens[sequence] <= frame) next(seq_lens);
  }

  void to_window(const int64_t* seq_lens, int64_t window) {
    while (windows + windows_of(seq_lens[sequence]) <= window) next(seq_lens);
  }

 private:
  void next(const int64_t* seq_lens) {
    frames += seq_lens[sequence];
    windows += windows_of(seq_lens[sequence++]);
  }
};

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
