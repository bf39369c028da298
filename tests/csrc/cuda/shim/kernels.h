// Small kernels that show what the emulator does, and with a fault in them, that it is seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace hstl {

constexpr size_t kPointers = 4, kNumbers = 4;

struct Arguments {
  void* p[kPointers];
  int64_t n[kNumbers];
};

void run(const std::string& name, unsigned blocks, int threads, size_t shared_bytes, const Arguments& arguments);

}  // namespace hstl
