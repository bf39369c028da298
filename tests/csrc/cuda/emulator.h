// The emulator's inside: one block at a time, its threads as fibers that a scheduler of its own switches between.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "fiber.h"
#include "hstl_shim.h"
#include "options.h"

namespace hstl::shim {

constexpr int kWarp = 32;
constexpr int kMostThreads = 1024;

// The instructions that are counted.
enum class Op {
  syncthreads,
  syncwarp,
  vote,
  shuffle,
  load,
  store,
  atomic_add,
  copy_async,
  copy_wait,
  copy_bulk,
  barrier_arrive,
  barrier_wait,
  fence_proxy,
  ldmatrix,
  ldmatrix_trans,
  mma_f16,
  mma_bf16,
  mma_tf32,
  wgmma,
  wgmma_fence,
  wgmma_commit,
  wgmma_wait,
  count,
};
constexpr int kOps = int(Op::count);
const char* name_of(Op op);

// A cp.async: 16 bytes, or zeros where `from` is null.
struct Copy {
  unsigned char* to;
  const unsigned char* from;
  int group;
  Where where;
};

enum class State { ready, barrier, warp, phase, ended };

struct Thread {
  Context context;
  int index, warp, lane;
  State state;
  // The instruction that it waits at.
  const char* what;
  Where where;
  // Its copies in the background, oldest first from `delivered` on; those of groups < committed can be waited for.
  std::vector<Copy> copies;
  size_t delivered;
  int committed;
};

// An instruction that several lanes of a warp carry out together: the last to arrive does the work of all.
struct Collective {
  Op op;
  Where where;
  uint32_t mask, arrived;
  void* arguments[kWarp];
};

struct Warp {
  uint32_t lanes;  // those that exist
  int opened;      // collectives that lanes wait at
  Collective open[kWarp];
};

struct Block {
  const char* kernel;
  int threads;
  int waiting;  // at __syncthreads
  int ended;
  Thread* current;
  Thread thread[kMostThreads];
  Warp warp[kMostThreads / kWarp];
};
extern Block block;

// ---- scheduler (scheduler.cpp)

// Ends the launch with an error that names kernel, block, warp and lane.
[[noreturn]] void fail(Where where, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Lets others run until the current thread is made ready.
void suspend(State state, const char* what, Where where);
void make_ready(Thread* thread);

// Gives back the stacks of threads, each of which takes two of the 65530 mappings that a process may have; no launch
// may be running.
void release_stacks();
uint64_t random_bits();

// Calls work(arguments by lane, mask) once all lanes of the mask have come here, in the last of them.
void together(Op op, uint32_t mask, void* argument, Where where,
              void (*work)(void* const* arguments, uint32_t mask, Where where));
// As together, for instructions that need all 32 lanes.
void whole_warp(Op op, void* argument, Where where, void (*work)(void* const* arguments, uint32_t mask, Where where));

// While one lives, a fault of the processor in a kernel ends the launch as fail does (faults.cpp).
class CatchFaults {
 public:
  CatchFaults();
  ~CatchFaults();
  CatchFaults(const CatchFaults&) = delete;
};

// ---- memory (memory.cpp)

void reserve_shared(size_t bytes);  // of a launch
void begin_shared();                // of a block
void end_shared();
// Where p lies in shared memory; an error unless `bytes` from there lie inside and p is aligned.
size_t offset_in_shared(const void* p, int bytes, int alignment, const char* what, Where where);
bool in_shared(const void* p);
// What lies at an address that shared_address gave; it may be outside.
const unsigned char* shared_at(uint32_t address);

// ---- mbarriers (barriers.cpp)

void begin_barriers();
void end_barriers();
// An error if something other than a barrier is to be written where one lies.
void spare_barriers(size_t offset, int bytes, Where where);
// Lets one bulk copy arrive; false if none is in flight.
bool deliver_bulk();

// ---- wgmma (wgmma.cpp)

void begin_wgmma();
void end_wgmma();
// The current warp has loaded a fragment into registers, of which lane 0's are r.
void note_loaded(const uint32_t* r);

}  // namespace hstl::shim
