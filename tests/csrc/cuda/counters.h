// What the kernels did: instructions by kind, and conflicts of shared memory's banks.
#pragma once

#include <map>
#include <string>

#include "emulator.h"

namespace hstl::shim {

struct Counts {
  uint64_t launches, blocks;
  uint64_t instructions[kOps];  // of warps; for kOps that lanes carry out by themselves, of lanes
  // Of the accesses of whole warps: the rounds that shared memory needs for them, and the fewest for as many bytes.
  uint64_t rounds[kOps], fewest[kOps];
  // The rounds beyond the fewest by place, "file:line".
  std::map<std::string, uint64_t> conflicts;
};

extern Counts counts;                         // of the launch that runs
std::map<std::string, Counts>& all_counts();  // of every kernel's name, since they were cleared

inline void count(Op op) { ++counts.instructions[int(op)]; }
void begin_counts();  // of a block
void end_counts();
void add_counts(const char* kernel);

// An access of one lane, to be seen together with those of the other lanes at the same place: the n-th of each.
void note_lane_access(Op op, size_t offset, int bytes, Where where);
// An access of `lanes` lanes at once.
void note_accesses(Op op, const size_t* offsets, int lanes, int bytes, Where where);

}  // namespace hstl::shim
