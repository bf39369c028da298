// Accesses of the kernels to memory that is not there, and divisions of integers by zero, end the launch with an error,
// not the process.
#include <pthread.h>
#include <signal.h>

#include "emulator.h"

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#include <ucontext.h>
#define HSTL_SHIM_FAULTS 1
#else
#define HSTL_SHIM_FAULTS 0
#endif

namespace hstl::shim {

#if HSTL_SHIM_FAULTS

namespace {

alignas(64) unsigned char handler_stack[64 * 1024];
alignas(64) unsigned char escape_stack[64 * 1024];
pthread_t launching;
bool in_kernel;
int fault;
const void* fault_address;
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction before[3];
stack_t before_stack;

// Runs after the handler has returned, in the place of the access, on a stack of its own.
void escape() {
  if (fault == SIGFPE) fail({"", 0}, "an integer is divided by zero");
  fail({"", 0}, "segmentation fault at %p: the thread reads or writes outside of its arrays", fault_address);
}

void handle(int number, siginfo_t* info, void* context) {
  if (!in_kernel || !pthread_equal(pthread_self(), launching)) {
    for (int i = 0; i < 3; ++i)
      if (kSignals[i] == number) sigaction(number, &before[i], nullptr);
    return;  // the instruction is tried again, and meets the former handler
  }
  fault = number;
  fault_address = info->si_addr;
  auto* state = static_cast<ucontext_t*>(context);
  auto top = reinterpret_cast<uintptr_t>(escape_stack + sizeof(escape_stack));
#if defined(__x86_64__)
  state->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(&escape);
  state->uc_mcontext.gregs[REG_RSP] = greg_t(top - 8);
#else
  state->uc_mcontext.pc = reinterpret_cast<uintptr_t>(&escape);
  state->uc_mcontext.sp = top;
#endif
}

}  // namespace

CatchFaults::CatchFaults() {
  launching = pthread_self();
  stack_t stack{};
  stack.ss_sp = handler_stack;
  stack.ss_size = sizeof(handler_stack);
  sigaltstack(&stack, &before_stack);
  struct sigaction action{};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &action, &before[i]);
  in_kernel = true;
}

CatchFaults::~CatchFaults() {
  in_kernel = false;
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &before[i], nullptr);
  sigaltstack(&before_stack, nullptr);
}

#else

CatchFaults::CatchFaults() = default;
CatchFaults::~CatchFaults() = default;

#endif

}  // namespace hstl::shim
