// The Python module _kernels: run(name, blocks, threads, shared_bytes, pointers, numbers) launches a kernel beside
// this.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "kernels.h"
#include "shim_module.h"

namespace py = pybind11;

PYBIND11_MODULE(_kernels, m) {
  m.def("run", [](const std::string& name, unsigned blocks, int threads, size_t shared_bytes,
                  const std::vector<uintptr_t>& pointers, const std::vector<int64_t>& numbers) {
    hstl::Arguments arguments{};
    for (size_t i = 0; i < pointers.size() && i < hstl::kPointers; ++i)
      arguments.p[i] = reinterpret_cast<void*>(pointers[i]);
    for (size_t i = 0; i < numbers.size() && i < hstl::kNumbers; ++i) arguments.n[i] = numbers[i];
    hstl::run(name, blocks, threads, shared_bytes, arguments);
  });
  hstl::shim::bind(m);
}
