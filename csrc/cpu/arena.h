// Division of a workspace, which the caller allocates, into aligned arrays.
#pragma once

#include <cstddef>

#include "../shapes.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// Hands out 64-byte aligned arrays of a workspace, one after another; from a null base it only counts their bytes.
struct Arena {
  char* base;
  size_t used = 0;

  explicit Arena(void* workspace) : base(nullptr) {
    uintptr_t address = reinterpret_cast<uintptr_t>(workspace);
    base = reinterpret_cast<char*>((address + 63) & ~uintptr_t(63));
  }

  template <class T>
  T* allocate(int64_t count) {
    char* array = base + used;
    used += round_up(count * int64_t(sizeof(T)), 64);
    return reinterpret_cast<T*>(array);
  }

  size_t bytes() const { return used + 64; }
};

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
