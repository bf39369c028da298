// The Python module hstl_fast._cpu: the functions of operators.h.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../binding.h"
#include "operators.h"

namespace py = pybind11;

namespace hstl {

// The functions of an algorithm, or an error where it does not compute this type.
template <class T>
const Arme<T>& arme(int algorithm) {
  const Operators<T>& found = operators<T>();
  if (algorithm == kDirect) return found.direct;
  bool known = false;
  for (int frames : kWinogradFrames) known = known || algorithm == frames;
  if (!known || found.winograd.forward == nullptr)
    throw py::value_error("algorithm: expected 0 (direct) or, in float32, 2, 4 or 5 (frames of a Winograd tile), got " +
                          std::to_string(algorithm));
  return found.winograd;
}

// One overload per function of operators.h; the bindings find it beside the function's struct.
// clang-format off
template <class T> size_t run(const ArmePrepackedSize<T>& a) { return arme<T>(a.algorithm).prepacked_size(a); }
template <class T> void run(const ArmePrepack<T>& a) { arme<T>(a.algorithm).prepack(a); }
template <class T> size_t run(const ArmeWorkspace<T>& a) { return arme<T>(a.algorithm).workspace(a); }
template <class T> size_t run(const ArmeWgradWorkspace<T>& a) { return arme<T>(a.algorithm).wgrad_workspace(a); }
template <class T> void run(const ArmeForward<T>& a) { arme<T>(a.algorithm).forward(a); }
template <class T> void run(const ArmeDgrad<T>& a) { arme<T>(a.algorithm).dgrad(a); }
template <class T> void run(const ArmeWgrad<T>& a) { arme<T>(a.algorithm).wgrad(a); }
template <class T> void run(const SilhouettesForward<T>& a) { operators<T>().silhouettes_forward(a); }
template <class T> void run(const LeakyBackward<T>& a) { operators<T>().leaky_backward(a); }
template <class T> void run(const FrameMaximum<T>& a) { operators<T>().frame_maximum(a); }
template <class T> void run(const FrameMaximumBackward<T>& a) { operators<T>().frame_maximum_backward(a); }
template <class T> void run(const FrameMaximumBackwardAdd<T>& a) { operators<T>().frame_maximum_backward_add(a); }
template <class T> size_t run(const AstpWorkspace<T>& a) { return operators<T>().astp_workspace(a); }
template <class T> void run(const AstpForward<T>& a) { operators<T>().astp_forward(a); }
template <class T> void run(const AstpBackward<T>& a) { operators<T>().astp_backward(a); }
template <class T> size_t run(const FtaWorkspace<T>& a) { return operators<T>().fta_workspace(a); }
template <class T> void run(const FtaForward<T>& a) { operators<T>().fta_forward(a); }
template <class T> void run(const FtaBackward<T>& a) { operators<T>().fta_backward(a); }
template <class T> void run(const MaxPool<T>& a) { operators<T>().max_pool(a); }
template <class T> void run(const Head<T>& a) { operators<T>().head(a); }
template <class T> size_t run(const PartDistancesWorkspace<T>& a) { return operators<T>().part_distances_workspace(a); }
template <class T> void run(const PartDistances<T>& a) { operators<T>().part_distances(a); }
template <class T> void run(const DifferenceDistances<T>& a) { operators<T>().difference_distances(a); }
template <class T> void run(const PairDistances<T>& a) { operators<T>().pair_distances(a); }
static void run(const GrowSupport& a) { supports().grow(a); }
static void run(const WindowSupport& a) { supports().window(a); }
static void run(const MaxPoolSupport& a) { supports().max_pool(a); }
static void run(const FindSupport& a) { supports().find(a); }
static void run(const CopyRows& a) { copy_rows(a); }
static void run(const Checksum& a) { checksum(a); }
// clang-format on

}  // namespace hstl

#include "program.h"  // calls the functions above

namespace {

using namespace hstl::binding;

// Calls f<Arguments<T>>(arguments, count); the type is told by the argument `itemsize`.
template <template <class> class Arguments, class F>
auto with_type(PyObject* const* arguments, Py_ssize_t count, const F& f) {
  static const Py_ssize_t at = [] {
    const std::vector<std::string>& names = names_of<Arguments<float>>();
    Py_ssize_t i = 0;
    while (names[size_t(i)] != "itemsize") ++i;
    return i;
  }();
  long itemsize = at < count ? PyLong_AsLong(arguments[at]) : 4;
  if (itemsize == 4) return f(Arguments<float>());
  if (itemsize == 8) return f(Arguments<double>());
  if (PyErr_Occurred()) {  // reading the arguments says which is wrong
    PyErr_Clear();
    return f(Arguments<float>());
  }
  throw py::value_error("itemsize: expected 4 (float32) or 8 (float64), got " + std::to_string(itemsize));
}

template <template <class> class Arguments>
PyObject* call_typed(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  return with_python_errors([&] {
    return with_type<Arguments>(arguments, count,
                                [&](auto kind) { return read_and_run<decltype(kind)>(arguments, count); });
  });
}

// ---- programs

// A step of a program that calls the function of these arguments.
using MakeStep = std::unique_ptr<Step> (*)(PyObject* const* arguments, Py_ssize_t count, size_t places);

std::map<std::string, MakeStep>& step_makers() {
  static std::map<std::string, MakeStep> makers;
  return makers;
}

template <class Arguments>
std::unique_ptr<Step> make_step(PyObject* const* arguments, Py_ssize_t count, size_t places) {
  return std::make_unique<StepOf<Arguments>>(arguments, count, places);
}

template <template <class> class Arguments>
std::unique_ptr<Step> make_typed_step(PyObject* const* arguments, Py_ssize_t count, size_t places) {
  return with_type<Arguments>(arguments, count,
                              [&](auto kind) { return make_step<decltype(kind)>(arguments, count, places); });
}

void append(Program& program, const std::string& function, const py::sequence& arguments) {
  auto found = step_makers().find(function);
  if (found == step_makers().end())
    throw py::value_error("function: expected one that a program can call, got '" + function + "'");
  std::vector<PyObject*> pointers;
  const py::list given(arguments);  // owns them
  for (const py::handle& each : given) pointers.push_back(each.ptr());
  program.append(found->second(pointers.data(), Py_ssize_t(pointers.size()), program.places()));
}

// ---- the module

template <template <class> class... Arguments>
void define_typed(py::module_& m, py::dict& fields) {
  (define<Arguments<float>>(m, fields, call_typed<Arguments>), ...);
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (int i = 0; hstl::instruction_set_name(i); ++i) names.push_back(hstl::instruction_set_name(i));
  return names;
}

void use_named_set(const std::string& name) {
  if (hstl::use_instruction_set(name.c_str())) return;
  std::string known;
  for (const std::string& each : instruction_sets()) known += (known.empty() ? "'" : ", '") + each + "'";
  throw py::value_error("name: expected an instruction set that this machine runs (" + known + "), got '" + name + "'");
}

py::dict build_info() {
  py::dict info;
  info["compiler"] = __VERSION__;
  info["flags"] = HSTL_FLAGS;
  info["version"] = HSTL_VERSION;
  return info;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  using namespace hstl;
  using namespace py::literals;
  m.doc() = "Native CPU operators of hstl_fast; csrc/cpu/operators.h says what each computes.";
  py::dict fields;
  define_typed<ArmePrepackedSize, ArmePrepack, ArmeWorkspace, ArmeWgradWorkspace, ArmeForward, ArmeDgrad, ArmeWgrad,
               SilhouettesForward, LeakyBackward, FrameMaximum, FrameMaximumBackward, FrameMaximumBackwardAdd,
               AstpWorkspace, AstpForward, AstpBackward, FtaWorkspace, FtaForward, FtaBackward, MaxPool, Head,
               PartDistancesWorkspace, PartDistances, DifferenceDistances, PairDistances>(m, fields);
  define_untyped<FindSupport, GrowSupport, WindowSupport, MaxPoolSupport, CopyRows, Checksum>(m, fields);
  m.attr("fields") = fields;  // names of every function's arguments, in order
  step_makers() = {
      {"arme_forward", make_typed_step<ArmeForward>},
      {"silhouettes_forward", make_typed_step<SilhouettesForward>},
      {"frame_maximum", make_typed_step<FrameMaximum>},
      {"astp_forward", make_typed_step<AstpForward>},
      {"fta_forward", make_typed_step<FtaForward>},
      {"max_pool", make_typed_step<MaxPool>},
      {"head", make_typed_step<Head>},
      {"find_support", make_step<FindSupport>},
      {"grow_support", make_step<GrowSupport>},
      {"window_support", make_step<WindowSupport>},
      {"max_pool_support", make_step<MaxPoolSupport>},
      {"copy_rows", make_step<CopyRows>},
  };
  py::class_<Program>(m, "Program", py::module_local(), "Native functions that run one after another.")
      .def(py::init<const std::vector<std::pair<size_t, int64_t>>&>(), "places"_a)
      .def("append", &append, "function"_a, "arguments"_a)
      .def("run", &Program::run, "bases"_a)
      .def("run_timed", &Program::run_timed, "bases"_a, "Runs, and returns the seconds of every step.")
      .def_property_readonly("nbytes", &Program::bytes);
  m.def("instruction_sets", &instruction_sets, "Instruction sets that this machine runs, best first.");
  m.def("instruction_set", &hstl::instruction_set, "The instruction set in use.");
  m.def("use_instruction_set", &use_named_set, "name"_a);
  m.def("openmp", &hstl::built_with_openmp);
  m.def("build_info", &build_info);
  m.attr("interface") = hstl::kInterface;
}
