// The Python module hstl_fast._cpu: the functions of operators.h, with addresses as integers (0: absent). Arguments are
// passed by position only and read straight into the function's struct; what they mean is checked in Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "operators.h"

namespace py = pybind11;

namespace {

// ---- names of arguments

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.find_first_of(", ", begin);
    if (end == std::string::npos) end = text.size();
    if (end > begin) words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

// Names of the fields that Python passes.
template <class Arguments>
const std::vector<std::string>& names_of() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> found;
    Arguments().visit([&](const char* text, auto&...) { found = words_of(text); });
    return found;
  }();
  return names;
}

// ---- reading arguments

struct Anything {
  template <class T>
  operator T() const;
};

template <class A, size_t... I>
auto has_members(std::index_sequence<I...>) -> decltype(A{(void(I), Anything())...}, std::true_type());
template <class A>
std::false_type has_members(...);

// Reads positional arguments into a struct, which may refer to the reader's copies of lists.
template <class Arguments>
class Reader {
 public:
  Reader(PyObject* const* arguments, Py_ssize_t count) : next_(arguments), count_(count) {}

  // Throws the Python error that says which argument is wrong.
  void read(Arguments& to) { to.visit(*this); }

  template <class... Fields>
  void operator()(const char*, Fields&... fields) {
    constexpr size_t count = sizeof...(Fields);
    static_assert(decltype(has_members<Arguments>(std::make_index_sequence<count>()))::value &&
                      !decltype(has_members<Arguments>(std::make_index_sequence<count + 1>()))::value,
                  "HSTL_FUNCTION names every field of its struct");
    static_assert((0 + ... + int(std::is_same_v<Fields, hstl::IntList>)) <= hstl::kMostLists,
                  "a function takes at most kMostLists lists");
    if (count_ != Py_ssize_t(count))
      throw py::type_error(std::string(Arguments::name()) + ": expected " + std::to_string(count) + " arguments (" +
                           joined() + "), got " + std::to_string(count_));
    (next(fields), ...);
  }

 private:
  template <class Field>
  void next(Field& field) {
    if (!convert(*next_++, field)) fail();
    ++index_;
  }

  template <class T>
  static bool convert(PyObject* object, T*& field) {
    field = static_cast<T*>(PyLong_AsVoidPtr(object));
    return field != nullptr || !PyErr_Occurred();
  }
  static bool convert(PyObject* object, int64_t& field) {
    field = PyLong_AsLongLong(object);
    return field != -1 || !PyErr_Occurred();
  }
  static bool convert(PyObject* object, int& field) {
    int64_t value = 0;
    if (!convert(object, value)) return false;
    field = int(value);
    if (field == value) return true;
    PyErr_SetString(PyExc_OverflowError, "too large");
    return false;
  }
  static bool convert(PyObject* object, bool& field) {
    int truth = PyObject_IsTrue(object);
    field = truth == 1;
    return truth >= 0;
  }
  static bool convert(PyObject* object, double& field) {
    field = PyFloat_AsDouble(object);
    return field != -1 || !PyErr_Occurred();
  }
  static bool convert(PyObject* object, float& field) {
    double value = 0;
    if (!convert(object, value)) return false;
    field = float(value);
    return true;
  }
  bool convert(PyObject* object, hstl::IntList& field) {
    py::object items = py::reinterpret_steal<py::object>(PySequence_Fast(object, "expected a sequence of integers"));
    if (!items) return false;
    std::vector<int64_t>& list = lists_[lists_used_++];
    list.resize(size_t(PySequence_Fast_GET_SIZE(items.ptr())));
    for (size_t i = 0; i < list.size(); ++i)
      if (!convert(PySequence_Fast_ITEMS(items.ptr())[i], list[i])) return false;
    field = {list.data(), int64_t(list.size())};
    return true;
  }

  [[noreturn]] void fail() const {
    py::error_already_set error;
    std::string where = std::string(Arguments::name()) + ": " + names_of<Arguments>()[index_] + ": ";
    throw py::type_error(where + std::string(py::str(error.value())));
  }

  static std::string joined() {
    std::string text;
    for (const std::string& name : names_of<Arguments>()) text += (text.empty() ? "" : ", ") + name;
    return text;
  }

  PyObject* const* next_;
  Py_ssize_t count_;
  size_t index_ = 0;
  std::vector<int64_t> lists_[hstl::kMostLists];
  int lists_used_ = 0;
};

// ---- calling functions

// The functions of an algorithm, or an error where it does not compute this type.
template <class T>
const hstl::Arme<T>& arme(int algorithm) {
  const hstl::Operators<T>& operators = hstl::operators<T>();
  if (algorithm == hstl::kDirect) return operators.direct;
  bool known = false;
  for (int frames : hstl::kWinogradFrames) known = known || algorithm == frames;
  if (!known || operators.winograd.forward == nullptr)
    throw py::value_error("algorithm: expected 0 (direct) or, in float32, 2, 4 or 5 (frames of a Winograd tile), got " +
                          std::to_string(algorithm));
  return operators.winograd;
}

// One overload per function of operators.h.
// clang-format off
using namespace hstl;
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
void run(const GrowSupport& a) { supports().grow(a); }
void run(const WindowSupport& a) { supports().window(a); }
void run(const MaxPoolSupport& a) { supports().max_pool(a); }
// clang-format on

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// Reads the arguments and calls the function: without the GIL, unless it only says a number of bytes.
template <class Arguments>
PyObject* read_and_run(PyObject* const* arguments, Py_ssize_t count) {
  Reader<Arguments> reader(arguments, count);
  Arguments given = {};
  reader.read(given);
  if constexpr (std::is_void_v<decltype(run(given))>) {
    WithoutGil released;
    run(given);
  } else {
    return PyLong_FromSize_t(run(given));
  }
  Py_RETURN_NONE;
}

template <class F>
PyObject* with_python_errors(const F& f) {
  try {
    return f();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

template <class Arguments>
PyObject* call_untyped(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  return with_python_errors([&] { return read_and_run<Arguments>(arguments, count); });
}

// The type is told by the argument `itemsize`.
template <template <class> class Arguments>
PyObject* call_typed(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  static const Py_ssize_t at = [] {
    const std::vector<std::string>& names = names_of<Arguments<float>>();
    Py_ssize_t i = 0;
    while (names[size_t(i)] != "itemsize") ++i;
    return i;
  }();
  return with_python_errors([&]() -> PyObject* {
    long itemsize = at < count ? PyLong_AsLong(arguments[at]) : 4;
    if (itemsize == 4) return read_and_run<Arguments<float>>(arguments, count);
    if (itemsize == 8) return read_and_run<Arguments<double>>(arguments, count);
    if (PyErr_Occurred()) {  // reading the arguments says which is wrong
      PyErr_Clear();
      return read_and_run<Arguments<float>>(arguments, count);
    }
    throw py::value_error("itemsize: expected 4 (float32) or 8 (float64), got " + std::to_string(itemsize));
  });
}

// ---- the module

using Call = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

// Adds a function to the module, and the names of its arguments to `fields`.
template <class Arguments>
void define(py::module_& m, py::dict& fields, Call call) {
  static PyMethodDef definition = {Arguments::name(), reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)),
                                   METH_FASTCALL, nullptr};
  PyObject* function = PyCFunction_NewEx(&definition, nullptr, m.attr("__name__").ptr());
  if (!function) throw py::error_already_set();
  m.attr(Arguments::name()) = py::reinterpret_steal<py::object>(function);
  fields[Arguments::name()] = py::tuple(py::cast(names_of<Arguments>()));
}

template <template <class> class... Arguments>
void define_typed(py::module_& m, py::dict& fields) {
  (define<Arguments<float>>(m, fields, call_typed<Arguments>), ...);
}

template <class... Arguments>
void define_untyped(py::module_& m, py::dict& fields) {
  (define<Arguments>(m, fields, call_untyped<Arguments>), ...);
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
  using namespace py::literals;
  m.doc() = "Native CPU operators of hstl_fast; csrc/cpu/operators.h says what each computes.";
  py::dict fields;
  define_typed<ArmePrepackedSize, ArmePrepack, ArmeWorkspace, ArmeWgradWorkspace, ArmeForward, ArmeDgrad, ArmeWgrad,
               SilhouettesForward, LeakyBackward, FrameMaximum, FrameMaximumBackward, FrameMaximumBackwardAdd,
               AstpWorkspace, AstpForward, AstpBackward, FtaWorkspace, FtaForward, FtaBackward, MaxPool, Head>(m,
                                                                                                               fields);
  define_untyped<GrowSupport, WindowSupport, MaxPoolSupport>(m, fields);
  m.attr("fields") = fields;  // names of every function's arguments, in order
  m.def("instruction_sets", &instruction_sets, "Instruction sets that this machine runs, best first.");
  m.def("instruction_set", &hstl::instruction_set, "The instruction set in use.");
  m.def("use_instruction_set", &use_named_set, "name"_a);
  m.def("openmp", &hstl::built_with_openmp);
  m.def("build_info", &build_info);
  m.attr("interface") = hstl::kInterface;
}
