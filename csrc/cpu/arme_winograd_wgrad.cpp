// arme's wgrad, gw [m, c_out, c_in, 27], in the Winograd domain: gw = G^T [sum over tiles of (B^T x) (A gy)^T]. Per
// region, a group of tiles at a time: inputs and gradients are transformed, then multiplied at every frequency; the
// products of all groups go back to 3 x 3 x 3 taps. Where there are few channels, each thread takes a share of the
// tiles with products of their own, and waits for the others once; else all work on one group, over its tiles, then
// over its frequencies. What is summed in which order depends on the sizes alone, not on the threads.
#include "arena.h"
#include "arme_winograd_wgrad_transforms.h"
#include "operators.h"
#include "parallel.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Input channels of a product's tile; with 2 vectors of output channels its sums stay in registers.
constexpr int kInputs = kVectorRegisters == 32 && kLanes >= 8 ? 8 : 4;
// The most bytes of products that are kept at a time: they stay in the third-level cache.
constexpr int64_t kProductBytes = 17 << 20;
// A region's tiles are divided into this many shares, each with products of its own. Where the memory for products has
// room for fewer than the least, threads would be left without work: all threads then work on one share together.
constexpr int64_t kLeastShares = 4, kMostShares = 8;
// Bytes of transformed inputs and gradients of a group of tiles. Products are read and written once per group, so a
// group is large enough for its multiplications to outweigh that, and small enough to stay in the caches beside the
// products. A group of one thread's share has kShareGroupBytes; a group that all threads work on has 3/8 of the
// products' bytes, within the two other limits.
constexpr int64_t kShareGroupBytes = 2 << 20, kLeastGroupBytes = 4 << 20, kMostGroupBytes = 8 << 20;
// Tiles summed in registers before they are added to the total; keeps float32's rounding small.
constexpr int64_t kMostSummed = 128;

struct Sizes {
  int64_t c_in, c_out, height, width;
  int64_t frequencies;  // computed at once
  int64_t shares;       // of a region's tiles
  int64_t group;        // tiles, at most

  int64_t chunks() const { return ceil_div(c_in, kLanes); }
  int64_t panels() const { return ceil_div(c_out, kOut<float>); }
  int64_t inputs() const { return round_up(c_in, kInputs); }
  // Distances; an odd number of vectors, so that a tile's frequencies do not meet in the same cache sets.
  int64_t v_chunk() const { return (group | 1) * kLanes; }
  int64_t g_panel() const { return group * kOut<float> + kLanes; }
  int64_t v_frequency() const { return (chunks() * (group | 1) | 1) * kLanes; }
  int64_t g_frequency() const { return (panels() * (2 * group + 1) | 1) * kLanes; }
  int64_t m_frequency() const { return panels() * inputs() * kOut<float> + kLanes; }
  int64_t m_share() const { return frequencies * m_frequency(); }
};

Sizes sizes_of(const Shape& s, int64_t c_in, int64_t c_out, int frames) {
  Sizes z = {c_in, c_out, rows_of(s), s.width, kFrequencies * kFrequencies * (frames + 2), 1, 1};
  int64_t fitting = kProductBytes / int64_t(sizeof(float)) / z.m_share();
  if (fitting < 1) z.frequencies /= 3;
  if (fitting >= kLeastShares) z.shares = smaller(fitting, kMostShares);
  int64_t product_bytes = z.m_share() * int64_t(sizeof(float));
  int64_t common_bytes = smaller(larger(product_bytes * 3 / 8, kLeastGroupBytes), kMostGroupBytes);
  int64_t group_bytes = z.shares > 1 ? kShareGroupBytes : common_bytes;
  int64_t tile_bytes = z.frequencies * (z.chunks() * kLanes + z.panels() * kOut<float>)*int64_t(sizeof(float));
  z.group = smaller(larger(group_bytes / tile_bytes, 8), most_tiles(s, frames));
  return z;
}

struct Buffers {
  Tiling tiling;
  float* zeros;  // a position that counts as 0; sums that have not begun
  float* v;      // [threads or 1][frequencies][chunks][tiles][lanes]
  float* g;      // [threads or 1][frequencies][panels][tiles][kOut]
  float* m;      // [shares][frequencies][panels][inputs][kOut]
  float* w;      // [panels][inputs][27][kOut]
};

Buffers allocate(Arena& arena, const Shape& s, const Sizes& z, int frames) {
  Buffers b;
  b.tiling = allocate_tiling(arena, s, frames);
  b.zeros = arena.allocate<float>(larger(z.chunks() * kLanes, z.panels() * kOut<float>) + 27 * kOut<float>);
  const int64_t copies = z.shares > 1 ? s.threads : 1;
  b.v = arena.allocate<float>(copies * z.frequencies * z.v_frequency());
  b.g = arena.allocate<float>(copies * z.frequencies * z.g_frequency());
  b.m = arena.allocate<float>(z.shares * z.m_share());
  b.w = arena.allocate<float>(z.panels() * z.inputs() * 27 * kOut<float>);
  return b;
}

struct Maps {
  InputMap x;
  GradientMap gy;
};

// Some tiles of one region.
struct Group {
  Range region;  // rows
  const TimeTile* times;
  const Tile* tiles;
  int64_t count;

  const TimeTile& time(int64_t k) const { return times[tiles[k].time]; }
  Group part(Range of) const { return {region, times, tiles + of.begin, of.end - of.begin}; }
};

// Tiles that a task transforms, at most, one after another; while one is transformed, the next one is fetched.
constexpr int64_t kTilesPerTask = 4;

template <int Count>
HSTL_INLINE void fetch(const float* const* at, int64_t channel) {
#pragma GCC unroll 4
  for (int p = 0; p < Count; ++p) __builtin_prefetch(at[p] + channel);
}

template <int N, class Rows>
void transform_inputs(const Buffers& b, const Group& group, Range mine, const InputMap& map, const Sizes& z) {
  constexpr int kPositions = (N + 2) * kFrequencies * kFrequencies;
  InputPositions<N> positions[2];
  Tail<kPositions> tail;
  find_inputs(positions[mine.begin % 2], group.time(mine.begin), group.tiles[mine.begin], group.region, map);
  for (int64_t k = mine.begin; k < mine.end; ++k) {
    InputPositions<N>&from = positions[k % 2], &next = positions[(k + 1) % 2];
    int64_t ahead = smaller(k + 1, mine.end - 1);
    find_inputs(next, group.time(ahead), group.tiles[ahead], group.region, map);
    for (int64_t c = 0; c < z.chunks(); ++c) {
      int64_t channel = c * kLanes;
      fetch<kPositions>(&next.at[0][0][0], channel);
      if (z.c_in - channel < kLanes) {
        tail.fill(&from.at[0][0][0], channel, z.c_in - channel);
        channel = 0;
      }
      transform_input<N>(Rows(), b.v + c * z.v_chunk() + k * kLanes, z.v_frequency(), from, channel);
    }
  }
}

template <int N, class Rows>
void transform_gradients(const Buffers& b, const Group& group, Range mine, const GradientMap& map, const Sizes& z) {
  constexpr int kPositions = N * kSide * kSide;
  GradientPositions<N> positions[2];
  Tail<kPositions> gradient_tail, output_tail;
  find_gradients(positions[mine.begin % 2], group.time(mine.begin), group.tiles[mine.begin], group.region, map);
  for (int64_t k = mine.begin; k < mine.end; ++k) {
    GradientPositions<N>&from = positions[k % 2], &next = positions[(k + 1) % 2];
    int64_t ahead = smaller(k + 1, mine.end - 1);
    find_gradients(next, group.time(ahead), group.tiles[ahead], group.region, map);
    for (int64_t c = 0; c < z.panels() * 2; ++c) {
      int64_t channel = c * kLanes;
      fetch<kPositions>(&next.gradient[0][0][0], channel);
      if (!map.is_activated()) fetch<kPositions>(&next.output[0][0][0], channel);
      if (z.c_out - channel < kLanes) {
        gradient_tail.fill(&from.gradient[0][0][0], channel, z.c_out - channel);
        output_tail.fill(&from.output[0][0][0], channel, z.c_out - channel);
        channel = 0;
      }
      float* to = b.g + c / 2 * z.g_panel() + k * kOut<float> + c % 2 * kLanes;
      if (map.is_activated()) {
        transform_gradient<N, true>(Rows(), to, z.g_frequency(), from, channel, 1);
      } else {
        transform_gradient<N, false>(Rows(), to, z.g_frequency(), from, channel, map.negative_slope);
      }
    }
  }
}

template <int N, class Rows>
void transform_group(const Buffers& b, const Group& group, const Maps& maps, const Sizes& z, int threads) {
  int64_t parts = ceil_div(group.count, kTilesPerTask);
  parallel_for(threads, 2 * parts, [&](int64_t i, int) {
    Range mine = chunk_of(group.count, parts, i / 2);
    if (i % 2) return transform_gradients<N, Rows>(b, group, mine, maps.gy, z);
    transform_inputs<N, Rows>(b, group, mine, maps.x, z);
  });
}

// m [kInputs][kOut] = from + v^T g over some tiles; v: [tiles][lanes], g: [tiles][kOut].
// FLOPs: 4 kInputs lanes per tile in 2 kInputs cycles of one multiplier; loads per tile: kInputs broadcasts from the
// second-level cache, 2 vectors from the first. m, in the third, is fetched meanwhile; reading and writing it takes
// about 3 kInputs cycles.
void gemm(float* m, const float* from, int64_t from_stride, const float* v, const float* g, int64_t tiles) {
  Floats sums[kInputs][2] = {};
#pragma GCC unroll 16
  for (int j = 0; j < 2 * kInputs; ++j) __builtin_prefetch(m + j * kLanes);
  for (int64_t k = 0; k < tiles; ++k, v += kLanes, g += kOut<float>) {
    Floats g0 = load(g), g1 = load(g + kLanes);
#pragma GCC unroll 8
    for (int j = 0; j < kInputs; ++j) {
      sums[j][0] += g0 * v[j];
      sums[j][1] += g1 * v[j];
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < kInputs; ++j, m += kOut<float>, from += from_stride) {
    store(m, load(from) + sums[j][0]);
    store(m + kLanes, load(from + kLanes) + sums[j][1]);
  }
}

void gemm_group(const Buffers& b, int64_t tiles, bool first, const Sizes& z, int threads) {
  int64_t parts = ceil_div(tiles, kMostSummed);
  parallel_for(threads, z.frequencies, [&](int64_t f, int) {
    for (int64_t part = 0; part < parts; ++part) {
      Range mine = chunk_of(tiles, parts, part);
      const bool begins = first && part == 0;
      for (int64_t panel = 0; panel < z.panels(); ++panel) {
        const float* g = b.g + f * z.g_frequency() + panel * z.g_panel() + mine.begin * kOut<float>;
        for (int64_t i = 0; i < z.inputs(); i += kInputs) {
          const float* v = b.v + f * z.v_frequency() + i / kLanes * z.v_chunk() + mine.begin * kLanes + i % kLanes;
          float* m = b.m + f * z.m_frequency() + (panel * z.inputs() + i) * kOut<float>;
          gemm(m, begins ? b.zeros : m, begins ? 0 : kOut<float>, v, g, mine.end - mine.begin);
        }
      }
    }
  });
}

template <int N, class Rows>
void add_products(const Buffers& b, bool first, const Sizes& z, int threads) {
  parallel_for(threads, z.panels() * z.inputs() / kInputs, [&](int64_t i, int) {
    for (int64_t k = i * kInputs; k < (i + 1) * kInputs; ++k)
      for (int half = 0; half < 2; ++half) {
        float* w = b.w + k * 27 * kOut<float> + half * kLanes;
        transform_back<N, Rows>(w, first ? b.zeros : w, first ? 0 : kOut<float>, b.m + k * kOut<float> + half * kLanes,
                                z.m_frequency());
      }
  });
}

// The products of some tiles at all frequencies, summed over the tiles, by `threads` threads.
template <int N, class Rows>
void accumulate_tiles(const Buffers& b, const Group& tiles, const Maps& maps, const Sizes& z, int threads) {
  int64_t groups = ceil_div(tiles.count, z.group);
  if (groups == 0) __builtin_memset(b.m, 0, sizeof(float) * z.m_share());
  for (int64_t i = 0; i < groups; ++i) {
    Group group = tiles.part(chunk_of(tiles.count, groups, i));
    transform_group<N, Rows>(b, group, maps, z, threads);
    gemm_group(b, group.count, i == 0, z, threads);
  }
}

// Sums the products of all shares into the first.
void add_shares(const Buffers& b, const Sizes& z, int threads) {
  parallel_for(threads, z.frequencies, [&](int64_t f, int) {
    float* m = b.m + f * z.m_frequency();
    for (int64_t i = 0; i < z.panels() * z.inputs() * kOut<float>; i += kLanes) {
      Floats total = load(m + i);
      for (int64_t share = 1; share < z.shares; ++share) total += load(m + share * z.m_share() + i);
      store(m + i, total);
    }
  });
}

template <int N, class Rows>
void add_rows(const Buffers& b, int64_t r, bool first, const Shape& s, const Maps& maps, const Sizes& z) {
  Group tiles = {region_rows(s, r), b.tiling.times, b.tiling.tiles + b.tiling.begin(r), b.tiling.count(r)};
  if (z.shares == 1) {
    accumulate_tiles<N, Rows>(b, tiles, maps, z, s.threads);
  } else {
    parallel_for(s.threads, z.shares, [&](int64_t share, int thread) {
      Buffers mine = b;
      mine.v += thread * z.frequencies * z.v_frequency();
      mine.g += thread * z.frequencies * z.g_frequency();
      mine.m += share * z.m_share();
      accumulate_tiles<N, Rows>(mine, tiles.part(chunk_of(tiles.count, z.shares, share)), maps, z, 1);
    });
    add_shares(b, z, s.threads);
  }
  add_products<N, Rows>(b, first, z, s.threads);
}

// gw [c_out, c_in, 27] of one region from w.
void unpack(float* gw, const float* w, const Sizes& z, int threads) {
  parallel_for(threads, z.panels() * z.inputs() / kInputs, [&](int64_t i, int) {
    int64_t panel = i * kInputs / z.inputs(), first = i * kInputs % z.inputs();
    for (int64_t o = panel * kOut<float>; o < smaller((panel + 1) * kOut<float>, z.c_out); ++o)
      for (int64_t k = first; k < smaller(first + kInputs, z.c_in); ++k) {
        const float* from = w + (panel * z.inputs() + k) * 27 * kOut<float> + o % kOut<float>;
        float* to = gw + (o * z.c_in + k) * 27;
        for (int64_t tap = 0; tap < 27; ++tap) to[tap] = from[tap * kOut<float>];
      }
  });
}

template <int N>
void wgrad_tiled(float* gw, const Buffers& b, const Shape& s, const Maps& maps, const Sizes& z) {
  for (int64_t r = 0; r < s.regions; ++r, gw += 27 * z.c_in * z.c_out) {
    if (b.tiling.count(r) == 0) {
      __builtin_memset(gw, 0, sizeof(float) * 27 * z.c_in * z.c_out);
      continue;
    }
    if (z.frequencies == kFrequencies * kFrequencies * (N + 2)) {
      add_rows<N, AllRows>(b, r, true, s, maps, z);
    } else {
      add_rows<N, RowSet<0, 5>>(b, r, true, s, maps, z);
      add_rows<N, RowSet<1, 2>>(b, r, false, s, maps, z);
      add_rows<N, RowSet<3, 4>>(b, r, false, s, maps, z);
    }
    unpack(gw, b.w, z, s.threads);
  }
}

void wgrad(const ArmeWgrad<float>& a) {
  const Shape s = shape_of(a);
  Sizes z = sizes_of(s, a.c_in, a.c_out, a.algorithm);
  Arena arena(a.workspace);
  Buffers b = allocate(arena, s, z, a.algorithm);
  find_active_tiles(b.tiling, s, a.y_support);
  __builtin_memset(b.zeros, 0, reinterpret_cast<char*>(b.v) - reinterpret_cast<char*>(b.zeros));
  const float* activated = a.negative_slope == 1 ? a.grad : a.y;
  Maps maps = {{a.x, a.x_support, b.zeros, a.c_in, z.height, z.width},
               {a.grad, activated, a.y_support, b.zeros, a.c_out, z.height, z.width, a.negative_slope}};
  with_frames(a.algorithm, [&](auto frames) { wgrad_tiled<frames.value>(a.gw, b, s, maps, z); });
}

size_t wgrad_workspace(const ArmeWgradWorkspace<float>& a) {
  const Shape s = shape_of(a);
  Arena arena(nullptr);
  allocate(arena, s, sizes_of(s, a.c_in, a.c_out, a.algorithm), a.algorithm);
  return arena.bytes();
}

}  // namespace

void fill_arme_winograd_wgrad(Tables& tables) {
  tables.float32.winograd.wgrad_workspace = wgrad_workspace;
  tables.float32.winograd.wgrad = wgrad;
}

}  // namespace HSTL_ISA
}  // namespace hstl
