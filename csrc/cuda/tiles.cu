#include "launch.cuh"
#include "tiles.cuh"
#include "vector.cuh"

namespace hstl {
namespace {

constexpr int kThreads = 512;  // few blocks list, one to a multiprocessor
constexpr int kWarps = kThreads / 32;
// ---- segments

struct CountSegments {
  int32_t* segment_starts;  // [sequences + 1], out
  const int32_t* starts;
  int sequences, stretch;
};

__device__ __forceinline__ int sum_before(int value, int* of_warps, int& total) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int inclusive = value;
  for (int d = 1; d < 32; d *= 2) {
    int other = __shfl_up_sync(kAllLanes, inclusive, d);
    if (lane >= d) inclusive += other;
  }
  __syncthreads();  // of_warps may still be read
  if (lane == 31) store_shared(of_warps + warp, inclusive);
  __syncthreads();
  int before = 0;
  total = 0;
  for (int i = 0; i < kWarps; ++i) {
    int sum = load_shared(of_warps + i);
    if (i < warp) before += sum;
    total += sum;
  }
  return before + inclusive - value;
}

// One block; a sequence's segments are as many stretches as cover its frames.
HSTL_KERNEL(kThreads, 1) count_segments(const __grid_constant__ CountSegments p) {
  int* of_warps = reinterpret_cast<int*>(dynamic_shared());
  int before = 0;
  for (int first = 0; first < p.sequences; first += kThreads) {
    int i = first + threadIdx.x;
    int count = i < p.sequences ? (p.starts[i + 1] - p.starts[i] + p.stretch - 1) / p.stretch : 0;
    int total;
    int at = before + sum_before(count, of_warps, total);
    if (i < p.sequences) p.segment_starts[i] = at;
    before += total;
  }
  if (threadIdx.x == 0) p.segment_starts[p.sequences] = before;
}

// ---- lists

struct ListTiles {
  Tiles to;
  Tile* tiles;
  int32_t* sites;
  uint8_t* listed;
  const uint8_t* support;
  const int32_t* regions;
  int panels, panel_cols;
};

// Rows of a box whose tile's positions span so many columns.
__host__ __device__ __forceinline__ int box_rows(int cols) { return kBox / (cols + 2) - 2; }

// So many tiles are enough for any list of `rows` x `cols` positions: all but the last are full of positions or of
// rows.
__host__ __device__ __forceinline__ int64_t most_tiles(int64_t rows, int64_t cols) {
  return rows * cols / kPositions + rows / box_rows(int(cols)) + 1;
}

// Cuts a list into tiles: each takes positions until it is full or its box is. By one thread.
__device__ void cut(Tile tile, Tile* tiles, int64_t most, const int* row_starts, int rows, int min_col, int max_col) {
  int cols = max(max_col - min_col + 1, 1), span = box_rows(cols), count = load_shared(row_starts + rows);
  int first = tile.begin, row = 0, made = 0;
  for (int at = 0; at < count; ++made) {
    while (load_shared(row_starts + row + 1) <= at) ++row;
    int end = min(min(at + kPositions, load_shared(row_starts + min(row + span, rows))), count);
    int last = row;
    while (load_shared(row_starts + last + 1) < end) ++last;
    tile.begin = first + at;
    tile.count = end - at;
    tile.first_row = tile.region_begin + row - 1;
    tile.rows = last - row + 3;
    tile.first_col = min_col - 1;
    tile.cols = cols + 2;
    tiles[made] = tile;
    at = end;
  }
  tile.count = 0;
  for (; made < most; ++made) tiles[made] = tile;
}

// A block lists one region's panel of one segment. Bytes: the support, once.
HSTL_KERNEL(kThreads, 1) list(const __grid_constant__ ListTiles p) {
  int* of_warps = reinterpret_cast<int*>(dynamic_shared());
  int* columns = of_warps + kWarps;        // [2 kWarps]: each warp's smallest and largest column
  int* row_starts = columns + 2 * kWarps;  // [rows + 1]: positions listed before a row
  int segment = blockIdx.x, region = blockIdx.y / p.panels, panel = blockIdx.y % p.panels;
  Segment s = find_segment(p.to, segment);
  int row0 = p.regions[2 * region], rows = p.regions[2 * region + 1];
  int col0 = panel * p.panel_cols, cols = min(p.panel_cols, p.to.w - col0);
  // Tiles and sites of the units before: all columns of the rows above, and this region's earlier panels.
  int64_t first_tile = 0;
  for (int r = 0; r <= region; ++r)
    for (int i = 0; i < (r < region ? p.panels : panel); ++i)
      first_tile += most_tiles(p.regions[2 * r + 1], min(p.panel_cols, p.to.w - i * p.panel_cols));
  int first_site = row0 * p.to.w + rows * col0;
  int64_t map = int64_t(p.to.h) * p.to.w;
  int32_t* sites = p.sites + segment * map + first_site;
  int count = 0, min_col = p.to.w, max_col = -1;
  for (int first = 0; first < rows * cols; first += kThreads) {
    int e = first + threadIdx.x, row = e / cols, col = col0 + e % cols;
    int position = (row0 + row) * p.to.w + col;
    bool inside = false;
    if (e < rows * cols) {
      inside = p.support == nullptr && s.begin < s.end;
      if (p.support != nullptr) {
        const uint8_t* support = p.support + position;
#pragma unroll 8  // so many loads are on their way at once
        for (int t = s.begin; t < s.end; ++t) inside |= support[t * map] != 0;
      }
      p.listed[segment * map + position] = inside;
    }
    int total;
    int at = count + sum_before(inside, of_warps, total);
    if (inside) {
      sites[at] = position;
      min_col = min(min_col, col);
      max_col = max(max_col, col);
    }
    if (e < rows * cols && e % cols == 0) store_shared(row_starts + row, at);
    count += total;
  }
  for (int d = 16; d > 0; d /= 2) {
    min_col = min(min_col, __shfl_xor_sync(kAllLanes, min_col, d));
    max_col = max(max_col, __shfl_xor_sync(kAllLanes, max_col, d));
  }
  if (threadIdx.x % 32 == 0) {
    store_shared(columns + threadIdx.x / 32, min_col);
    store_shared(columns + kWarps + threadIdx.x / 32, max_col);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  store_shared(row_starts + rows, count);
  for (int i = 1; i < kWarps; ++i) {
    min_col = min(min_col, load_shared(columns + i));
    max_col = max(max_col, load_shared(columns + kWarps + i));
  }
  Tile tile = {region, row0, row0 + rows, first_site, 0, 0, 0, 0, 0};
  Tile* tiles = p.tiles + int64_t(segment) * p.to.tiles_per_segment + first_tile;
  cut(tile, tiles, most_tiles(rows, cols), row_starts, rows, min_col, max_col);
}

// ---- zeros outside the lists

struct Clear {
  Tiles tiles;
  unsigned char* y;
  int64_t channel_bytes;
};

// A block writes the zeros of kThreads positions of one segment, a warp those of 32: lanes that follow one another
// write the units of one frame, 16 bytes or one, then of the next. Bytes: those written.
HSTL_KERNEL(kThreads, 1) clear(const __grid_constant__ Clear p) {
  int64_t map = int64_t(p.tiles.h) * p.tiles.w;
  int64_t blocks = (map + kThreads - 1) / kThreads;
  int segment = int(blockIdx.x / blocks);
  Segment s = find_segment(p.tiles, segment);
  if (s.begin == s.end) return;
  int lane = threadIdx.x % 32;
  int64_t first = blockIdx.x % blocks * kThreads + threadIdx.x / 32 * 32;
  bool listed = first + lane >= map || p.tiles.listed[segment * map + first + lane] != 0;
  bool whole = reinterpret_cast<uintptr_t>(p.y) % 16 == 0 && p.channel_bytes % 16 == 0;
  int64_t units = whole ? p.channel_bytes / 16 : p.channel_bytes;
  for (uint32_t left = ~__ballot_sync(kAllLanes, listed); left != 0; left &= left - 1) {
    int64_t position = first + __ffs(int(left)) - 1;
    for (int64_t i = lane; i < (s.end - s.begin) * units; i += 32) {
      int64_t frame = divide(i, units), unit = i - frame * units;
      unsigned char* to = p.y + ((s.begin + frame) * map + position) * p.channel_bytes;
      if (whole)
        reinterpret_cast<int4*>(to)[unit] = make_int4(0, 0, 0, 0);
      else
        to[unit] = 0;
    }
  }
}

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t longest(const IntList& split) {
  int64_t most = 0;
  for (int64_t i = 0; i < split.size; ++i) most = split.data[i] > most ? split.data[i] : most;
  return most;
}

}  // namespace

TilePlan::TilePlan(const IntList& split, int64_t frames, int64_t sequences, int64_t w, int stretch)
    : frames(frames), sequences(sequences), h(0), w(w), regions(split.size), stretch(stretch), tiles(0) {
  panels = int((w + kPanel - 1) / kPanel);
  panel_cols = int((w + panels - 1) / panels);
  panels = int((w + panel_cols - 1) / panel_cols);
  segments = (frames + sequences * (stretch - 1)) / stretch;
  for (int64_t r = 0; r < split.size; ++r) {
    h += split.data[r];
    for (int i = 0; i < panels; ++i)
      tiles += most_tiles(split.data[r], i + 1 < panels ? panel_cols : w - int64_t(panels - 1) * panel_cols);
  }
  most_rows = longest(split);
}

size_t TilePlan::bytes() const {
  return aligned(size_t(sequences + 1) * 4) + aligned(size_t(segments * tiles) * sizeof(Tile)) +
         aligned(size_t(segments * h * w) * 4) + aligned(size_t(segments * h * w));
}

Tiles list_tiles(const TilePlan& plan, const uint8_t* support, const int32_t* starts, const int32_t* regions,
                 void* memory, void* stream) {
  unsigned char* next = static_cast<unsigned char*>(memory);
  auto take = [&](size_t bytes) {
    void* found = next;
    next += aligned(bytes);
    return found;
  };
  int64_t map = plan.h * plan.w;
  auto* segment_starts = static_cast<int32_t*>(take(size_t(plan.sequences + 1) * 4));
  auto* tiles = static_cast<Tile*>(take(size_t(plan.segments * plan.tiles) * sizeof(Tile)));
  auto* sites = static_cast<int32_t*>(take(size_t(plan.segments * map) * 4));
  auto* listed = static_cast<uint8_t*>(take(size_t(plan.segments * map)));
  Tiles found = {starts,          segment_starts, tiles,       sites,       listed, int(plan.sequences),
                 int(plan.tiles), int(plan.h),    int(plan.w), plan.stretch};
  launch("count_segments", count_segments, dim3(1), kThreads, kWarps * 4, stream,
         CountSegments{segment_starts, starts, int(plan.sequences), plan.stretch});
  size_t shared = size_t(3 * kWarps + plan.most_rows + 1) * 4;
  launch("list_tiles", list, dim3(unsigned(plan.segments), unsigned(plan.regions * plan.panels)), kThreads, shared,
         stream, ListTiles{found, tiles, sites, listed, support, regions, plan.panels, plan.panel_cols});
  return found;
}

void clear_unlisted(const TilePlan& plan, const Tiles& tiles, void* y, int64_t channel_bytes, void* stream) {
  int64_t blocks = (plan.h * plan.w + kThreads - 1) / kThreads;
  launch("clear_unlisted", clear, grid_of(plan.segments * blocks), kThreads, 0, stream,
         Clear{tiles, static_cast<unsigned char*>(y), channel_bytes});
}

}  // namespace hstl
