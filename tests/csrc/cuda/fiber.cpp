#include "fiber.h"

#include <cstdint>
#include <cstring>

namespace hstl::shim {

#if HSTL_SHIM_UCONTEXT

void prepare(Context& context, unsigned char* bottom, unsigned char* top, void (*entry)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = bottom;
  context.state.uc_stack.ss_size = size_t(top - bottom);
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
}
void switch_to(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

#else

extern "C" void hstl_shim_switch(void** from, void* to) __attribute__((visibility("hidden")));

#if defined(__x86_64__)
asm(R"(
.text
.globl hstl_shim_switch
.hidden hstl_shim_switch
.type hstl_shim_switch, @function
hstl_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size hstl_shim_switch, .-hstl_shim_switch
)");
constexpr int kSaved = 6;   // words below the return address
constexpr int kReturn = 6;  // the word that holds it
constexpr int kAbove = 2;   // words from it to the aligned top: itself, and the return address of `entry`
#else
asm(R"(
.text
.globl hstl_shim_switch
.hidden hstl_shim_switch
.type hstl_shim_switch, %function
hstl_shim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size hstl_shim_switch, .-hstl_shim_switch
)");
constexpr int kSaved = 18;
constexpr int kReturn = 11;  // x30
constexpr int kAbove = 2;
#endif

void prepare(Context& context, unsigned char*, unsigned char* top, void (*entry)()) {
  void** words = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t(15)) - kSaved - kAbove;
  memset(words, 0, sizeof(void*) * (kSaved + kAbove));
  words[kReturn] = reinterpret_cast<void*>(entry);
  context.stack = words;
}
void switch_to(Context& from, Context& to) { hstl_shim_switch(&from.stack, to.stack); }

#endif

}  // namespace hstl::shim
