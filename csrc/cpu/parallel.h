// The only place with pragmas and calls of OpenMP. One thread runs inline, so a forked child that sets one thread never
// touches the runtime.
#pragma once

#include <cstdint>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace hstl {
namespace HSTL_ISA {
namespace {

// Keeps one compiled copy of a body: two inlined ones may round differently.
template <class Body, class... State>
__attribute__((noinline)) void call(const Body& body, int64_t i, int thread, State&... state) {
  body(i, thread, state...);
}

// body(i, thread) for i = 0..n-1. Which thread runs which i is left to chance, so that a busy machine's slower core
// gets less; a body writes only what belongs to its i and its thread's scratch, so results never depend on it.
template <class Body>
void parallel_for(int threads, int64_t n, const Body& body) {
#ifdef _OPENMP
  if (threads > 1 && n > 1) {
    int team = n < threads ? int(n) : threads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
    for (int64_t i = 0; i < n; ++i) call(body, i, omp_get_thread_num());
    return;
  }
#endif
  (void)threads;
  for (int64_t i = 0; i < n; ++i) call(body, i, 0);
}

// As parallel_for, with a state of each thread's own: body(i, thread, state). A thread's i only grow, so that its state
// may walk along with them.
template <class State, class Body>
void parallel_walk(int threads, int64_t n, const Body& body) {
#ifdef _OPENMP
  if (threads > 1 && n > 1) {
    int team = n < threads ? int(n) : threads;
#pragma omp parallel num_threads(team)
    {
      State state;
#pragma omp for schedule(monotonic : dynamic, 1) nowait
      for (int64_t i = 0; i < n; ++i) call(body, i, omp_get_thread_num(), state);
    }
    return;
  }
#endif
  (void)threads;
  State state;
  for (int64_t i = 0; i < n; ++i) call(body, i, 0, state);
}

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
