// What the native modules' bindings share. A function of operators.h is a plain struct of its arguments, with addresses
// as integers (0: absent), and an overload of `run` in namespace hstl. Arguments are passed by position only and read
// straight into the struct; what they mean is checked in Python.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "function.h"

namespace hstl {
namespace binding {

namespace py = pybind11;

// ---- names of arguments

inline std::vector<std::string> words_of(const std::string& text) {
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

  size_t bytes_of_lists() const {
    size_t sum = 0;
    for (const std::vector<int64_t>& list : lists_) sum += list.size() * sizeof(int64_t);
    return sum;
  }

  template <class... Fields>
  void operator()(const char*, Fields&... fields) {
    constexpr size_t count = sizeof...(Fields);
    static_assert(decltype(has_members<Arguments>(std::make_index_sequence<count>()))::value &&
                      !decltype(has_members<Arguments>(std::make_index_sequence<count + 1>()))::value,
                  "HSTL_FUNCTION names every field of its struct");
    static_assert((0 + ... + int(std::is_same_v<Fields, IntList>)) <= kMostLists,
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
  bool convert(PyObject* object, IntList& field) {
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
  std::vector<int64_t> lists_[kMostLists];
  int lists_used_ = 0;
};

// ---- calling functions

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

template <class... Arguments>
void define_untyped(py::module_& m, py::dict& fields) {
  (define<Arguments>(m, fields, call_untyped<Arguments>), ...);
}

}  // namespace binding
}  // namespace hstl
