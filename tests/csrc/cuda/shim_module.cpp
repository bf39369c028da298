#include "shim_module.h"

#include <cstdint>

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

}  // namespace

void bind(py::module_& module) {
  py::module_ emulator = module.def_submodule("shim", "The emulator that the kernels run in.");
  emulator.def("options", set_options);
}

}  // namespace hstl::shim
