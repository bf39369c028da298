// mbarriers, which count arrivals and bytes in phases, and the bulk copies that they wait for.
#include <stdexcept>

#include "counters.h"
#include "emulator.h"
#include "hazards.h"

namespace hstl::shim {

namespace {

struct Barrier {
  size_t offset;
  int arrivals;               // of a phase
  int pending;                // arrivals that this phase still lacks
  int64_t announced, issued;  // bytes that have not come yet
  unsigned phase;
  bool fenced;  // seen by the asynchronous proxy
  int initialiser;
  std::vector<Thread*> waiting;
  int agent;
  // What those know who arrived: in this phase and before, and until its latest end.
  Knowledge arriving, complete;
};
std::vector<Barrier> barriers;

struct BulkCopy {
  unsigned char* to;
  const unsigned char* from;
  int bytes;
  size_t offset;   // of `to`
  size_t barrier;  // its offset
  Where where;
};
std::vector<BulkCopy> in_flight;

Barrier* find(size_t offset) {
  for (Barrier& b : barriers)
    if (b.offset == offset) return &b;
  return nullptr;
}

void need_hopper(const char* what, Where where) {
  if (options.capability < 90) fail(where, "%s: only devices of compute capability 9.0 and newer have it", what);
}

Barrier& barrier_at(const uint64_t* p, const char* what, Where where) {
  size_t offset = offset_in_shared(p, 8, 8, what, where);
  Barrier* b = find(offset);
  if (b == nullptr) fail(where, "%s: no barrier was initialised at %zu in shared memory", what, offset);
  note_read(offset, 8, block.current->index, block.current->index, Proxy::generic, true, where);
  return *b;
}

void end_phase_if_complete(Barrier& b) {
  if (b.pending != 0 || b.announced != 0) return;
  ++b.phase;
  b.complete = b.arriving;
  b.pending = b.arrivals;
  for (Thread* t : b.waiting) make_ready(t);
  b.waiting.clear();
}

void arrive(Barrier& b, Where where) {
  if (b.pending == 0) fail(where, "an arrival too many: the barrier's phase takes %d", b.arrivals);
  --b.pending;
  count(Op::barrier_arrive);
  release(b.arriving);
  end_phase_if_complete(b);
}

void deliver(const BulkCopy& copy) {
  memcpy(copy.to, copy.from, size_t(copy.bytes));
  Barrier& b = *find(copy.barrier);
  finish_writes(copy.offset, copy.bytes, b.agent);
  release_copy(b.arriving, b.agent);
  b.announced -= copy.bytes;
  b.issued -= copy.bytes;
  end_phase_if_complete(b);
}

}  // namespace

void begin_barriers() {
  barriers.clear();
  in_flight.clear();
}

void end_barriers() {
  if (in_flight.empty()) return;
  const Where& where = in_flight[0].where;
  throw std::runtime_error(std::string(block.kernel) + ", " + where.file + ":" + std::to_string(where.line) +
                           ": the block ends before this bulk copy has arrived");
}

void spare_barriers(size_t offset, int bytes, Where where) {
  for (const Barrier& b : barriers)
    if (offset < b.offset + 8 && b.offset < offset + size_t(bytes))
      fail(where, "this writes over the mbarrier at %zu in shared memory", b.offset);
}

bool deliver_bulk() {
  if (in_flight.empty()) return false;
  size_t i = options.seed == 0 ? 0 : random_bits() % in_flight.size();
  BulkCopy copy = in_flight[i];
  in_flight.erase(in_flight.begin() + ptrdiff_t(i));
  deliver(copy);
  return true;
}

}  // namespace hstl::shim

namespace hstl {

using namespace shim;

void barrier_init(uint64_t* barrier, int arrivals, Where where) {
  size_t offset = offset_in_shared(barrier, 8, 8, "mbarrier.init", where);
  if (find(offset) != nullptr) fail(where, "mbarrier.init: there is a barrier already");
  if (arrivals < 1 || arrivals >= 1 << 20) fail(where, "mbarrier.init: %d arrivals", arrivals);
  if (barriers.size() == kMostBarriers) fail(where, "mbarrier.init: more than %d barriers", kMostBarriers);
  note_write(offset, 8, block.current->index, block.current->index, Proxy::generic, true, where);
  int agent = kFirstCopyAgent + int(barriers.size());
  barriers.push_back({offset, arrivals, arrivals, 0, 0, 0, false, block.current->index, {}, agent, {}, {}});
}

void barrier_init_fence(Where) {
  for (Barrier& b : barriers)
    if (b.initialiser == block.current->index) b.fenced = true;
}

void barrier_arrive(uint64_t* barrier, Where where) { arrive(barrier_at(barrier, "mbarrier.arrive", where), where); }

void barrier_expect(uint64_t* barrier, int bytes, Where where) {
  need_hopper("mbarrier.arrive.expect_tx", where);
  Barrier& b = barrier_at(barrier, "mbarrier.arrive.expect_tx", where);
  if (bytes < 0 || bytes >= 1 << 20) fail(where, "mbarrier.arrive.expect_tx: %d bytes", bytes);
  b.announced += bytes;
  arrive(b, where);
}

void wait_phase(uint64_t* barrier, int parity, Where where) {
  need_hopper("mbarrier.try_wait", where);
  Barrier* b = &barrier_at(barrier, "mbarrier.try_wait", where);
  size_t offset = b->offset;
  count(Op::barrier_wait);
  if (parity != 0 && parity != 1) fail(where, "mbarrier.try_wait: the parity is %d", parity);
  if (int(b->phase & 1) == parity) {
    b->waiting.push_back(block.current);
    suspend(State::phase, "the end of an mbarrier's phase", where);
    b = find(offset);
  }
  acquire(b->complete, uint64_t(b->agent) << 32 | b->phase);
}

void copy_bulk(void* to, const void* from, int bytes, uint64_t* barrier, Where where) {
  need_hopper("cp.async.bulk", where);
  Barrier& b = barrier_at(barrier, "cp.async.bulk", where);
  if (bytes <= 0 || bytes % 16 != 0) fail(where, "cp.async.bulk: %d bytes are not a multiple of 16", bytes);
  size_t offset = offset_in_shared(to, bytes, 16, "cp.async.bulk", where);
  spare_barriers(offset, bytes, where);
  if (from == nullptr || reinterpret_cast<uintptr_t>(from) % 16 != 0)
    fail(where, "cp.async.bulk: the source %p is null or not aligned to 16 bytes", from);
  if (!b.fenced) fail(where, "cp.async.bulk: no barrier_init_fence made the barrier visible to it");
  b.issued += bytes;
  if (b.issued > b.announced)
    fail(where, "cp.async.bulk: %lld bytes are in flight, of which only %lld were announced",
         static_cast<long long>(b.issued), static_cast<long long>(b.announced));
  count(Op::copy_bulk);
  note_write(offset, bytes, block.current->index, b.agent, Proxy::async, false, where);
  in_flight.push_back(
      {static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes, offset, b.offset, where});
  if (!options.late) deliver_bulk();
}

void fence_async_proxy(Where) {
  count(Op::fence_proxy);
  fence_generic_writes();
}

}  // namespace hstl
