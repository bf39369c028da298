#include "shim_module.h"

#include <pybind11/stl.h>

#include <cstdint>

#include "counters.h"
#include "emulator.h"

namespace py = pybind11;

namespace hstl::shim {

namespace {

// Calls visit(name, option) for every option.
template <class Visitor>
void each_option(Visitor&& visit) {
  visit("devices", options.devices);
  visit("capability", options.capability);
  visit("multiprocessors", options.multiprocessors);
  visit("shared_limit", options.shared_limit);
  visit("late", options.late);
  visit("seed", options.seed);
  visit("hazards", options.hazards);
  visit("conflicts", options.conflicts);
}

py::dict set_options(const py::kwargs& values) {
  py::dict all;
  each_option([&](const char* name, auto& option) { all[name] = option; });
  for (auto item : values)
    if (!all.contains(item.first)) throw py::type_error("no such option: " + py::str(item.first).cast<std::string>());
  each_option([&](const char* name, auto& option) {
    if (values.contains(name)) option = values[name].cast<std::decay_t<decltype(option)>>();
    all[name] = option;
  });
  return all;
}

py::dict report(bool clear) {
  py::dict kernels;
  for (auto& [name, c] : all_counts()) {
    py::dict instructions, rounds, fewest;
    for (int i = 0; i < kOps; ++i) {
      const char* op = name_of(Op(i));
      if (c.instructions[i] != 0) instructions[op] = c.instructions[i];
      if (c.fewest[i] == 0) continue;
      rounds[op] = c.rounds[i];
      fewest[op] = c.fewest[i];
    }
    kernels[name.c_str()] =
        py::dict(py::arg("launches") = c.launches, py::arg("blocks") = c.blocks, py::arg("instructions") = instructions,
                 py::arg("rounds") = rounds, py::arg("fewest") = fewest, py::arg("conflicts") = py::cast(c.conflicts));
  }
  if (clear) all_counts().clear();
  return kernels;
}

}  // namespace

void bind(py::module_& module) {
  py::module_ emulator = module.def_submodule("shim", "The emulator that the kernels run in.");
  emulator.def("options", set_options);
  emulator.def("release_stacks", release_stacks);
  emulator.def("report", report, py::kw_only(), py::arg("clear") = true);
}

}  // namespace hstl::shim
