// The part of GCC's OpenMP runtime that csrc/cpu/parallel.h uses, on threads that ThreadSanitizer follows: libgomp's
// own synchronisation it cannot see, and it would report every handing over of work.
#include <atomic>
#include <thread>
#include <vector>

namespace {

// A parallel region holds one loop; what is taken of it is all that its threads share.
thread_local std::atomic<long>* taken = nullptr;
thread_local long loop_begin, loop_end;
thread_local int number = 0;

bool take(long* first, long* past) {
  *first = loop_begin + taken->fetch_add(1, std::memory_order_relaxed);
  *past = *first + 1;
  return *first < loop_end;
}

}  // namespace

extern "C" {

int omp_get_thread_num() { return number; }

bool GOMP_loop_dynamic_start(long begin, long end, long, long, long* first, long* past) {
  loop_begin = begin;
  loop_end = end;
  return take(first, past);
}

bool GOMP_loop_dynamic_next(long* first, long* past) { return take(first, past); }

bool GOMP_loop_nonmonotonic_dynamic_start(long begin, long end, long step, long chunk, long* first, long* past) {
  return GOMP_loop_dynamic_start(begin, end, step, chunk, first, past);
}

bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* past) { return take(first, past); }

void GOMP_loop_end_nowait() {}

void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  std::atomic<long> count{0};
  auto work = [&](int thread) {
    taken = &count;
    number = thread;
    body(data);
    number = 0;
  };
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(work, int(i));
  work(0);
  for (std::thread& other : others) other.join();
}
}
