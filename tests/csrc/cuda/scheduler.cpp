// Blocks one after another, the threads of each as fibers; barriers, and instructions of whole warps.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <map>
#include <mutex>
#include <stdexcept>

#include "counters.h"
#include "emulator.h"
#include "hazards.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace hstl::shim {

Options options;
Block block;

namespace {

// ---- what runs next

// The threads that can run, in a ring.
Thread* ready[2 * kMostThreads];
constexpr unsigned kRing = 2 * kMostThreads - 1;
unsigned ready_first, ready_last;
// Whether the lanes of a warp go on before other warps do, after an instruction of theirs; the seed chooses.
bool depth_first;
uint64_t random_state;

Context launcher;  // run_grid's
bool failed;
std::string message;
std::mutex one_launch;

// The body of every thread.
void (*body)(const void*, const void*);
const void* body_kernel;
const void* body_parameters;

void describe_waiting(std::string& text) {
  std::map<std::string, std::vector<const Thread*>> groups;
  for (int i = 0; i < block.threads; ++i) {
    const Thread& t = block.thread[i];
    if (t.state == State::ended)
      groups["ended"].push_back(&t);
    else
      groups[std::string("wait at ") + t.where.file + ":" + std::to_string(t.where.line) + " for " + t.what].push_back(
          &t);
  }
  const char* separator = ": ";
  for (auto& [name, threads] : groups) {
    text += separator + std::to_string(threads.size()) + " threads " + name + " (the first: warp " +
            std::to_string(threads[0]->warp) + ", lane " + std::to_string(threads[0]->lane) + ")";
    separator = "; ";
  }
}

std::string here() {
  char text[256];
  snprintf(text, sizeof(text), "%s, block (%u, %u, %u)", block.kernel, blockIdx.x, blockIdx.y, blockIdx.z);
  return text;
}

[[noreturn]] void end_with(const std::string& text) {
  message = text;
  failed = true;
  switch_to(block.current->context, launcher);
  __builtin_unreachable();
}

void resume(Thread* thread) {
  Thread* from = block.current;
  block.current = thread;
  thread->state = State::ready;
  threadIdx.x = unsigned(thread->index);
  if (from != thread) switch_to(from->context, thread->context);
}

void run_next() {
  while (ready_first == ready_last) {
    if (deliver_bulk()) continue;
    std::string text = here() + ": deadlock";
    describe_waiting(text);
    end_with(text);
  }
  resume(ready[ready_first++ & kRing]);
}

void push_front(Thread* thread) {
  thread->state = State::ready;
  ready[--ready_first & kRing] = thread;
}
void push_back(Thread* thread) {
  thread->state = State::ready;
  ready[ready_last++ & kRing] = thread;
}

// Makes all threads ready, warps and the lanes of each in an order that the seed chooses.
void push_all() {
  int warps = (block.threads + kWarp - 1) / kWarp, order[kMostThreads / kWarp];
  for (int i = 0; i < warps; ++i) order[i] = i;
  unsigned step = 1, begin = 0;
  if (options.seed != 0) {
    for (int i = warps - 1; i > 0; --i) std::swap(order[i], order[random_bits() % unsigned(i + 1)]);
    step = unsigned(random_bits()) | 1;
    begin = unsigned(random_bits());
  }
  for (int i = 0; i < warps; ++i)
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      int index = order[i] * kWarp + int((begin + lane * step) % kWarp);
      if (index < block.threads) push_back(&block.thread[index]);
    }
}

void entry() {
  body(body_kernel, body_parameters);
  block.current->state = State::ended;
  if (++block.ended == block.threads) switch_to(block.current->context, launcher);
  run_next();
}

// ---- stacks

constexpr size_t kStack = 128 * 1024;
unsigned char* stacks[kMostThreads];

unsigned char* stack_of(int index) {
  unsigned char*& stack = stacks[index];
  if (stack == nullptr) {
    size_t guard = size_t(sysconf(_SC_PAGESIZE));
    void* p = mmap(nullptr, guard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    mprotect(p, guard, PROT_NONE);
    stack = static_cast<unsigned char*>(p) + guard;
  }
  return stack;
}

void begin_threads() {
  for (int i = 0; i < block.threads; ++i) {
    Thread& t = block.thread[i];
    t.index = i;
    t.warp = i / kWarp;
    t.lane = i % kWarp;
    t.state = State::ready;
    t.copies.clear();
    t.delivered = 0;
    t.committed = 0;
    // Stacks begin at different places in their pages, else all would share a few lines of the cache.
    unsigned char* stack = stack_of(i);
    prepare(t.context, stack, stack + kStack - 128 * (i % 29), entry);
  }
  for (int w = 0; w * kWarp < block.threads; ++w) {
    int lanes = block.threads - w * kWarp;
    block.warp[w].lanes = lanes >= kWarp ? 0xffffffffu : (1u << lanes) - 1;
    block.warp[w].opened = 0;
  }
}

void run_block(uint64_t number, dim3 grid) {
  blockIdx = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
  random_state = (options.seed + 1) * 0x9e3779b97f4a7c15u + number;
  for (int i = 0; i < 4; ++i) random_bits();
  depth_first = options.seed == 0 || random_bits() % 4 != 0;
  begin_threads();
  begin_shared();
  begin_hazards();
  begin_counts();
  begin_barriers();
  begin_wgmma();
  block.waiting = block.ended = 0;
  ready_first = ready_last = kRing + 1;
  push_all();
  Thread* first = ready[ready_first++ & kRing];
  block.current = first;
  threadIdx.x = unsigned(first->index);
  switch_to(launcher, first->context);
  if (failed) throw std::runtime_error(message);
  end_barriers();
  end_wgmma();
  end_counts();
  end_shared();
}

uint64_t greatest_common_divisor(uint64_t a, uint64_t b) { return b == 0 ? a : greatest_common_divisor(b, a % b); }

[[noreturn]] void refuse(const char* name, cudaError_t error) {
  throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
}

}  // namespace

const char* name_of(Op op) {
  constexpr const char* kNames[kOps] = {
      "__syncthreads",   "__syncwarp",    "vote",        "shuffle",       "load",
      "store",           "atomicAdd",     "cp.async",    "cp.async.wait", "cp.async.bulk",
      "mbarrier.arrive", "mbarrier.wait", "fence.proxy", "ldmatrix",      "ldmatrix.trans",
      "mma.f16",         "mma.bf16",      "mma.tf32",    "wgmma",         "wgmma.fence",
      "wgmma.commit",    "wgmma.wait"};
  return kNames[int(op)];
}

uint64_t random_bits() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state >> 16;
}

void fail(Where where, const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  const Thread* t = block.current;
  std::string place = where.line == 0 ? "" : std::string(", ") + where.file + ":" + std::to_string(where.line);
  end_with(here() + ", warp " + std::to_string(t->warp) + ", lane " + std::to_string(t->lane) + place + ": " + text);
}

void suspend(State state, const char* what, Where where) {
  Thread* t = block.current;
  t->state = state;
  t->what = what;
  t->where = where;
  run_next();
}

void make_ready(Thread* thread) { push_back(thread); }

void together(Op op, uint32_t mask, void* argument, Where where, void (*work)(void* const*, uint32_t, Where)) {
  Thread* t = block.current;
  Warp& warp = block.warp[t->warp];
  uint32_t bit = 1u << t->lane;
  mask &= warp.lanes;
  if ((mask & bit) == 0) fail(where, "%s: the mask 0x%08x does not name the lane itself", name_of(op), mask);
  int i = 0;
  while (i < warp.opened && (warp.open[i].mask & mask) == 0) ++i;
  Collective& c = warp.open[i];
  if (i == warp.opened) {
    ++warp.opened;
    c.op = op;
    c.where = where;
    c.mask = mask;
    c.arrived = 0;
  }
  if (c.op != op || c.mask != mask || c.where.line != where.line || c.where.file != where.file)
    fail(where, "the lanes of the warp diverge: %s with mask 0x%08x, while others are at %s:%d in %s with mask 0x%08x",
         name_of(op), mask, c.where.file, c.where.line, name_of(c.op), c.mask);
  c.arguments[t->lane] = argument;
  c.arrived |= bit;
  if (c.arrived != mask) return suspend(State::warp, name_of(op), where);
  count(op);
  work(c.arguments, mask, where);
  if (i != --warp.opened) c = warp.open[warp.opened];
  Thread* lanes = &block.thread[t->warp * kWarp];
  mask &= ~bit;
  if (depth_first) {
    for (int lane = kWarp - 1; lane >= 0; --lane)
      if (mask >> lane & 1) push_front(lanes + lane);
  } else {
    for (int lane = 0; lane < kWarp; ++lane)
      if (mask >> lane & 1) push_back(lanes + lane);
  }
}

void whole_warp(Op op, void* argument, Where where, void (*work)(void* const*, uint32_t, Where)) {
  if (block.warp[block.current->warp].lanes != 0xffffffffu)
    fail(where, "%s needs all 32 lanes of the warp", name_of(op));
  together(op, 0xffffffffu, argument, where, work);
}

void release_stacks() {
  size_t guard = size_t(sysconf(_SC_PAGESIZE));
  for (unsigned char*& stack : stacks) {
    if (stack != nullptr) munmap(stack - guard, guard + kStack);
    stack = nullptr;
  }
}

void run_grid(const char* name, void (*call)(const void*, const void*), const void* kernel, const void* parameters,
              dim3 grid, int threads, size_t shared_bytes) {
  std::lock_guard<std::mutex> lock(one_launch);
  if (shared_bytes > size_t(options.shared_limit)) refuse(name, cudaErrorInvalidValue);
  if (threads < 1 || threads > kMostThreads || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    refuse(name, cudaErrorInvalidConfiguration);
  body = call;
  body_kernel = kernel;
  body_parameters = parameters;
  block.kernel = name;
  block.threads = threads;
  failed = false;
  counts = Counts{};
  blockDim = dim3(unsigned(threads));
  gridDim = grid;
  threadIdx = {0, 0, 0};
  reserve_shared(shared_bytes);
  reserve_hazards(shared_bytes);
  CatchFaults catch_faults;
  uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z, step = 1, number = 0;
  if (options.seed != 0) {
    step = (options.seed * 0x9e3779b97f4a7c15u >> 20) % blocks + 1;
    while (greatest_common_divisor(step, blocks) != 1) ++step;
    number = options.seed % blocks;
  }
  for (uint64_t i = 0; i < blocks; ++i, number = (number + step) % blocks) run_block(number, grid);
  add_counts(name);
}

}  // namespace hstl::shim

// ---- CUDA's functions

void __syncthreads(shim::Where where) {
  using namespace shim;
  Thread* t = block.current;
  const Thread* lanes = &block.thread[t->warp * kWarp];
  for (int i = 0; i < kWarp && t->warp * kWarp + i < block.threads; ++i)
    if (lanes[i].state == State::barrier && (lanes[i].where.line != where.line || lanes[i].where.file != where.file))
      fail(where, "the lanes of the warp diverge: others are in __syncthreads at %s:%d", lanes[i].where.file,
           lanes[i].where.line);
  if (t->lane == 0) count(Op::syncthreads);
  if (++block.waiting == block.threads) {
    block.waiting = 0;
    synchronise_block();
    push_all();
    return run_next();
  }
  suspend(State::barrier, "__syncthreads", where);
}

void __syncwarp(unsigned mask, shim::Where where) {
  shim::together(shim::Op::syncwarp, mask, nullptr, where,
                 [](void* const*, uint32_t lanes, shim::Where) { shim::synchronise_lanes(lanes); });
}

namespace {

struct Vote {
  int predicate;
  unsigned result;
};

struct Shuffled {
  uint64_t value;
  shim::Shuffle kind;
  int operand, width;
  uint64_t result;
};

// The lane that `lane` reads from: its own where the other is outside of the segment.
int source_of(const Shuffled& s, int lane) {
  int begin = lane & ~(s.width - 1), last = begin + s.width - 1;
  switch (s.kind) {
    case shim::Shuffle::lane:
      return begin + (s.operand & (s.width - 1));
    case shim::Shuffle::up:
      return lane - s.operand >= begin ? lane - s.operand : lane;
    case shim::Shuffle::down:
      return lane + s.operand <= last ? lane + s.operand : lane;
    default:
      return (lane ^ s.operand) <= last ? lane ^ s.operand : lane;
  }
}

void shuffle_lanes(void* const* arguments, uint32_t mask, shim::Where where) {
  for (int lane = 0; lane < shim::kWarp; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    auto* s = static_cast<Shuffled*>(arguments[lane]);
    int source = source_of(*s, lane) & 31;
    if ((mask >> source & 1) == 0) shim::fail(where, "a shuffle reads lane %d, which the mask does not name", source);
    s->result = static_cast<const Shuffled*>(arguments[source])->value;
  }
}

}  // namespace

unsigned __ballot_sync(unsigned mask, int predicate, shim::Where where) {
  Vote vote{predicate, 0};
  shim::together(shim::Op::vote, mask, &vote, where, [](void* const* arguments, uint32_t lanes, shim::Where) {
    unsigned result = 0;
    for (int i = 0; i < shim::kWarp; ++i)
      if (lanes >> i & 1 && static_cast<Vote*>(arguments[i])->predicate) result |= 1u << i;
    for (int i = 0; i < shim::kWarp; ++i)
      if (lanes >> i & 1) static_cast<Vote*>(arguments[i])->result = result;
  });
  return vote.result;
}

uint64_t shim::shuffle(Shuffle kind, unsigned mask, uint64_t value, int operand, int width, Where where) {
  Shuffled s{value, kind, operand, width, 0};
  if (width < 1 || width > kWarp || (width & (width - 1)) != 0) fail(where, "a shuffle's width is a power of 2");
  together(Op::shuffle, mask, &s, where, shuffle_lanes);
  return s.result;
}
