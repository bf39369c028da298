// From a type's number to the tag of its kernels; on the host only.
#pragma once

#include <stdexcept>
#include <string>

#include "device.cuh"
#include "operators.h"

namespace hstl {

[[noreturn]] inline void no_such_type(int type) {
  throw std::invalid_argument("no kernel takes elements of type number " + std::to_string(type));
}

// Calls f with the tag of how maps of this type are stored and multiplied: Float32, Tf32, Half or Bfloat16.
template <class F>
auto with_type(int type, F&& f) {
  switch (type) {
    case kFloat32:
      return f(Float32{});
    case kTf32:
      return f(Tf32{});
    case kFloat16:
      return f(Half{});
    case kBfloat16:
      return f(Bfloat16{});
  }
  no_such_type(type);
}

// Calls f with a tag for every way of storing: Float32, also for TF32, Half or Bfloat16. For kernels that multiply
// without tensor cores.
template <class F>
auto with_storage(int type, F&& f) {
  switch (type) {
    case kFloat32:
    case kTf32:
      return f(Float32{});
    case kFloat16:
      return f(Half{});
    case kBfloat16:
      return f(Bfloat16{});
  }
  no_such_type(type);
}

template <class Tag>
using storage_of = typename Tag::storage;

inline bool aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

}  // namespace hstl
