// The emulator's side of a Python module: csrc/cuda/bindings.cpp calls it where it is compiled for the CPU.
#pragma once

#include <pybind11/pybind11.h>

namespace hstl::shim {

// Adds a submodule `shim`: options(**values) sets the options that are named and returns all; report() returns what the
// kernels did since the last report, by their names.
void bind(pybind11::module_& module);

}  // namespace hstl::shim
