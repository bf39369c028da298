// What the tests may choose: the device that is emulated, the order of things, and the checks.
#pragma once

#include <cstdint>

namespace hstl::shim {

struct Options {
  // The device.
  int devices = 2;
  int capability = 90;  // 10 times the compute capability
  int multiprocessors = 2;
  int shared_limit = 232448;  // bytes that a block may have
  // Copies in the background arrive as late as the waits allow, or at once.
  bool late = true;
  // 0: threads and blocks in their natural order; else a permutation of both that this chooses.
  uint64_t seed = 0;
  // Two accesses to shared memory that no barrier orders are an error.
  bool hazards = true;
  // Conflicts of shared memory's banks are counted.
  bool conflicts = false;
};
extern Options options;

}  // namespace hstl::shim
