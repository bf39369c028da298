// The emulator's side of a Python module: csrc/cuda/bindings.cpp calls it where it is compiled for the CPU.
#pragma once

#include <pybind11/pybind11.h>

namespace shim {

// Adds options(**values), which sets those that are named and returns all, to the module.
void bind(pybind11::module_& module);

}  // namespace shim
