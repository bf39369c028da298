// How a native function is described to Python: a plain struct of its arguments. Shared by all native backends.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hstl {

// The name of a function in Python, and the fields of its arguments in the order in which Python passes them.
#define HSTL_FUNCTION(function, ...)                       \
  static constexpr const char* name() { return function; } \
  template <class Visitor>                                 \
  void visit(Visitor&& visitor) {                          \
    visitor(#__VA_ARGS__, __VA_ARGS__);                    \
  }

// A list of integers, borrowed for the duration of the call.
struct IntList {
  const int64_t* data;
  int64_t size;
};

// The most lists among the arguments of one function; the bindings keep copies of so many.
constexpr int kMostLists = 2;

}  // namespace hstl
