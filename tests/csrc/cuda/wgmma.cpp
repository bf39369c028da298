// wgmma with A in registers. Each warp does its 16 of the 64 rows by itself; that the four warps of a warpgroup issue
// the same sequence is checked when the block ends.
#include <memory>
#include <stdexcept>

#include "emulator.h"
#include "hazards.h"

namespace hstl::shim {

namespace {

constexpr uint32_t kPoison = 0xffc0dead;  // NaN, in accumulators that belong to the hardware

// The accumulators of one warp that stand in one array of each lane.
struct Accumulators {
  float* lanes[kWarp];
  int columns;
  int in_flight;
  std::vector<float> values;  // [16][columns] while in flight
  uint64_t at_fence;          // a hash of the registers at the latest fence
};

struct Product {
  Element type;
  bool transposed;
  uint64_t b;
  size_t accumulators;
  const uint32_t* lanes[kWarp];
  uint32_t a[kWarp][4];
  int group;
  bool computed;
  Where where;
};

struct Operand {
  const uint32_t* lane0;
  uint64_t at_fence;
};

struct WarpState {
  std::vector<Accumulators> accumulators;
  std::vector<Product> in_flight;
  std::vector<Operand> loaded;  // by ldmatrix since the latest fence
  int fences, committed;
  uint64_t sequence;  // a hash of what was issued
  int issued;
  Where latest;
};
WarpState states[kMostThreads / kWarp];

WarpState& state() { return states[block.current->warp]; }

uint64_t mix(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x9e3779b97f4a7c15u + (hash >> 29); }

uint64_t hash_of(const Accumulators& c) {
  uint64_t hash = 1;
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < c.columns / 2; ++i) hash = mix(hash, __float_as_uint(c.lanes[lane][i]));
  return hash;
}

// Row and column of register i of a lane.
int row_of(int lane, int i) { return lane / 4 + i / 2 % 2 * 8; }
int column_of(int lane, int i) { return i / 4 * 8 + lane % 4 * 2 + i % 2; }

void take(Accumulators& c) {
  c.values.resize(size_t(16) * size_t(c.columns));
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < c.columns / 2; ++i) {
      c.values[size_t(row_of(lane, i) * c.columns + column_of(lane, i))] = c.lanes[lane][i];
      memcpy(&c.lanes[lane][i], &kPoison, 4);
    }
}

void check_poison(const Accumulators& c, Where where) {
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < c.columns / 2; ++i)
      if (__float_as_uint(c.lanes[lane][i]) != kPoison)
        fail(where, "wgmma: accumulator %d of lane %d was written while a wgmma was in flight", i, lane);
}

void give_back(Accumulators& c) {
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < c.columns / 2; ++i)
      c.lanes[lane][i] = c.values[size_t(row_of(lane, i) * c.columns + column_of(lane, i))];
}

// ---- the descriptor of B: fields by the tables of the PTX manual, "Asynchronous Warpgroup Level Matrix Shared
// Memory Layout"; the canonical layouts of its 16-byte chunks.

struct Descriptor {
  uint32_t start, leading, stride;
  int chunks;  // that the swizzle permutes: 1 (none), 2, 4 or 8
};

Descriptor decode(uint64_t bits, Where where) {
  auto field = [bits](int shift) { return uint32_t(bits >> shift & 0x3fff) << 4; };
  constexpr int kChunks[4] = {1, 8, 4, 2};
  Descriptor d{field(0), field(16), field(32), kChunks[bits >> 62]};
  if ((bits & 0x3ff1c000c000c000u) != 0)
    fail(where, "wgmma: the descriptor 0x%016llx has unknown bits", static_cast<unsigned long long>(bits));
  if ((bits >> 49 & 7) != 0) fail(where, "wgmma: the emulator knows no base offset; align the matrix instead");
  return d;
}

// The address of the 16 bytes that begin at row `n` and byte 16 `k` of it; transposed, at row k and byte 16 `n`.
uint32_t chunk_address(const Descriptor& d, bool transposed, int n, int k) {
  uint32_t s = uint32_t(d.chunks), address = d.start;
  if (!transposed)
    address += uint32_t(n % 8) * 16 * s + uint32_t(n / 8) * d.stride + uint32_t(k) * (s == 1 ? d.leading : 16);
  else if (s == 1)
    address += uint32_t(n) * d.stride + uint32_t(k % 8) * 16 + uint32_t(k / 8) * d.leading;
  else
    address +=
        uint32_t(n) % s * 16 + uint32_t(n) / s * d.leading + uint32_t(k % 8) * 16 * s + uint32_t(k / 8) * d.stride;
  return address ^ ((address >> 7 & (s - 1)) << 4);
}

float element_of(Element type, const unsigned char* p) {
  if (type == Element::tf32) {
    uint32_t bits;
    memcpy(&bits, p, 4);
    return __uint_as_float(bits & 0xffffe000);
  }
  uint16_t bits;
  memcpy(&bits, p, 2);
  return type == Element::half ? to_float(half_t{bits}) : to_float(bfloat16_t{bits});
}

// Calls visit(chunk's address, n, k) for every 16 bytes of B.
template <class Visitor>
void each_chunk(const Product& p, int columns, Visitor&& visit) {
  Descriptor d = decode(p.b, p.where);
  int rows = p.transposed ? columns / 8 : columns, chunks = p.transposed ? 16 : 2;
  for (int n = 0; n < rows; ++n)
    for (int k = 0; k < chunks; ++k) visit(shared_at(chunk_address(d, p.transposed, n, k)), n, k);
}

void compute(Product& p, Accumulators& c) {
  int each = p.type == Element::tf32 ? 4 : 8, depth = 2 * each;  // elements of 16 and of 32 bytes
  size_t size = p.type == Element::tf32 ? 4 : 2, columns = size_t(c.columns);
  std::vector<float> b(size_t(depth) * columns);
  each_chunk(p, c.columns, [&](const unsigned char* chunk, int n, int k) {
    for (int i = 0; i < each; ++i) {
      float value = element_of(p.type, chunk + size_t(i) * size);
      if (p.transposed)
        b[size_t(k) * columns + size_t(n * 8 + i)] = value;
      else
        b[size_t(k * each + i) * columns + size_t(n)] = value;
    }
  });
  float a[16][16];
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < 4; ++i) {
      float* to = &a[lane / 4 + i % 2 * 8][(lane % 4 + i / 2 * 4) * (each / 4)];
      for (int j = 0; j < each / 4; ++j) {
        uint32_t bits = p.a[lane][i] >> (16 * j);
        to[j] = element_of(p.type, reinterpret_cast<const unsigned char*>(&bits));
      }
    }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < depth; ++k) {
      float factor = a[row][k], *to = &c.values[size_t(row) * columns];
      const float* from = &b[size_t(k) * columns];
      for (size_t column = 0; column < columns; ++column) to[column] += factor * from[column];
    }
  p.computed = true;
}

void complete(WarpState& w, Product& p, Where where) {
  Accumulators& c = w.accumulators[p.accumulators];
  for (int lane = 0; lane < kWarp; ++lane)
    if (memcmp(p.a[lane], p.lanes[lane], sizeof(p.a[lane])) != 0)
      fail(where, "wgmma: A's registers of lane %d were written while the wgmma at %s:%d was in flight", lane,
           p.where.file, p.where.line);
  if (!p.computed) compute(p, c);
  each_chunk(p, c.columns, [&](const unsigned char* chunk, int, int) {
    finish_reads(size_t(chunk - shared_memory()), 16, kFirstWarpAgent + block.current->warp, p.where);
  });
  if (--c.in_flight > 0) return;
  check_poison(c, where);
  give_back(c);
}

// ---- issue

struct Arguments {
  Element type;
  int columns;
  bool transposed;
  float* d;
  const uint32_t* a;
  uint64_t b;
};

size_t accumulators_of(WarpState& w, void* const* arguments, Where where) {
  const auto* first = static_cast<const Arguments*>(arguments[0]);
  for (size_t i = 0; i < w.accumulators.size(); ++i) {
    Accumulators& c = w.accumulators[i];
    if (c.lanes[0] == first->d && c.columns == first->columns) return i;
    if (c.in_flight > 0 && c.lanes[0] < first->d + first->columns / 2 && first->d < c.lanes[0] + c.columns / 2)
      fail(where, "wgmma: the accumulators overlap others that are in flight");
  }
  Accumulators c{{}, first->columns, 0, {}, 0};
  for (int lane = 0; lane < kWarp; ++lane) c.lanes[lane] = static_cast<const Arguments*>(arguments[lane])->d;
  w.accumulators.push_back(c);
  return w.accumulators.size() - 1;
}

void check_fences(WarpState& w, const Accumulators& c, const uint32_t* a, Where where) {
  if (w.fences == 0) fail(where, "wgmma: no wgmma_fence came before");
  if (c.in_flight == 0 && c.at_fence != 0 && c.at_fence != hash_of(c))
    fail(where, "wgmma: the accumulators were written after the latest wgmma_fence");
  for (const Operand& o : w.loaded)
    if (o.lane0 == a) fail(where, "wgmma: A's registers were loaded after the latest wgmma_fence");
}

void issue(void* const* arguments, uint32_t, Where where) {
  WarpState& w = state();
  const auto* first = static_cast<const Arguments*>(arguments[0]);
  size_t index = accumulators_of(w, arguments, where);
  Accumulators& c = w.accumulators[index];
  check_fences(w, c, first->a, where);
  Product p{first->type, first->transposed, first->b, index, {}, {}, w.committed, false, where};
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto* own = static_cast<const Arguments*>(arguments[lane]);
    if (own->b != first->b) fail(where, "wgmma: the descriptors of lanes 0 and %d differ", lane);
    p.lanes[lane] = own->a;
    memcpy(p.a[lane], own->a, sizeof(p.a[lane]));
  }
  int warp = block.current->warp;
  each_chunk(p, c.columns, [&](const unsigned char* chunk, int, int) {
    size_t offset = offset_in_shared(chunk, 16, 16, "wgmma", where);
    note_read(offset, 16, warp * kWarp, kFirstWarpAgent + warp, Proxy::async, false, where);
  });
  if (c.in_flight++ == 0)
    take(c);
  else
    check_poison(c, where);
  if (!options.late) compute(p, c);
  w.in_flight.push_back(p);
  w.sequence = mix(mix(mix(w.sequence, uint64_t(where.line)), uint64_t(c.columns)), p.b);
  ++w.issued;
  w.latest = where;
}

struct Wait {
  int latest;
};

}  // namespace

void begin_wgmma() {
  for (int i = 0; i * kWarp < block.threads; ++i) {
    WarpState& w = states[i];
    w.accumulators.clear();
    w.in_flight.clear();
    w.loaded.clear();
    w.fences = w.committed = w.issued = 0;
    w.sequence = 0;
  }
}

void end_wgmma() {
  for (int i = 0; i * kWarp < block.threads; ++i) {
    const WarpState &w = states[i], &first = states[i / 4 * 4];
    std::string text = std::string(block.kernel) + ", warp " + std::to_string(i) + ": ";
    if (!w.in_flight.empty())
      throw std::runtime_error(text + "ended before the wgmma at " + w.in_flight[0].where.file + ":" +
                               std::to_string(w.in_flight[0].where.line) + " was waited for");
    if (w.sequence != first.sequence)
      throw std::runtime_error(text + "its " + std::to_string(w.issued) + " wgmmas differ from the " +
                               std::to_string(first.issued) + " of the warpgroup's first warp; the latest is at " +
                               w.latest.file + ":" + std::to_string(w.latest.line));
  }
}

void note_loaded(const uint32_t* r) {
  WarpState& w = state();
  if (w.fences > 0 && w.loaded.size() < 64) w.loaded.push_back({r, 0});
}

void wgmma(Element type, int columns, bool transposed, float* d, const uint32_t* a, uint64_t b, Where where) {
  if (options.capability != 90) fail(where, "wgmma: only devices of compute capability 9.0 have it");
  if (block.current->warp / 4 * 128 + 128 > block.threads) fail(where, "wgmma: the warpgroup lacks warps");
  Arguments arguments{type, columns, transposed, d, a, b};
  whole_warp(Op::wgmma, &arguments, where, issue);
}

void hold_wgmma(const float* d, int count, Where where) {
  int lane = block.current->lane;
  for (const Accumulators& c : state().accumulators)
    if (c.in_flight > 0 && c.lanes[lane] < d + count && d < c.lanes[lane] + c.columns / 2)
      fail(where, "wgmma_hold: a wgmma with these accumulators is in flight");
}

void wait_wgmma(int latest, Where where) {
  Wait wait{latest};
  whole_warp(Op::wgmma_wait, &wait, where, [](void* const* arguments, uint32_t, Where place) {
    WarpState& w = state();
    size_t done = 0;
    while (done < w.in_flight.size() &&
           w.in_flight[done].group < w.committed - static_cast<const Wait*>(arguments[0])->latest)
      complete(w, w.in_flight[done++], place);
    w.in_flight.erase(w.in_flight.begin(), w.in_flight.begin() + ptrdiff_t(done));
  });
}

}  // namespace hstl::shim

namespace hstl {

using namespace shim;

void wgmma_fence(Where where) {
  whole_warp(Op::wgmma_fence, nullptr, where, [](void* const*, uint32_t, Where) {
    WarpState& w = state();
    ++w.fences;
    w.loaded.clear();
    for (Accumulators& c : w.accumulators)
      if (c.in_flight == 0) c.at_fence = hash_of(c);
  });
}

void wgmma_commit(Where where) {
  whole_warp(Op::wgmma_commit, nullptr, where, [](void* const*, uint32_t, Where) { ++state().committed; });
}

}  // namespace hstl
