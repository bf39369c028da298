// Supports of feature maps, one byte per position: any byte but 0 is inside; what is written is 0 or 1.
#include "launch.cuh"
#include "operators.h"
#include "vector.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// ---- grown by one position

// Columns that a warp writes: its first and last lane read the neighbours of these.
constexpr int kColumns = 30;
// Rows that a warp walks down.
constexpr int kRows = 8;

struct GrowParameters {
  uint8_t* y;
  const uint8_t* x;
  const int32_t* ends;
  const int32_t* region_of_row;
  int64_t strips;  // of kColumns columns, of kRows rows of every frame
  int h, w, strips_down, strips_across;
};

// Whether any of the three frames is inside at this lane's column of a row.
__device__ __forceinline__ bool inside_any_frame(const uint8_t* x, int row, int col, int64_t frame_size, bool before,
                                                 bool after, int h, int w) {
  if (row < 0 || row >= h || col < 0 || col >= w) return false;
  const uint8_t* at = x + int64_t(row) * w + col;
  return (at[0] | (before ? at[-frame_size] : 0) | (after ? at[frame_size] : 0)) != 0;
}

// A warp walks down a strip of columns: a ballot joins neighbouring columns, registers hold the rows above and below.
// Bytes: 3 x 32 / 30 x 10 / 8 = 4 loads a position, of which two come from caches; one written.
HSTL_KERNEL(kThreads, 8) grow(const __grid_constant__ GrowParameters p) {
  const int64_t strip = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (strip >= p.strips) return;
  const int lane = threadIdx.x % 32;
  const int64_t in_column = divide(strip, p.strips_across);
  const int frame = int(divide(in_column, p.strips_down));
  const int col = int(strip - in_column * p.strips_across) * kColumns + lane - 1;
  const int first_row = int(in_column - int64_t(frame) * p.strips_down) * kRows;
  const int end_row = min(first_row + kRows, p.h);
  const int64_t frame_size = int64_t(p.h) * p.w;
  const bool before = frame > __ldg(p.ends + 2 * int64_t(frame)),
             after = frame < __ldg(p.ends + 2 * int64_t(frame) + 1);
  const uint8_t* x = p.x + frame * frame_size;
  uint8_t* y = p.y + frame * frame_size;
  const bool writes = lane >= 1 && lane <= kColumns && col < p.w;

  bool above = inside_any_frame(x, first_row - 1, col, frame_size, before, after, p.h, p.w);
  bool here = inside_any_frame(x, first_row, col, frame_size, before, after, p.h, p.w);
  int region_above = first_row > 0 ? __ldg(p.region_of_row + first_row - 1) : -1;
  int region = __ldg(p.region_of_row + first_row);
  for (int row = first_row; row < end_row; ++row) {
    const bool below = inside_any_frame(x, row + 1, col, frame_size, before, after, p.h, p.w);
    const int region_below = row + 1 < p.h ? __ldg(p.region_of_row + row + 1) : -1;
    const bool any = here || (above && region_above == region) || (below && region_below == region);
    const uint64_t columns = __ballot_sync(0xffffffffu, any);
    const bool grown = (columns << 1 | columns | columns >> 1) >> lane & 1;
    if (writes) y[int64_t(row) * p.w + col] = grown;
    above = here;
    here = below;
    region_above = region;
    region = region_below;
  }
}

// ---- fta's windows

struct WindowParameters {
  uint8_t* y;
  const uint8_t* x;
  const int32_t* windows;
  int64_t words;       // of y
  int64_t frame_size;  // in words
};

// 1 in every byte that is not 0.
__device__ __forceinline__ uint32_t ones(uint32_t word) {
  return (((word & 0x7f7f7f7fu) + 0x7f7f7f7fu) | word) >> 7 & 0x01010101u;
}
__device__ __forceinline__ uint8_t ones(uint8_t byte) { return byte != 0; }

// Bytes: five of x read for each of y, two of three from caches, one written.
template <class Word>
HSTL_KERNEL(kThreads, 8)
window(const __grid_constant__ WindowParameters p) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.words) return;
  const int64_t output = divide(at, p.frame_size), position = at - output * p.frame_size;
  const int frame = __ldg(p.windows + 3 * output);
  const int first = max(frame - 1, __ldg(p.windows + 3 * output + 1));
  const int last = min(frame + 3, __ldg(p.windows + 3 * output + 2));
  const Word* x = reinterpret_cast<const Word*>(p.x) + position;
  Word any = 0;
  for (int t = first; t <= last; ++t) any |= x[t * p.frame_size];
  reinterpret_cast<Word*>(p.y)[at] = ones(any);
}

template <class Word>
void enqueue_window(const WindowSupport& a) {
  WindowParameters p{a.y, a.x, a.windows, a.frames * a.h * a.w / int64_t(sizeof(Word)),
                     a.h * a.w / int64_t(sizeof(Word))};
  launch("window_support", window<Word>, grid_of(blocks_for(p.words, kThreads)), kThreads, 0, a.stream, p);
}

// ---- the 2 x 2 maximum

struct MaxPoolParameters {
  uint8_t* y;
  const uint8_t* x;
  int64_t positions;  // of y
  int h, w;           // of x
};

// Bytes: four read and one written a position.
HSTL_KERNEL(kThreads, 8) max_pool(const __grid_constant__ MaxPoolParameters p) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.positions) return;
  const int rows = p.h / 2, cols = p.w / 2;
  const int64_t line = divide(at, cols), frame = divide(line, rows);
  const int64_t row = line - frame * rows, col = at - line * cols;
  const uint8_t* x = p.x + (frame * p.h + 2 * row) * p.w + 2 * col;
  p.y[at] = (x[0] | x[1] | x[p.w] | x[p.w + 1]) != 0;
}

}  // namespace

void run(const GrowSupport& a) {
  OnDevice on(a.device);
  GrowParameters p{a.y,
                   a.x,
                   a.ends,
                   a.region_of_row,
                   0,
                   int(a.h),
                   int(a.w),
                   int(blocks_for(a.h, kRows)),
                   int(blocks_for(a.w, kColumns))};
  p.strips = a.frames * p.strips_down * p.strips_across;
  launch("grow_support", grow, grid_of(blocks_for(p.strips, kWarps)), kThreads, 0, a.stream, p);
}

void run(const WindowSupport& a) {
  OnDevice on(a.device);
  if (a.h * a.w % 4 == 0 && aligned(a.y, 4) && aligned(a.x, 4))
    enqueue_window<uint32_t>(a);
  else
    enqueue_window<uint8_t>(a);
}

void run(const MaxPoolSupport& a) {
  OnDevice on(a.device);
  MaxPoolParameters p{a.y, a.x, a.frames * (a.h / 2) * (a.w / 2), int(a.h), int(a.w)};
  launch("max_pool_support", max_pool, grid_of(blocks_for(p.positions, kThreads)), kThreads, 0, a.stream, p);
}

}  // namespace hstl
