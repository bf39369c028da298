#include "hazards.h"

#include <algorithm>
#include <utility>

namespace hstl::shim {

namespace {

constexpr uint32_t kUnfinished = 0xffffffff;

struct Access {
  uint32_t time;  // 0: none
  uint16_t agent;
  uint16_t site;
};

// Four bytes of shared memory: the latest write, and the latest reads of two agents, each of some of the bytes.
struct Cell {
  Access write, read[2];
  uint8_t written, read_bytes[2];
  bool atomic;   // the write
  bool generic;  // the write, and not by the asynchronous proxy
};

std::vector<Cell> cells;
uint32_t now = 1;

struct Known {
  uint32_t block, warp;  // since the latest __syncthreads, __syncwarp
  Knowledge others;
  uint64_t version;  // a hash of what `others` came from
  // The time of the latest fence_async_proxy, and what was known of all then.
  uint32_t fence, fenced_block;
};
Known known[kMostThreads];
// What all threads know of the copies since the latest __syncthreads: what any of them had waited for.
uint32_t copies_known[kMostBarriers];

// ---- places in the source, for messages

std::vector<Where> sites;
uint16_t find_site(Where where) {
  for (size_t i = 0; i < sites.size(); ++i)
    if (sites[i].line == where.line && sites[i].file == where.file) return uint16_t(i);
  sites.push_back(where);
  return uint16_t(sites.size() - 1);
}

uint16_t site_of(Where where) {
  struct Entry {
    Where where;
    uint16_t site;
  };
  static Entry cache[256];
  Entry& e = cache[(reinterpret_cast<uintptr_t>(where.file) / 8 + unsigned(where.line)) % 256];
  if (e.where.line != where.line || e.where.file != where.file) e = {where, find_site(where)};
  return e.site;
}

std::string name_of(int agent) {
  if (agent >= kFirstCopyAgent) return "a bulk copy";
  if (agent >= kFirstWarpAgent) return "warp " + std::to_string(agent - kFirstWarpAgent);
  return "warp " + std::to_string(agent / kWarp) + ", lane " + std::to_string(agent % kWarp);
}

int warp_of(int agent) {
  if (agent < kFirstWarpAgent) return agent / kWarp;
  return agent < kFirstCopyAgent ? agent - kFirstWarpAgent : -1;
}

bool is_own(int thread, int agent) { return agent == thread || agent == kFirstWarpAgent + thread / kWarp; }

inline bool knows(int thread, const Access& access) {
  const Known& k = known[thread];
  bool copy = access.agent >= kFirstCopyAgent;
  if (access.time <= (copy ? copies_known[access.agent - kFirstCopyAgent] : k.block)) return true;
  if (access.time == kUnfinished) return false;
  if (is_own(thread, access.agent)) return true;
  if (access.time <= k.warp && warp_of(access.agent) == thread / kWarp) return true;
  return !k.others.empty() && access.time <= k.others[access.agent];
}

[[noreturn]] void report(const char* action, size_t offset, int thread, const Access& other, const char* other_action,
                         Where where) {
  const Where& site = sites[other.site];
  const Thread& t = block.thread[thread];
  fail(where, "race: warp %d, lane %d %s byte %zu of shared memory, which %s %s at %s:%d; %s", t.warp, t.lane, action,
       offset, name_of(other.agent).c_str(), other_action, site.file, site.line,
       other.time == kUnfinished ? "that has not been waited for" : "no barrier orders the two");
}

// The bytes of cell `index` that lie in [offset, offset + bytes).
uint8_t bytes_of(size_t index, size_t offset, size_t bytes) {
  size_t begin = std::max(offset, index * 4) - index * 4, end = std::min(offset + bytes, index * 4 + 4) - index * 4;
  return uint8_t((1u << end) - (1u << begin));
}

// Whether the asynchronous proxy sees a generic write: its writer or the reader has fenced since.
bool is_fenced(const Cell& cell, int reader) {
  int writer = cell.write.agent;
  return known[writer].fence > cell.write.time || cell.write.time <= known[reader].fenced_block;
}

// Keeps the two latest readers, those that are unfinished first.
void remember_read(Cell& cell, uint8_t mask, Access access) {
  int slot = cell.read[0].agent == access.agent || cell.read[0].time == 0 ? 0 : 1;
  if (slot == 1 && cell.read[1].agent != access.agent && cell.read[0].time < cell.read[1].time) slot = 0;
  bool same = cell.read[slot].agent == access.agent && cell.read[slot].time == access.time;
  cell.read_bytes[slot] = uint8_t(same ? cell.read_bytes[slot] | mask : mask);
  cell.read[slot] = access;
}

template <class Visitor>
void each_cell(size_t offset, int bytes, Visitor&& visit) {
  size_t end = (offset + size_t(bytes) + 3) / 4;
  for (size_t i = offset / 4; i < end; ++i) visit(cells[i], i, bytes_of(i, offset, size_t(bytes)));
}

void learn(Knowledge& to, int agent, uint32_t time) { to[size_t(agent)] = std::max(to[size_t(agent)], time); }

void tell(int thread, Knowledge& to) {
  if (to.empty()) to.resize(kAgents, 0);
  const Known& k = known[thread];
  for (int agent = 0; agent < kAgents; ++agent)
    learn(to, agent, agent < kFirstCopyAgent ? k.block : copies_known[agent - kFirstCopyAgent]);
  int warp = thread / kWarp;
  for (int lane = 0; lane < kWarp; ++lane) learn(to, warp * kWarp + lane, k.warp);
  learn(to, kFirstWarpAgent + warp, now);
  learn(to, thread, now);
  for (size_t i = 0; i < k.others.size(); ++i) to[i] = std::max(to[i], k.others[i]);
}

}  // namespace

void reserve_hazards(size_t shared_bytes) { cells.resize(options.hazards ? (shared_bytes + 3) / 4 : 0); }

void begin_hazards() {
  if (!options.hazards) return;
  std::fill(cells.begin(), cells.end(), Cell{});
  now = 1;
  std::fill(copies_known, copies_known + kMostBarriers, 0);
  for (int i = 0; i < block.threads; ++i) {
    known[i].block = known[i].warp = known[i].fence = known[i].fenced_block = 0;
    known[i].others.clear();
    known[i].version = 0;
  }
}

void note_read(size_t offset, int bytes, int reader, int agent, Proxy proxy, bool finished, Where where) {
  if (!options.hazards) return;
  Access access{finished ? now : kUnfinished, uint16_t(agent), site_of(where)};
  each_cell(offset, bytes, [&](Cell& cell, size_t index, uint8_t mask) {
    const Access& last = cell.read[0];
    if (last.time == now && last.agent == agent && (mask & ~cell.read_bytes[0]) == 0 && cell.write.time < now &&
        finished)
      return;  // nothing has changed since
    if (cell.written & mask) {
      if (!knows(reader, cell.write)) report("reads", index * 4, reader, cell.write, "writes", where);
      if (proxy == Proxy::async && cell.generic && !is_fenced(cell, reader))
        report("reads through the asynchronous proxy, without a fence_async_proxy,", index * 4, reader, cell.write,
               "writes through the generic one", where);
    }
    remember_read(cell, mask, access);
  });
}

void note_write(size_t offset, int bytes, int writer, int agent, Proxy proxy, bool finished, Where where) {
  if (!options.hazards) return;
  Access access{finished ? now : kUnfinished, uint16_t(agent), site_of(where)};
  each_cell(offset, bytes, [&](Cell& cell, size_t index, uint8_t mask) {
    if (cell.written & mask) {
      if (!knows(writer, cell.write)) report("writes", index * 4, writer, cell.write, "writes", where);
      if (proxy == Proxy::async && cell.generic && !is_fenced(cell, writer))
        report("writes through the asynchronous proxy, without a fence_async_proxy,", index * 4, writer, cell.write,
               "writes through the generic one", where);
    }
    for (int i = 0; i < 2; ++i)
      if (cell.read_bytes[i] & mask && !knows(writer, cell.read[i]))
        report("writes", index * 4, writer, cell.read[i], "reads", where);
    bool same = cell.write.agent == access.agent && cell.write.time == access.time;
    cell.written = uint8_t(same ? cell.written | mask : mask);
    cell.write = access;
    cell.atomic = false;
    cell.generic = proxy == Proxy::generic;
  });
}

void note_atomic(size_t offset, int bytes, Where where) {
  if (!options.hazards) return;
  int thread = block.current->index;
  Cell& cell = cells[offset / 4];
  if (cell.written != 0 && cell.atomic) {
    cell.write = {now, uint16_t(thread), site_of(where)};
    return;
  }
  note_write(offset, bytes, thread, thread, Proxy::generic, true, where);
  cell.atomic = true;
}

void finish_reads(size_t offset, int bytes, int agent, Where where) {
  if (!options.hazards) return;
  Access access{now, uint16_t(agent), site_of(where)};
  each_cell(offset, bytes, [&](Cell& cell, size_t, uint8_t mask) { remember_read(cell, mask, access); });
}

void finish_writes(size_t offset, int bytes, int agent) {
  if (!options.hazards) return;
  each_cell(offset, bytes, [&](Cell& cell, size_t, uint8_t) {
    if (cell.write.agent == agent && cell.write.time == kUnfinished) cell.write.time = now;
  });
}

void synchronise_block() {
  if (!options.hazards) return;
  for (int i = 0; i < block.threads; ++i) {
    Known& k = known[i];
    for (int j = 0; j < kMostBarriers && !k.others.empty(); ++j)
      copies_known[j] = std::max(copies_known[j], k.others[size_t(kFirstCopyAgent + j)]);
    k.block = now;
    k.others.clear();
    k.version = 0;
  }
  ++now;
}

void synchronise_lanes(uint32_t mask) {
  if (!options.hazards) return;
  int first = block.current->warp * kWarp;
  bool all = mask == block.warp[block.current->warp].lanes, plain = all;
  for (int lane = 0; lane < kWarp; ++lane)
    if (mask >> lane & 1) plain = plain && known[first + lane].version == known[first].version;
  if (!plain) {
    Knowledge joined;
    for (int lane = 0; lane < kWarp; ++lane)
      if (mask >> lane & 1) tell(first + lane, joined);
    for (int lane = 0; lane < kWarp; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      known[first + lane].others = joined;
      known[first + lane].version = now * 0x9e3779b97f4a7c15u;
    }
  }
  for (int lane = 0; all && lane < kWarp; ++lane)
    if (mask >> lane & 1) known[first + lane].warp = now;
  ++now;
}

void release(Knowledge& to) {
  if (!options.hazards) return;
  tell(block.current->index, to);
  ++now;
}

void acquire(const Knowledge& from, uint64_t version) {
  if (!options.hazards || from.empty()) return;
  Known& k = known[block.current->index];
  k.version = (k.version ^ version) * 0x9e3779b97f4a7c15u + (k.version >> 31);
  Knowledge& others = k.others;
  if (others.empty()) others.resize(kAgents, 0);
  for (size_t i = 0; i < from.size(); ++i) others[i] = std::max(others[i], from[i]);
}

void release_copy(Knowledge& to, int agent) {
  if (!options.hazards) return;
  if (to.empty()) to.resize(kAgents, 0);
  learn(to, agent, now);
  ++now;
}

void fence_generic_writes() {
  if (!options.hazards) return;
  Known& k = known[block.current->index];
  k.fenced_block = k.block;
  k.fence = ++now;
}

}  // namespace hstl::shim
