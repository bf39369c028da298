// A second stack to run on, and the switch between two: saves and restores the registers that a call preserves.
#pragma once

#include <cstddef>

#if !(defined(__ELF__) && (defined(__x86_64__) || defined(__aarch64__))) || defined(HSTL_SHIM_UCONTEXT)
#define HSTL_SHIM_UCONTEXT 1
#include <ucontext.h>
#else
#define HSTL_SHIM_UCONTEXT 0
#endif

namespace hstl::shim {

struct Context {
#if HSTL_SHIM_UCONTEXT
  ucontext_t state;
#else
  void* stack;
#endif
};

// Prepares a context that begins at `entry`, which never returns, on the stack that ends at `top`.
void prepare(Context& context, unsigned char* bottom, unsigned char* top, void (*entry)());
void switch_to(Context& from, Context& to);

}  // namespace hstl::shim
