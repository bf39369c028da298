// What the micro-benchmarks share: a case, the GPU's figures, memory of random numbers, and times by events.
#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "launch.cuh"

namespace micro {

using hstl::check;

// The GPU as the models see it. Rates are those of an H200 where nothing better is known.
struct Gpu {
  int multiprocessors = 132;
  int capability = 90;
  size_t shared_limit = 227 * 1024;
};

// What a case found: `amount` FLOP or bytes in `seconds` (the median), the multiprocessors' clock meanwhile, and the
// largest error of a result, relative to the largest result, where there is one to check.
struct Outcome {
  double amount = 0;
  double seconds = 0;
  double fastest = 0;
  double clock_hz = 0;
  double error = -1;
};

struct Case {
  std::string name;
  std::string unit;  // "FLOP/s" or "byte/s"
  double predicted;  // in this unit
  std::string model;
  int least_capability;
  int most_capability;
  std::function<Outcome(const Gpu&)> run;
};

std::vector<Case> wgmma_cases();
std::vector<Case> mma_cases();
std::vector<Case> copy_cases();

// An H200, from the notes on the design: products and copies measured elsewhere, the second-level cache a guess.
constexpr double kProducts = 790e12;  // FLOP/s, bfloat16, random numbers
constexpr double kCopies = 4.3e12;    // byte/s, read and written
constexpr double kL2 = 5.5e12;        // byte/s
constexpr double kShared = 132 * 128 * 1.755e9;
constexpr int kAny = 1 << 20;

// Device memory of random numbers; freed at the end.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes) { check(cudaMalloc(&data_, bytes), "cudaMalloc"); }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

// The multiprocessor's cycles and the nanoseconds that the first block took.
struct Clock {
  long long cycles, nanoseconds;
};

__device__ __forceinline__ Clock clock_now() {
  Clock now;
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(now.cycles)::"memory");
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now.nanoseconds)::"memory");
  return now;
}

__device__ __forceinline__ void clock_since(Clock* result, Clock start) {
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  Clock now = clock_now();
  *result = Clock{now.cycles - start.cycles, now.nanoseconds - start.nanoseconds};
}

// A random 16-bit number that is the top of a float32 in [-1, 1), by position.
__host__ __device__ inline uint16_t random_bfloat16(uint32_t i) {
  i ^= i >> 16;
  i *= 0x7feb352du;
  i ^= i >> 15;
  i *= 0x846ca68bu;
  i ^= i >> 16;
  // Exponents -1 to -4, any sign and mantissa.
  return uint16_t((i & 0x807f) | ((126 - (i >> 20 & 3)) << 7));
}

// Fills memory with random bfloat16 numbers.
void fill(const Memory& memory);

// Median and minimum of the seconds of a launch, after two that are not timed, and the clock of the last.
Outcome timed(double amount, const Memory& clock, const std::function<void()>& launch);

}  // namespace micro
