// Who wrote and read which byte of shared memory, and who knows of it through a barrier. Two accesses to a byte, one of
// them a write, that no barrier orders are an error, whatever order they happen to run in here.
//
// Time is a number that grows with every barrier. Each thread knows what every agent did up to some time: all of them
// since the latest __syncthreads, those of its warp since the latest __syncwarp, single ones through mbarriers.
#pragma once

#include <cstdint>
#include <vector>

#include "emulator.h"

namespace hstl::shim {

// An agent is a thread, a warp (which reads by ldmatrix and wgmma), or the copies that an mbarrier waits for.
constexpr int kFirstWarpAgent = kMostThreads;
constexpr int kFirstCopyAgent = kFirstWarpAgent + kMostThreads / kWarp;
constexpr int kMostBarriers = 64;
constexpr int kAgents = kFirstCopyAgent + kMostBarriers;

// The time up to which the actions of every agent are known; empty: nothing.
using Knowledge = std::vector<uint32_t>;

enum class Proxy { generic, async };

void reserve_hazards(size_t shared_bytes);
void begin_hazards();

// Of the current thread, or of `agent` on behalf of `reader` or `writer`, a thread's index. An access of which
// `finished` is false goes on until finish_reads or finish_writes.
void note_read(size_t offset, int bytes, int reader, int agent, Proxy proxy, bool finished, Where where);
void note_write(size_t offset, int bytes, int writer, int agent, Proxy proxy, bool finished, Where where);
void note_atomic(size_t offset, int bytes, Where where);
void finish_reads(size_t offset, int bytes, int agent, Where where);
void finish_writes(size_t offset, int bytes, int agent);

// Barriers.
void synchronise_block();
void synchronise_lanes(uint32_t mask);
// The current thread tells all it knows, or is told.
void release(Knowledge& to);
// `version` names what is told: no other has the same.
void acquire(const Knowledge& from, uint64_t version);
// A copy has arrived.
void release_copy(Knowledge& to, int agent);
// fence_async_proxy by the current thread.
void fence_generic_writes();

}  // namespace hstl::shim
