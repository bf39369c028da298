// Shared memory: its bounds, cp.async, plain accesses.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <new>

#include "counters.h"
#include "emulator.h"
#include "hazards.h"

namespace hstl::shim {

namespace {

constexpr size_t kAlignment = 1024;  // of the block's memory, as device.cuh says
// Its address as PTX counts; what lies before is the system's.
constexpr uint32_t kWindow = 1024;
constexpr unsigned char kFresh = 0xff;  // NaN in every type
constexpr unsigned char kGuard = 0xa5;

// The block's memory ends, rounded up, at an inaccessible page; between it and the pages before, all is kGuard.
unsigned char* region;
size_t region_bytes;
unsigned char* shared;
size_t shared_bytes;

size_t round_up(size_t a, size_t b) { return (a + b - 1) / b * b; }

bool all_guard(const unsigned char* begin, const unsigned char* end) {
  for (; begin < end; ++begin)
    if (*begin != kGuard) return false;
  return true;
}

void deliver(const Copy& copy) {
  if (copy.from == nullptr)
    memset(copy.to, 0, 16);
  else
    memcpy(copy.to, copy.from, 16);
}

}  // namespace

void reserve_shared(size_t bytes) {
  size_t page = size_t(sysconf(_SC_PAGESIZE)), needed = round_up(bytes, kAlignment) + 2 * page;
  if (needed > region_bytes) {
    if (region != nullptr) munmap(region, region_bytes + page);
    region_bytes = round_up(needed, page);
    void* p = mmap(nullptr, region_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    region = static_cast<unsigned char*>(p);
    mprotect(region + region_bytes, page, PROT_NONE);
  }
  shared_bytes = bytes;
  shared = region + region_bytes - round_up(bytes, kAlignment);
  memset(shared - kAlignment, kGuard, round_up(bytes, kAlignment) + kAlignment);
}

void begin_shared() { memset(shared, kFresh, shared_bytes); }

void end_shared() {
  if (!all_guard(shared - kAlignment, shared) || !all_guard(shared + shared_bytes, region + region_bytes))
    throw std::runtime_error(std::string(block.kernel) + ": a block wrote beside its shared memory");
}

unsigned char* shared_memory() { return shared; }

bool in_shared(const void* p) {
  auto* byte = static_cast<const unsigned char*>(p);
  return byte >= shared && byte < shared + shared_bytes;
}

const unsigned char* shared_at(uint32_t address) { return shared + (intptr_t(address) - intptr_t(kWindow)); }

size_t offset_in_shared(const void* p, int bytes, int alignment, const char* what, Where where) {
  intptr_t offset = static_cast<const unsigned char*>(p) - shared;
  if (offset < 0 || size_t(offset) + size_t(bytes) > shared_bytes)
    fail(where, "%s: %d bytes at %lld are outside of the block's %zu bytes of shared memory", what, bytes,
         static_cast<long long>(offset), shared_bytes);
  if (offset % alignment != 0)
    fail(where, "%s: the address %lld in shared memory is not a multiple of %d", what, static_cast<long long>(offset),
         alignment);
  return size_t(offset);
}

void check_load(const void* p, int bytes, Where where) {
  int thread = block.current->index;
  size_t offset = offset_in_shared(p, bytes, bytes, "a load", where);
  note_lane_access(Op::load, offset, bytes, where);
  note_read(offset, bytes, thread, thread, Proxy::generic, true, where);
}
void check_store(const void* p, int bytes, Where where) {
  int thread = block.current->index;
  size_t offset = offset_in_shared(p, bytes, bytes, "a store", where);
  spare_barriers(offset, bytes, where);
  note_lane_access(Op::store, offset, bytes, where);
  note_write(offset, bytes, thread, thread, Proxy::generic, true, where);
}

void wait_copies(int latest, Where) {
  count(Op::copy_wait);
  Thread* t = block.current;
  while (t->delivered < t->copies.size() && t->copies[t->delivered].group < t->committed - latest) {
    const Copy& copy = t->copies[t->delivered++];
    if (options.late) deliver(copy);
    finish_writes(size_t(copy.to - shared), 16, t->index);
  }
  if (t->delivered == t->copies.size()) {
    t->copies.clear();
    t->delivered = 0;
  }
}

}  // namespace hstl::shim

namespace hstl {

uint32_t shared_address(const void* p, shim::Where where) {
  return shim::kWindow + uint32_t(shim::offset_in_shared(p, 0, 1, "an address", where));
}

void store_16(void* to, const uint32_t (&words)[4], shim::Where where) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) shim::fail(where, "store_16: %p is not aligned", to);
  std::memcpy(to, words, 16);
}

void copy_async_16(void* to, const void* from, bool exists, shim::Where where) {
  size_t offset = shim::offset_in_shared(to, 16, 16, "cp.async", where);
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) shim::fail(where, "cp.async: the source %p is not aligned", from);
  if (exists && from == nullptr) shim::fail(where, "cp.async: the source is null");
  shim::Thread* t = shim::block.current;
  shim::spare_barriers(offset, 16, where);
  shim::note_lane_access(shim::Op::copy_async, offset, 16, where);
  shim::note_write(offset, 16, t->index, t->index, shim::Proxy::generic, false, where);
  auto* source = exists ? static_cast<const unsigned char*>(from) : nullptr;
  t->copies.push_back({static_cast<unsigned char*>(to), source, t->committed, where});
  if (!shim::options.late) shim::deliver(t->copies.back());
}

void copy_async_commit(shim::Where) { ++shim::block.current->committed; }

}  // namespace hstl

int atomicAdd(int* address, int value, shim::Where where) {
  if (shim::in_shared(address)) shim::note_atomic(shim::offset_in_shared(address, 4, 4, "atomicAdd", where), 4, where);
  shim::count(shim::Op::atomic_add);
  int before = *address;
  *address = before + value;
  return before;
}
