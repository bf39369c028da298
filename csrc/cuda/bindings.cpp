// The Python module hstl_fast._cuda: the functions of operators.h, and what this binary was built with and for.
#include <string>

#include "../binding.h"
#include "operators.h"

#ifdef HSTL_HOST_SHIM
#include <shim_module.h>
#define HSTL_VERSION "emulated"
#define HSTL_FLAGS ""
#define HSTL_NVCC ""
#define HSTL_ARCHITECTURES ""
#else
#include <cuda_runtime_api.h>
#endif

namespace py = pybind11;

namespace {

using namespace hstl::binding;

// Versions are 1000 major + 10 minor. The driver's is that of the newest runtime it serves, 0 without a driver.
#ifdef HSTL_HOST_SHIM
constexpr int kRuntimeVersion = 0;
int driver_version() { return 0; }
#else
constexpr int kRuntimeVersion = CUDART_VERSION;
int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}
#endif

py::dict build_info() {
  py::dict info;
  info["compiler"] = __VERSION__;
  info["nvcc"] = HSTL_NVCC;
  info["flags"] = HSTL_FLAGS;
  info["version"] = HSTL_VERSION;
  return info;
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  using namespace hstl;
  m.doc() = "Native CUDA operators of hstl_fast; csrc/cuda/operators.h says what each computes.";
  py::dict fields;
  define_untyped<ArmeWorkspace, ArmeForward, ArmeDgrad, ArmeWgrad, LeakyBackward, FrameMaximum, FrameMaximumBackward,
                 FrameMaximumBackwardAdd, AstpForward, AstpBackward, GrowSupport, WindowSupport, MaxPoolSupport>(
      m, fields);
  m.attr("fields") = fields;  // names of every function's arguments, in order
  // Machine code, sm_XX, and PTX, compute_XX.
  m.attr("architectures") = py::tuple(py::cast(words_of(HSTL_ARCHITECTURES)));
  m.attr("runtime_version") = kRuntimeVersion;
  m.def("driver_version", &driver_version, "The newest CUDA runtime that the driver serves, 0 without a driver.");
  m.def("build_info", &build_info);
  m.attr("interface") = kInterface;
#ifdef HSTL_HOST_SHIM
  shim::bind(m);
#endif
}
