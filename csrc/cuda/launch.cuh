// The host's side of a kernel: the current device, its limits, the launch, and errors in CUDA's own words.
#pragma once

#include <stdexcept>
#include <string>

#include "device.cuh"

// A kernel takes one struct of parameters. `threads` is the size of its blocks, `blocks` the number that has to fit on
// a multiprocessor.
#define HSTL_KERNEL(threads, blocks) static __global__ void __launch_bounds__(threads, blocks)

namespace hstl {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else the next call would report the same error
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Makes a device the current one, and the one before current again.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device != before_) check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = device != before_;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

inline int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

// Bytes of shared memory that a block may have.
inline int shared_limit(int device) { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device); }
inline int multiprocessors(int device) { return attribute(cudaDevAttrMultiProcessorCount, device); }
// 10 times the compute capability: 80, 90, 120.
inline int capability(int device) {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
         attribute(cudaDevAttrComputeCapabilityMinor, device);
}

// Enqueues a kernel on the current device's stream.
template <class Parameters>
void launch(const char* name, void (*kernel)(Parameters), dim3 grid, int threads, size_t shared_bytes, void* stream,
            Parameters parameters) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef HSTL_HOST_SHIM
  shim::launch(name, kernel, grid, threads, shared_bytes, parameters);
#else
  const void* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)), name);
  void* arguments[] = {&parameters};
  check(cudaLaunchKernel(function, grid, dim3(unsigned(threads)), arguments, shared_bytes, cudaStream_t(stream)), name);
#endif
}

}  // namespace hstl
