// The Python module hstl_fast._cpu: the functions of operators.h, with addresses as integers (0: absent). Arguments are
// checked in Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "operators.h"

namespace py = pybind11;

namespace {

using Address = uintptr_t;
using Sizes = const std::vector<int64_t>&;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

hstl::Shape shape_of(Sizes seq_lens, Sizes split, int64_t width, int threads) {
  return {seq_lens.data(), int64_t(seq_lens.size()),
          split.data(),    int64_t(split.size()),
          width,           threads < 1 || !hstl::built_with_openmp() ? 1 : threads};
}

// Calls f with a value of the type that has this size.
template <class F>
auto with_type(int itemsize, const F& f) {
  if (itemsize == 4) return f(float());
  if (itemsize == 8) return f(double());
  throw py::value_error("itemsize: expected 4 (float32) or 8 (float64), got " + std::to_string(itemsize));
}

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

hstl::Support support_of(Address x, Address y) { return {at<uint8_t>(x), at<uint8_t>(y)}; }

size_t arme_packed_size(Sizes split, int64_t cin, int64_t cout, int algorithm, bool transposed, int itemsize) {
  hstl::Shape shape = shape_of({}, split, 1, 1);
  return with_type(itemsize, [&](auto type) {
    return arme<decltype(type)>(algorithm).prepacked_size(shape, cin, cout, algorithm, transposed);
  });
}

void arme_pack(Address packed, Address weights, Sizes split, int64_t cin, int64_t cout, int algorithm, bool transposed,
               int itemsize, int threads) {
  hstl::Shape shape = shape_of({}, split, 1, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    arme<T>(algorithm).prepack(at<void>(packed), at<T>(weights), shape, cin, cout, algorithm, transposed);
  });
}

size_t arme_workspace(Sizes seq_lens, Sizes split, int64_t w, int64_t cin, int64_t cout, int algorithm, int itemsize,
                      int threads, bool maximum) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  return with_type(itemsize, [&](auto type) {
    return arme<decltype(type)>(algorithm).workspace(shape, cin, cout, algorithm, maximum);
  });
}

size_t arme_weight_workspace(Sizes seq_lens, Sizes split, int64_t w, int64_t cin, int64_t cout, int algorithm,
                             int itemsize, int threads) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  return with_type(itemsize, [&](auto type) {
    return arme<decltype(type)>(algorithm).wgrad_workspace(shape, cin, cout, algorithm);
  });
}

void arme_forward(Address y, Address x, Address packed, Address workspace, Address x_support, Address y_support,
                  Sizes seq_lens, Sizes split, int64_t w, int64_t cin, int64_t cout, double negative_slope,
                  int algorithm, int itemsize, int threads, Address maximum, Address halved) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    arme<T>(algorithm).forward(at<T>(y), at<T>(maximum), at<T>(halved), at<T>(x), at<void>(packed), at<void>(workspace),
                               shape, support_of(x_support, y_support), cin, cout, T(negative_slope), algorithm);
  });
}

void silhouettes_forward(Address y, Address silhouettes, Address packed, Address workspace, Address support,
                         Sizes seq_lens, Sizes split, int64_t w, int64_t cout, double negative_slope, int itemsize,
                         int threads) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().silhouettes_forward(at<T>(y), at<uint8_t>(silhouettes), at<void>(packed), at<void>(workspace),
                                             shape, at<uint8_t>(support), cout, T(negative_slope));
  });
}

void arme_backward_data(Address gx, Address gy, Address y, Address packed, Address workspace, Address x_support,
                        Address y_support, Sizes seq_lens, Sizes split, int64_t w, int64_t cin, int64_t cout,
                        double negative_slope, int algorithm, int itemsize, int threads) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    arme<T>(algorithm).dgrad(at<T>(gx), at<T>(gy), at<T>(y), at<void>(packed), at<void>(workspace), shape,
                             support_of(x_support, y_support), cin, cout, T(negative_slope), algorithm);
  });
}

void arme_backward_weight(Address gw, Address x, Address gy, Address y, Address workspace, Address x_support,
                          Address y_support, Sizes seq_lens, Sizes split, int64_t w, int64_t cin, int64_t cout,
                          double negative_slope, int algorithm, int itemsize, int threads) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    arme<T>(algorithm).wgrad(at<T>(gw), at<T>(x), at<T>(gy), at<T>(y), at<void>(workspace), shape,
                             support_of(x_support, y_support), cin, cout, T(negative_slope), algorithm);
  });
}

void leaky_backward(Address gy, Address y, Address support, Sizes seq_lens, Sizes split, int64_t w, int64_t c,
                    double negative_slope, int itemsize, int threads) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().leaky_backward(at<T>(gy), at<T>(y), shape, at<uint8_t>(support), c, T(negative_slope));
  });
}

void grow_support(Address y, Address x, Sizes seq_lens, Sizes split, int64_t w, int threads) {
  hstl::supports().grow(at<uint8_t>(y), at<uint8_t>(x), shape_of(seq_lens, split, w, threads));
}

void window_support(Address y, Address x, Sizes seq_lens, int64_t h, int64_t w, int threads) {
  std::vector<int64_t> split = {h};
  hstl::supports().window(at<uint8_t>(y), at<uint8_t>(x), shape_of(seq_lens, split, w, threads));
}

void halve_support(Address y, Address x, int64_t frames, int64_t h, int64_t w) {
  hstl::supports().max_pool(at<uint8_t>(y), at<uint8_t>(x), frames, h, w);
}

void frame_maximum(Address maximum, Address index, Address x, Sizes seq_lens, int64_t h, int64_t w, int64_t c,
                   int itemsize, int threads, Address support) {
  std::vector<int64_t> split = {h};
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().frame_maximum(at<T>(maximum), at<int16_t>(index), at<T>(x), shape, at<uint8_t>(support), c);
  });
}

void frame_maximum_backward(Address gx, Address gmaximum, Address index, Sizes seq_lens, int64_t h, int64_t w,
                            int64_t c, int itemsize, int threads) {
  std::vector<int64_t> split = {h};
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().frame_maximum_backward(at<T>(gx), at<T>(gmaximum), at<int16_t>(index), shape, c);
  });
}

void frame_maximum_backward_add(Address gx, Address gmaximum, Address index, Sizes seq_lens, int64_t h, int64_t w,
                                int64_t c, int itemsize, int threads) {
  std::vector<int64_t> split = {h};
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().frame_maximum_backward_add(at<T>(gx), at<T>(gmaximum), at<int16_t>(index), shape, c);
  });
}

void halve(Address y, Address x, Address support, int64_t frames, int64_t h, int64_t w, int64_t c, int itemsize,
           int threads) {
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().max_pool(at<T>(y), at<T>(x), at<uint8_t>(support), frames, h, w, c, threads < 1 ? 1 : threads);
  });
}

hstl::Shape pooled_shape(int64_t n, Sizes split, int64_t w, int threads) {
  hstl::Shape shape = shape_of({}, split, w, threads);
  shape.sequences = n;
  return shape;
}

size_t astp_workspace(int64_t n, Sizes split, int64_t w, int64_t cin, int64_t cout, int itemsize, int threads) {
  hstl::Shape shape = pooled_shape(n, split, w, threads);
  return with_type(itemsize,
                   [&](auto type) { return hstl::operators<decltype(type)>().astp_workspace(shape, cin, cout); });
}

void astp_forward(Address pooled, Address maximum, Address proj, Address p, Address workspace, int64_t n, Sizes split,
                  int64_t w, int64_t cin, int64_t cout, int itemsize, int threads) {
  hstl::Shape shape = pooled_shape(n, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().astp_forward(at<T>(pooled), at<T>(maximum), at<T>(proj), at<T>(p), at<void>(workspace), shape,
                                      cin, cout);
  });
}

void astp_backward(Address gmaximum, Address gproj, Address gp, Address gpooled, Address pooled, Address maximum,
                   Address proj, Address p, Address workspace, int64_t n, Sizes split, int64_t w, int64_t cin,
                   int64_t cout, int itemsize, int threads) {
  hstl::Shape shape = pooled_shape(n, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().astp_backward(at<T>(gmaximum), at<T>(gproj), at<T>(gp), at<T>(gpooled), at<T>(pooled),
                                       at<T>(maximum), at<T>(proj), at<T>(p), at<void>(workspace), shape, cin, cout);
  });
}

void map_parts(Address y, Address x, Address w, Address mean, Address variance, Address weight, Address bias,
               double eps, int64_t n, int64_t parts, int64_t cin, int64_t cout, int itemsize, int threads) {
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::Norm<T> norm = {at<T>(mean), at<T>(variance), at<T>(weight), at<T>(bias), T(eps)};
    hstl::operators<T>().head(at<T>(y), at<T>(x), at<T>(w), norm, n, parts, cin, cout, threads < 1 ? 1 : threads);
  });
}

size_t fta_workspace(Sizes seq_lens, Sizes split, int64_t w, int64_t c, int itemsize, int threads) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  return with_type(itemsize, [&](auto type) { return hstl::operators<decltype(type)>().fta_workspace(shape, c); });
}

void fta_forward(Address y, Address z, Address x, Address weights, Address biases, Address workspace, Sizes seq_lens,
                 Sizes split, int64_t w, int64_t c, int itemsize, int threads, Address support) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().fta_forward(at<T>(y), at<T>(z), at<T>(x), at<T>(weights), at<T>(biases), at<void>(workspace),
                                     shape, at<uint8_t>(support), c);
  });
}

void fta_backward(Address gx, Address gweights, Address gbiases, Address gy, Address x, Address z, Address weights,
                  Address biases, Address workspace, Sizes seq_lens, Sizes split, int64_t w, int64_t c, int itemsize,
                  int threads, Address support) {
  hstl::Shape shape = shape_of(seq_lens, split, w, threads);
  with_type(itemsize, [&](auto type) {
    using T = decltype(type);
    hstl::operators<T>().fta_backward(at<T>(gx), at<T>(gweights), at<T>(gbiases), at<T>(gy), at<T>(x), at<T>(z),
                                      at<T>(weights), at<T>(biases), at<void>(workspace), shape, at<uint8_t>(support),
                                      c);
  });
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (int i = 0; hstl::instruction_set_name(i); ++i) names.push_back(hstl::instruction_set_name(i));
  return names;
}

void use_instruction_set(const std::string& name) {
  if (hstl::use_instruction_set(name.c_str())) return;
  std::string known;
  for (const std::string& each : instruction_sets()) known += (known.empty() ? "'" : ", '") + each + "'";
  throw py::value_error("instruction set: expected one that this machine runs (" + known + "), got '" + name + "'");
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
  const py::call_guard<py::gil_scoped_release> no_gil;
  m.doc() = "Native CPU operators of hstl_fast; csrc/cpu/operators.h says what each computes.";
  m.def("arme_packed_size", &arme_packed_size, "split"_a, "cin"_a, "cout"_a, "algorithm"_a, "transposed"_a,
        "itemsize"_a);
  m.def("arme_pack", &arme_pack, no_gil, "packed"_a, "weights"_a, "split"_a, "cin"_a, "cout"_a, "algorithm"_a,
        "transposed"_a, "itemsize"_a, "threads"_a);
  m.def("arme_workspace", &arme_workspace, "seq_lens"_a, "split"_a, "w"_a, "cin"_a, "cout"_a, "algorithm"_a,
        "itemsize"_a, "threads"_a, "maximum"_a = false);
  m.def("arme_weight_workspace", &arme_weight_workspace, "seq_lens"_a, "split"_a, "w"_a, "cin"_a, "cout"_a,
        "algorithm"_a, "itemsize"_a, "threads"_a);
  m.def("arme_forward", &arme_forward, no_gil, "y"_a, "x"_a, "packed"_a, "workspace"_a, "x_support"_a, "y_support"_a,
        "seq_lens"_a, "split"_a, "w"_a, "cin"_a, "cout"_a, "negative_slope"_a, "algorithm"_a, "itemsize"_a, "threads"_a,
        "maximum"_a = 0, "halved"_a = 0);
  m.def("silhouettes_forward", &silhouettes_forward, no_gil, "y"_a, "silhouettes"_a, "packed"_a, "workspace"_a,
        "support"_a, "seq_lens"_a, "split"_a, "w"_a, "cout"_a, "negative_slope"_a, "itemsize"_a, "threads"_a);
  m.def("arme_backward_data", &arme_backward_data, no_gil, "gx"_a, "gy"_a, "y"_a, "packed"_a, "workspace"_a,
        "x_support"_a, "y_support"_a, "seq_lens"_a, "split"_a, "w"_a, "cin"_a, "cout"_a, "negative_slope"_a,
        "algorithm"_a, "itemsize"_a, "threads"_a);
  m.def("arme_backward_weight", &arme_backward_weight, no_gil, "gw"_a, "x"_a, "gy"_a, "y"_a, "workspace"_a,
        "x_support"_a, "y_support"_a, "seq_lens"_a, "split"_a, "w"_a, "cin"_a, "cout"_a, "negative_slope"_a,
        "algorithm"_a, "itemsize"_a, "threads"_a);
  m.def("leaky_backward", &leaky_backward, no_gil, "gy"_a, "y"_a, "support"_a, "seq_lens"_a, "split"_a, "w"_a, "c"_a,
        "negative_slope"_a, "itemsize"_a, "threads"_a);
  m.def("grow_support", &grow_support, no_gil, "y"_a, "x"_a, "seq_lens"_a, "split"_a, "w"_a, "threads"_a);
  m.def("window_support", &window_support, no_gil, "y"_a, "x"_a, "seq_lens"_a, "h"_a, "w"_a, "threads"_a);
  m.def("halve_support", &halve_support, no_gil, "y"_a, "x"_a, "frames"_a, "h"_a, "w"_a);
  m.def("frame_maximum", &frame_maximum, no_gil, "maximum"_a, "index"_a, "x"_a, "seq_lens"_a, "h"_a, "w"_a, "c"_a,
        "itemsize"_a, "threads"_a, "support"_a = 0);
  m.def("frame_maximum_backward", &frame_maximum_backward, no_gil, "gx"_a, "gmaximum"_a, "index"_a, "seq_lens"_a, "h"_a,
        "w"_a, "c"_a, "itemsize"_a, "threads"_a);
  m.def("frame_maximum_backward_add", &frame_maximum_backward_add, no_gil, "gx"_a, "gmaximum"_a, "index"_a,
        "seq_lens"_a, "h"_a, "w"_a, "c"_a, "itemsize"_a, "threads"_a);
  m.def("halve", &halve, no_gil, "y"_a, "x"_a, "support"_a, "frames"_a, "h"_a, "w"_a, "c"_a, "itemsize"_a, "threads"_a);
  m.def("astp_workspace", &astp_workspace, "n"_a, "split"_a, "w"_a, "cin"_a, "cout"_a, "itemsize"_a, "threads"_a);
  m.def("astp_forward", &astp_forward, no_gil, "pooled"_a, "maximum"_a, "proj"_a, "p"_a, "workspace"_a, "n"_a,
        "split"_a, "w"_a, "cin"_a, "cout"_a, "itemsize"_a, "threads"_a);
  m.def("astp_backward", &astp_backward, no_gil, "gmaximum"_a, "gproj"_a, "gp"_a, "gpooled"_a, "pooled"_a, "maximum"_a,
        "proj"_a, "p"_a, "workspace"_a, "n"_a, "split"_a, "w"_a, "cin"_a, "cout"_a, "itemsize"_a, "threads"_a);
  m.def("map_parts", &map_parts, no_gil, "y"_a, "x"_a, "w"_a, "mean"_a, "variance"_a, "weight"_a, "bias"_a, "eps"_a,
        "n"_a, "parts"_a, "cin"_a, "cout"_a, "itemsize"_a, "threads"_a);
  m.def("fta_workspace", &fta_workspace, "seq_lens"_a, "split"_a, "w"_a, "c"_a, "itemsize"_a, "threads"_a);
  m.def("fta_forward", &fta_forward, no_gil, "y"_a, "z"_a, "x"_a, "weights"_a, "biases"_a, "workspace"_a, "seq_lens"_a,
        "split"_a, "w"_a, "c"_a, "itemsize"_a, "threads"_a, "support"_a = 0);
  m.def("fta_backward", &fta_backward, no_gil, "gx"_a, "gweights"_a, "gbiases"_a, "gy"_a, "x"_a, "z"_a, "weights"_a,
        "biases"_a, "workspace"_a, "seq_lens"_a, "split"_a, "w"_a, "c"_a, "itemsize"_a, "threads"_a, "support"_a = 0);
  m.def("instruction_sets", &instruction_sets, "Instruction sets that this machine runs, best first.");
  m.def("instruction_set", &hstl::instruction_set, "The instruction set in use.");
  m.def("use_instruction_set", &use_instruction_set, "name"_a);
  m.def("openmp", &hstl::built_with_openmp);
  m.def("build_info", &build_info);
  m.attr("interface") = hstl::kInterface;
  const char* wanted = std::getenv("HSTL_FAST_CPU_ISA");
  if (wanted != nullptr && *wanted != 0) {
    try {
      use_instruction_set(wanted);
    } catch (const py::value_error& error) {
      throw py::import_error(std::string("HSTL_FAST_CPU_ISA: ") + error.what());
    }
  }
}
