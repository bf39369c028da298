// One table of functions per instruction set; the one in use is chosen at run time.
#include <atomic>
#include <cstring>
#include <mutex>

#include "../hstl.h"

#define HSTL_DECLARE(isa)                                                \
  namespace hstl::isa {                                                  \
  void fill_arme(Operators<float>&, Operators<double>&);                 \
  void fill_arme_weight(Operators<float>&, Operators<double>&);          \
  void fill_arme_winograd(Operators<float>&, Operators<double>&);        \
  void fill_arme_winograd_weight(Operators<float>&, Operators<double>&); \
  void fill_astp(Operators<float>&, Operators<double>&);                 \
  void fill_fta(Operators<float>&, Operators<double>&);                  \
  void fill_halve(Operators<float>&, Operators<double>&);                \
  void fill_parts(Operators<float>&, Operators<double>&);                \
  void fill_supports(Supports&);                                         \
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

struct Tables {
  const char* name;
  Operators<float> single;
  Operators<double> dual;
  Supports supports;
};

struct InstructionSet {
  const char* name;
  bool (*runs_here)();
  void (*fill)(Tables& tables);  // compiled for the set: call only where it runs
  std::once_flag filled;
  Tables tables;
};

#define HSTL_FILL(isa)                                          \
  [](Tables& tables) {                                          \
    isa::fill_arme(tables.single, tables.dual);                 \
    isa::fill_arme_weight(tables.single, tables.dual);          \
    isa::fill_arme_winograd(tables.single, tables.dual);        \
    isa::fill_arme_winograd_weight(tables.single, tables.dual); \
    isa::fill_astp(tables.single, tables.dual);                 \
    isa::fill_fta(tables.single, tables.dual);                  \
    isa::fill_halve(tables.single, tables.dual);                \
    isa::fill_parts(tables.single, tables.dual);                \
    isa::fill_supports(tables.supports);                        \
  },                                                            \
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

std::atomic<const Tables*> current{nullptr};

const Tables& tables() {
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
    std::call_once(set.filled, [&] {
      set.tables.name = set.name;
      set.fill(set.tables);
    });
    current = &set.tables;
    return true;
  }
  return false;
}

const char* instruction_set() { return tables().name; }

template <>
const Operators<float>& operators<float>() {
  return tables().single;
}

template <>
const Operators<double>& operators<double>() {
  return tables().dual;
}

const Supports& supports() { return tables().supports; }

bool built_with_openmp() {
#ifdef _OPENMP
  return true;
#else
  return false;
#endif
}

}  // namespace hstl
