// arme's direct wgrad, gw [m, c_out, c_in, 27]: a GEMM over positions. Frames are copied in groups; then each chunk of
// the weights is summed over all positions of the group by whichever thread takes it, so nothing depends on the number
// of threads.
#include "arme_direct.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Input channels of a tile; with 2 vectors of output channels its sums stay in registers. Divides kChunk.
constexpr int kInputs = kVectorRegisters == 32 ? 8 : 4;
// Copied maps of a group of frames: in the third-level cache.
constexpr int64_t kGroupBytes = 16 << 20;
// Positions summed in registers before they are added to the total. More read and write the totals less often; fewer
// keep float32's rounding smaller.
constexpr int64_t kSummed = 384;

struct Sizes {
  int64_t c_in, c_out, height, width;
  int64_t panels;  // of output channels
  int64_t inputs;  // input channels of a tile
  int64_t tiles;   // of input channels

  int64_t units() const { return panels * 9 * tiles; }  // [panel][frame tap][row tap][tile]
};

template <class T>
Sizes sizes_of(const Shape& s, int64_t c_in, int64_t c_out) {
  int64_t inputs = c_in == 1 ? 1 : kInputs;
  return {c_in, c_out, rows_of(s), s.width, ceil_div(c_out, kOut<T>), inputs, ceil_div(c_in, inputs)};
}

// A group of frames, the memory that they are copied into, and the totals of all groups.
template <class T>
struct FrameGroup {
  Patch<T> x;           // [frames + 2][H][chunks][W + 2][chunk], from frame first_read
  T* g;                 // [frames][H][panels][W][kOut]
  Range* columns;       // [frames][H] of g: outside they are 0 and left out
  T* totals;            // [m][units][3 column taps][inputs][kOut]
  int64_t most_frames;  // of any group
  int64_t first, first_read, end;
  Cursor cursor;  // at frame `first`

  int64_t unit_size(const Sizes& z) const { return 3 * z.inputs * kOut<T>; }
  int64_t g_row(const Sizes& z) const { return z.panels * z.width * kOut<T>; }
};

template <class T>
FrameGroup<T> allocate(Arena& arena, const Shape& s, const Sizes& z) {
  FrameGroup<T> group;
  group.x = {nullptr, input_channels<T>(z.c_in), z.width};
  int64_t x_frame = z.height * group.x.row_size(), g_frame = z.height * group.g_row(z);
  int64_t fitting = kGroupBytes / int64_t(sizeof(T)) / (x_frame + g_frame);
  group.most_frames = smaller(larger(fitting, 1), frames_of(s));
  group.x.data = arena.allocate<T>((group.most_frames + 2) * x_frame);
  group.g = arena.allocate<T>(group.most_frames * g_frame);
  group.columns = arena.allocate<Range>(group.most_frames * z.height);
  group.totals = arena.allocate<T>(s.regions * z.units() * group.unit_size(z));
  return group;
}

template <class T>
struct Maps {
  const T* x;   // [F, H, W, c_in]
  const T* gy;  // [F, H, W, c_out]
  const T* y;   // [F, H, W, c_out] or null
  T negative_slope;
  const uint8_t *x_support, *y_support;  // [F, H, W] or null
};

template <class T>
void copy_group(const FrameGroup<T>& group, const Maps<T>& maps, const Shape& s, const Sizes& z) {
  int64_t end_read = smaller(group.end + 1, frames_of(s));
  parallel_for(s.threads, (end_read - group.first_read) * z.height, [&](int64_t i, int) {
    int64_t row = group.first_read * z.height + i, group_row = row - group.first * z.height;
    MapRow<T> from = {maps.x + row * z.width * z.c_in, nullptr, T(1), row_of(maps.x_support, row, z.width)};
    copy_row<T>(group.x.data + i * group.x.row_size(), from, group.x);
    if (group_row < 0 || row >= group.end * z.height) return;
    const uint8_t* inside = row_of(maps.y_support, row, z.width);
    Range columns = group.columns[group_row] = columns_inside(inside, z.width);
    T* to = group.g + group_row * group.g_row(z);
    for (int64_t first = 0; first < z.c_out; first += kOut<T>, to += z.width * kOut<T>)
      for (int64_t q = columns.begin; q < columns.end; ++q)
        for (int64_t v = 0; v < kOut<T>; v += lanes<T>) {
          int64_t at = (row * z.width + q) * z.c_out + first + v;
          const T* activated = maps.y ? maps.y + at : nullptr;
          Vec<T> g = load_through(maps.gy + at, activated, maps.negative_slope, z.c_out - first - v);
          store(to + q * kOut<T> + v, inside && !inside[q] ? Vec<T>{} : g);
        }
  });
}

// Rows of some frames, from their first position, first of the inputs (x) or of the output channels (g).
template <class T>
struct Rows {
  const T *x, *g;
  const Range* columns;
  int64_t frames, rows;
  int64_t x_frame, g_frame, columns_frame;  // to the next frame
  int64_t x_row, g_row;                     // to the next row
};

// total [J][kOut] += x^T g over the rows' columns; C: distance of positions in x.
// FLOPs: 4 J lanes per position in 2 J cycles of one multiplier. Loads per position: J broadcasts and 2 vectors, from
// L1 or L2. Registers: 2 J sums, 2 vectors of g, 1 input.
template <class T, int C, int J>
void gemm_rows(T* total, const Rows<T>& from) {
  Vec<T> sums[J][2] = {};
  for (int64_t f = 0; f < from.frames; ++f)
    for (int64_t row = 0; row < from.rows; ++row) {
      const Range columns = from.columns[f * from.columns_frame + row];
      const T* x = from.x + f * from.x_frame + row * from.x_row + columns.begin * C;
      const T* g = from.g + f * from.g_frame + row * from.g_row + columns.begin * kOut<T>;
      for (int64_t q = columns.begin; q < columns.end; ++q, x += C, g += kOut<T>) {
        Vec<T> g0 = load(g), g1 = load(g + lanes<T>);
#pragma GCC unroll 8
        for (int j = 0; j < J; ++j) {
          sums[j][0] += g0 * x[j];
          sums[j][1] += g1 * x[j];
        }
      }
    }
#pragma GCC unroll 8
  for (int j = 0; j < J; ++j) {
    T* to = total + j * kOut<T>;
    store(to, load(to) + sums[j][0]);
    store(to + lanes<T>, load(to + lanes<T>) + sums[j][1]);
  }
}

// The part of `some` whose neighbour at tap 0, 1 or 2 is inside `whole`.
inline Range with_tap(const Range& some, const Range& whole, int64_t tap) {
  return {larger(some.begin, whole.begin + 1 - tap), smaller(some.end, whole.end + 1 - tap)};
}

// Some frames of one sequence and some rows of one region.
struct Part {
  Range frames, sequence, rows, region;
};

// Adds what a part gives to units [mine.begin, mine.end) of its region.
template <class T>
void add_part(T* totals, const FrameGroup<T>& group, const Sizes& z, Range mine, const Part& part) {
  Rows<T> from;
  from.x_row = group.x.row_size();
  from.g_row = group.g_row(z);
  from.x_frame = z.height * from.x_row;
  from.g_frame = z.height * from.g_row;
  from.columns_frame = z.height;
  for (int64_t unit = mine.begin; unit < mine.end; ++unit) {
    int64_t tile = unit % z.tiles, dy = unit / z.tiles % 3, dt = unit / z.tiles / 3 % 3, panel = unit / z.tiles / 9;
    Range frames = with_tap(part.frames, part.sequence, dt), rows = with_tap(part.rows, part.region, dy);
    if (frames.size() <= 0 || rows.size() <= 0) continue;
    from.frames = frames.size();
    from.rows = rows.size();
    int64_t channel = tile * z.inputs, chunk = group.x.channels.chunk;
    from.x = group.x.data + (frames.begin + dt - 1 - group.first_read) * from.x_frame +
             (rows.begin + dy - 1) * from.x_row + channel / chunk * chunk * (z.width + 2) + channel % chunk;
    from.g =
        group.g + (frames.begin - group.first) * from.g_frame + rows.begin * from.g_row + panel * z.width * kOut<T>;
    from.columns = group.columns + (frames.begin - group.first) * z.height + rows.begin;
    T* total = totals + unit * group.unit_size(z);
    if (z.inputs == 1) {
      gemm_rows<T, 1, 3>(total, from);
      continue;
    }
    for (int64_t dx = 0; dx < 3; ++dx, from.x += kChunk<T>)
      gemm_rows<T, kChunk<T>, kInputs>(total + dx * kInputs * kOut<T>, from);
  }
}

// Adds frames [begin, end) of the group, all of one sequence, to units of region r.
template <class T>
void add_frames(const FrameGroup<T>& group, const Shape& s, const Sizes& z, Range mine, int64_t r,
                const Chunk& frames) {
  Range region = region_rows(s, r);
  int64_t row_step = smaller(larger(1, kSummed / z.width), region.size());
  int64_t frame_step = larger(1, kSummed / z.width / row_step);
  T* totals = group.totals + r * z.units() * group.unit_size(z);
  for (int64_t f = frames.inside.begin; f < frames.inside.end; f += frame_step)
    for (int64_t h = region.begin; h < region.end; h += row_step) {
      Range some = {f, smaller(f + frame_step, frames.inside.end)}, rows = {h, smaller(h + row_step, region.end)};
      add_part(totals, group, z, mine, {some, frames.whole, rows, region});
    }
}

template <class T>
void add_group(const FrameGroup<T>& group, const Shape& s, const Sizes& z) {
  int64_t chunks = s.threads == 1 ? 1 : smaller(4 * s.threads, z.units());
  parallel_for(s.threads, s.regions * chunks, [&](int64_t i, int) {
    Range mine = chunk_of(z.units(), chunks, i % chunks);
    Cursor cursor = group.cursor;
    for (int64_t f = group.first; f < group.end;) {
      Chunk frame = chunk_at(s.seq_lens, 1, f, cursor);
      Chunk frames = {frame.index, frame.whole, {f, smaller(frame.whole.end, group.end)}};
      add_frames(group, s, z, mine, i / chunks, frames);
      f = frames.inside.end;
    }
  });
}

template <class T>
void unpack(T* gw, const FrameGroup<T>& group, const Shape& s, const Sizes& z) {
  const int64_t column = z.inputs * kOut<T>, pair = z.tiles * group.unit_size(z);
  parallel_for(s.threads, s.regions * z.panels * z.tiles, [&](int64_t i, int) {
    int64_t tile = i % z.tiles, panel = i / z.tiles % z.panels, r = i / z.tiles / z.panels;
    const T* from = group.totals + ((r * z.panels + panel) * 9 * z.tiles + tile) * group.unit_size(z);
    T rows[27 * kOut<T>];
    for (int64_t k = tile * z.inputs; k < smaller((tile + 1) * z.inputs, z.c_in); ++k, from += kOut<T>) {
      for (int64_t tap = 0; tap < 27; ++tap)
        __builtin_memcpy(rows + tap * kOut<T>, from + tap / 3 * pair + tap % 3 * column, sizeof(T) * kOut<T>);
      for (int64_t o = panel * kOut<T>; o < smaller((panel + 1) * kOut<T>, z.c_out); ++o) {
        T* to = gw + ((r * z.c_out + o) * z.c_in + k) * 27;
        for (int64_t tap = 0; tap < 27; ++tap) to[tap] = rows[tap * kOut<T> + o % kOut<T>];
      }
    }
  });
}

template <class T>
void wgrad(const ArmeWgrad<T>& a) {
  const Shape s = shape_of(a);
  Sizes z = sizes_of<T>(s, a.c_in, a.c_out);
  Arena arena(a.workspace);
  FrameGroup<T> group = allocate<T>(arena, s, z);
  Maps<T> maps = {a.x, a.grad, a.negative_slope == 1 ? nullptr : a.y, a.negative_slope, a.x_support, a.y_support};
  int64_t region_size = z.units() * group.unit_size(z), frames = frames_of(s);
  parallel_for(s.threads, s.regions,
               [&](int64_t r, int) { __builtin_memset(group.totals + r * region_size, 0, region_size * sizeof(T)); });
  for (group.first = 0; group.first < frames; group.first = group.end) {
    group.first_read = larger(group.first - 1, 0);
    group.end = smaller(group.first + group.most_frames, frames);
    chunk_at(s.seq_lens, 1, group.first, group.cursor);
    copy_group(group, maps, s, z);
    add_group(group, s, z);
  }
  unpack(a.gw, group, s, z);
}

template <class T>
size_t wgrad_workspace(const ArmeWgradWorkspace<T>& a) {
  const Shape s = shape_of(a);
  Arena arena(nullptr);
  allocate<T>(arena, s, sizes_of<T>(s, a.c_in, a.c_out));
  return arena.bytes();
}

}  // namespace

void fill_arme_direct_wgrad(Tables& tables) {
  tables.float32.direct.wgrad_workspace = wgrad_workspace<float>;
  tables.float32.direct.wgrad = wgrad<float>;
  tables.float64.direct.wgrad_workspace = wgrad_workspace<double>;
  tables.float64.direct.wgrad = wgrad<double>;
}

}  // namespace HSTL_ISA
}  // namespace hstl
