// One table of functions per instruction set that this machine may run; the one in use is chosen at run time.
#include <atomic>
#include <cstring>
#include <mutex>

#include "operators.h"

#define HSTL_DECLARE_FILE(file) void fill_##file(Tables& tables);
#define HSTL_DECLARE(isa)                \
  namespace hstl::isa {                  \
  HSTL_OPERATOR_FILES(HSTL_DECLARE_FILE) \
  }

#ifdef HSTL_X86
HSTL_DECLARE(avx512)
HSTL_DECLARE(avx2)
HSTL_DECLARE(plain)
#elif defined(__aarch64__)
HSTL_DECLARE(neon)
#else
HSTL_DECLARE(plain)
#endif

namespace hstl {
namespace {

struct InstructionSet {
  const char* name;
  bool (*runs_here)();
  void (*fill)(Tables& tables);  // compiled for the set: call only where it runs
  std::once_flag filled;
  Tables tables;
};

#define HSTL_FILL_FILE(file) fill_##file(tables);
#define HSTL_FILL(isa)                  \
  [](Tables& tables) {                  \
    using namespace isa;                \
    HSTL_OPERATOR_FILES(HSTL_FILL_FILE) \
  },                                    \
      {}, {}

[[maybe_unused]] bool always() { return true; }

#ifdef HSTL_X86
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// Best first.
InstructionSet instruction_sets[] = {
#ifdef HSTL_X86
    {"avx512", has_avx512, HSTL_FILL(avx512)},
    {"avx2", has_avx2, HSTL_FILL(avx2)},
    {"plain", always, HSTL_FILL(plain)},
#elif defined(__aarch64__)
    {"neon", always, HSTL_FILL(neon)},
#else
    {"plain", always, HSTL_FILL(plain)},
#endif
};

std::atomic<const InstructionSet*> current{nullptr};

const InstructionSet& in_use() {
  if (!current.load()) use_instruction_set(instruction_set_name(0));
  return *current.load();
}

}  // namespace

const char* instruction_set_name(int i) {
  for (const InstructionSet& set : instruction_sets)
    if (set.runs_here() && i-- == 0) return set.name;
  return nullptr;
}

bool use_instruction_set(const char* name) {
  for (InstructionSet& set : instruction_sets) {
    if (std::strcmp(set.name, name) || !set.runs_here()) continue;
    std::call_once(set.filled, [&] { set.fill(set.tables); });
    current = &set;
    return true;
  }
  return false;
}

const char* instruction_set() { return in_use().name; }

template <>
const Operators<float>& operators<float>() {
  return in_use().tables.float32;
}

template <>
const Operators<double>& operators<double>() {
  return in_use().tables.float64;
}

const Supports& supports() { return in_use().tables.supports; }

void copy_rows(const CopyRows& a) { in_use().tables.copy_rows(a); }

void checksum(const Checksum& a) { in_use().tables.checksum(a); }

bool built_with_openmp() {
#ifdef _OPENMP
  return true;
#else
  return false;
#endif
}

}  // namespace hstl
