// Every launch function of csrc/cpu/operators.h against plain loops in double, on small odd shapes, for the instruction
// sets named as arguments, or all that this machine runs. Prints the worst error of each; the exit status is 1 if one
// is beyond its bound, if a buffer is overrun or left unwritten, or if a second run of the same threads differs in a
// bit.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "../../../csrc/cpu/operators.h"
#include "naive.h"

namespace {

using naive::Case;
using naive::Map;
using naive::Mask;
using naive::Sizes;

// ---- memory

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kGuard = 0;  // the sanitizer's own lie around every allocation
#else
constexpr size_t kGuard = 64;
#endif
constexpr unsigned char kGuardByte = 0x5a;

bool failed = false;

void fail(const std::string& what) {
  static std::set<std::string> said;
  if (said.insert(what).second) std::printf("FAILED %s\n", what.c_str());
  failed = true;
}

// Exactly `size` elements between guard bytes, every byte 0xff at first: NaN, or -1.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t size) : size_(size), whole_(new unsigned char[size * sizeof(T) + 2 * kGuard]) {
    std::memset(whole_.get(), kGuardByte, size * sizeof(T) + 2 * kGuard);
    std::memset(data(), 0xff, size * sizeof(T));
  }
  explicit Buffer(const Map& values) : Buffer(values.size()) {
    for (size_t i = 0; i < size_; ++i) data()[i] = T(values[i]);
  }
  Buffer(Buffer&&) = default;
  ~Buffer() {
    bool intact = true;
    for (size_t i = 0; whole_ && i < kGuard; ++i)
      intact = intact && whole_[i] == kGuardByte && whole_[kGuard + size_ * sizeof(T) + i] == kGuardByte;
    if (!intact) fail("wrote past a buffer");
  }

  T* data() { return reinterpret_cast<T*>(whole_.get() + kGuard); }
  size_t size() const { return size_; }

 private:
  size_t size_;
  std::unique_ptr<unsigned char[]> whole_;
};

// ---- inputs

// Uniform in -1..1, exact in float.
struct Random {
  uint64_t state;

  double operator()() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return double(int64_t(state >> 40) - (1 << 23)) / (1 << 23);
  }
  Map map(int64_t size, double scale = 1, double mean = 0) {
    Map values(size);
    for (double& value : values) value = double(float(mean + scale * (*this)()));
    return values;
  }
};

const Case kCases[] = {
    {{1, 2, 3, 4, 5, 7}, {3, 1, 1}, 7, 3, 5},
    {{2}, {5}, 1, 1, 1},
    {{1}, {1}, 3, 17, 40},
    {{9, 4}, {7, 3}, 13, 20, 18},
    {{6}, {11}, 10, 1, 32},
    {{3, 7}, {1, 1, 1, 4}, 11, 32, 48},
    {{4}, {6, 2}, 44, 5, 3},
};

hstl::IntList list(const Sizes& sizes) { return {sizes.data(), int64_t(sizes.size())}; }

// Sizes of a case, for a function's struct, whose other fields are set one by one.
template <class Arguments>
Arguments shaped(const Case& c, int threads) {
  Arguments arguments = {};
  arguments.seq_lens = list(c.seq_lens);
  arguments.split = list(c.split);
  arguments.w = c.w;
  arguments.threads = threads;
  return arguments;
}

// ---- judging

template <class T>
const char* type_name() {
  return sizeof(T) == 4 ? "float32" : "float64";
}

// Largest difference over the largest value; infinite for NaN and for anything but zeros where zeros are due.
template <class T>
double error_of(Buffer<T>& got, const Map& expected) {
  double worst = 0, largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    double difference = std::fabs(double(got.data()[i]) - expected[i]);
    if (!(difference <= worst)) worst = std::isnan(difference) ? INFINITY : difference;
    largest = std::max(largest, std::fabs(expected[i]));
  }
  return worst == 0 ? 0 : worst / largest;
}

// The worst error under each name, and its bound.
struct Report {
  struct Line {
    double error, bound;
    std::string where;
  };
  std::map<std::string, Line> lines;

  void add(const std::string& name, double error, double bound, const std::string& where) {
    Line& line = lines.try_emplace(name, Line{0, bound, where}).first->second;
    if (error >= line.error) line = {error, bound, where};
  }

  void print() const {
    for (const auto& [name, line] : lines) {
      std::printf("%-48s %9.2e\n", name.c_str(), line.error);
      if (!(line.error <= line.bound))
        fail(name + ": beyond " + std::to_string(line.bound * 1e6) + "e-6 at " + line.where);
    }
  }
};

struct Expected {
  std::string name;
  Map values;
  double bound;
};

template <class T>
using Outputs = std::vector<Buffer<T>>;

// `run(threads)` twice with three threads and once with one.
template <class T, class Run>
void judge(Report& report, const std::string& name, const std::string& where, const std::vector<Expected>& expected,
           const Run& run) {
  Outputs<T> first = run(3), second = run(3), alone = run(1);
  for (size_t i = 0; i < expected.size(); ++i) {
    std::string each = name + " " + expected[i].name;
    for (Outputs<T>* outputs : {&first, &alone})
      report.add(each, error_of((*outputs)[i], expected[i].values), expected[i].bound, where);
    if (std::memcmp(first[i].data(), second[i].data(), first[i].size() * sizeof(T)))
      fail(each + ": two runs differ at " + where);
  }
}

std::string text_of(const Case& c) {
  auto list = [](const Sizes& sizes) {
    std::string text;
    for (int64_t size : sizes) text += (text.empty() ? "" : ",") + std::to_string(size);
    return "[" + text + "]";
  };
  return "frames " + list(c.seq_lens) + " rows " + list(c.split) + " columns " + std::to_string(c.w) + " channels " +
         std::to_string(c.cin) + "->" + std::to_string(c.cout);
}

// ---- supports

Mask mask_of(const Case& c, const std::string& kind) {
  Mask mask(c.positions(), 0);
  Random random = {7};
  if (kind == "corner") mask.back() = 1;
  if (kind == "sparse")
    for (uint8_t& each : mask) each = random() > 0.7;
  if (kind == "left") {  // half of the columns, and blank frames
    for (int64_t i = 0; i < c.positions(); ++i) mask[i] = i % c.w < (c.w + 1) / 2 && i / (c.w * c.h()) % 4 != 2;
  }
  return mask;
}

void test_supports(const Case& c) {
  for (const char* kind : {"corner", "sparse", "left"})
    for (int threads : {1, 3}) {
      Mask x = mask_of(c, kind), grown = naive::grown(c, x), windows = naive::windows_of(c, x);
      Mask half = naive::max_pooled(x, c.frames(), c.h(), c.w);
      Buffer<uint8_t> y(grown.size()), windowed(windows.size()), pooled(half.size());
      hstl::supports().grow({y.data(), x.data(), list(c.seq_lens), list(c.split), c.w, threads});
      hstl::supports().window({windowed.data(), x.data(), list(c.seq_lens), c.h(), c.w, threads});
      hstl::supports().max_pool({pooled.data(), x.data(), c.frames(), c.h(), c.w});
      if (std::memcmp(y.data(), grown.data(), grown.size())) fail("grow: " + text_of(c));
      if (!windows.empty() && std::memcmp(windowed.data(), windows.data(), windows.size()))
        fail("window: " + text_of(c));
      if (!half.empty() && std::memcmp(pooled.data(), half.data(), half.size()))
        fail("max_pool of a support: " + text_of(c));
    }
}

// The 2x2 maximum of a map, and of one that is 0 outside a support.
template <class T>
void test_max_pool(const Case& c) {
  Random random = {3};
  Mask inside = mask_of(c, "left"), half = naive::max_pooled(inside, c.frames(), c.h(), c.w);
  Map x = naive::masked(random.map(c.positions() * c.cin), inside, c.cin);
  Map expected = naive::max_pool(c, x);
  for (int threads : {1, 3})
    for (const uint8_t* support : {static_cast<const uint8_t*>(nullptr), static_cast<const uint8_t*>(half.data())}) {
      Buffer<T> given(x), y(expected.size());
      hstl::operators<T>().max_pool(
          {y.data(), given.data(), support, c.frames(), c.h(), c.w, c.cin, sizeof(T), threads});
      if (error_of(y, expected) > 0) fail("max_pool: " + text_of(c));
    }
}

// ---- arme

struct ArmeTrial {
  Case c;
  double slope;
  Mask x_support, y_support;
  Map x, weights, gy, y;  // y: the output in double, whose signs the gradients read
  naive::ArmeGradients gradients;
};

ArmeTrial arme_trial(const Case& c, const std::string& kind, double slope) {
  Random random = {uint64_t(c.positions())};
  ArmeTrial trial = {c, slope, {}, {}, {}, {}, {}, {}, {}};
  if (kind != "everywhere") {
    trial.x_support = mask_of(c, kind);
    trial.y_support = naive::grown(c, trial.x_support);
  }
  trial.x = random.map(c.positions() * c.cin);
  trial.weights = random.map(c.m() * c.cout * c.cin * 27, std::sqrt(2.0 / double(27 * c.cin)));
  trial.gy = random.map(c.positions() * c.cout);
  Map x = naive::masked(trial.x, trial.x_support, c.cin), gy = naive::masked(trial.gy, trial.y_support, c.cout);
  trial.y = naive::arme_forward(c, x, trial.weights, slope);
  trial.gradients = naive::arme_backward(c, x, trial.weights, trial.y, gy, slope);
  trial.gradients.x = naive::masked(trial.gradients.x, trial.x_support, c.cin);
  return trial;
}

// The map as an operator may find it: anything outside the support.
template <class T>
Buffer<T> with_rubbish(const Map& map, const Mask& support, int64_t channels) {
  Buffer<T> buffer(map);
  for (size_t i = 0; i < map.size(); ++i)
    if (!naive::inside(support, int64_t(i) / channels)) buffer.data()[i] = T(NAN);
  return buffer;
}

// The maxima that forward(y, maximum) finds are those of the map `y`, whether it writes that or not.
template <class T, class Forward>
void expect_maxima(const Case& c, Buffer<T>& y, const Forward& forward) {
  Map map(y.size());
  for (size_t i = 0; i < map.size(); ++i) map[i] = double(y.data()[i]);
  Case of_outputs = c;
  of_outputs.cin = c.cout;
  Map expected = naive::frame_maximum(of_outputs, map).values;
  Buffer<T> again(y.size()), beside(expected.size()), alone(expected.size());
  forward(again.data(), beside.data(), nullptr);
  forward(nullptr, alone.data(), nullptr);
  if (error_of(again, map) > 0) fail("arme forward with a maximum: another map at " + text_of(c));
  if (error_of(beside, expected) > 0) fail("arme forward: maximum at " + text_of(c));
  if (error_of(alone, expected) > 0) fail("arme forward: maximum without the map at " + text_of(c));
  bool even = c.w % 2 == 0;
  for (int64_t rows : c.split) even = even && rows % 2 == 0;
  if (!even) return;
  Buffer<T> aligned(y.size()), max_pooled(y.size() / 4), max_pooled_alone(y.size() / 4);
  forward(aligned.data(), nullptr, max_pooled.data());
  forward(nullptr, alone.data(), max_pooled_alone.data());
  for (size_t i = 0; i < map.size(); ++i) map[i] = double(aligned.data()[i]);
  expected = naive::max_pool(of_outputs, map);
  if (error_of(max_pooled, expected) > 0) fail("arme forward: 2x2 maximum at " + text_of(c));
  if (error_of(max_pooled_alone, expected) > 0) fail("arme forward: 2x2 maximum without the map at " + text_of(c));
}

// The arguments that all functions of a convolution have in common.
template <template <class> class Arguments, class T>
Arguments<T> arme_arguments(const ArmeTrial& trial, int algorithm, int threads, void* workspace) {
  Arguments<T> arguments = shaped<Arguments<T>>(trial.c, threads);
  arguments.c_in = trial.c.cin;
  arguments.c_out = trial.c.cout;
  arguments.algorithm = algorithm;
  arguments.negative_slope = T(trial.slope);
  arguments.workspace = workspace;
  arguments.x_support = trial.x_support.empty() ? nullptr : trial.x_support.data();
  arguments.y_support = trial.y_support.empty() ? nullptr : trial.y_support.data();
  return arguments;
}

using Bytes = Buffer<unsigned char>;

template <class T>
Bytes prepacked_weights(const hstl::Arme<T>& arme, const Case& c, const T* weights, int algorithm, bool transposed,
                        int threads) {
  Bytes prepacked(arme.prepacked_size({list(c.split), c.cin, c.cout, algorithm, transposed, sizeof(T)}));
  arme.prepack({prepacked.data(), weights, list(c.split), c.cin, c.cout, algorithm, transposed, sizeof(T), threads});
  return prepacked;
}

template <class T>
Bytes arme_workspace(const hstl::Arme<T>& arme, const Case& c, int algorithm, int threads, bool maximum) {
  return Bytes(
      arme.workspace({list(c.seq_lens), list(c.split), c.w, c.cin, c.cout, algorithm, sizeof(T), threads, maximum}));
}

template <class T>
Outputs<T> run_arme(const hstl::Arme<T>& arme, int algorithm, const ArmeTrial& trial, int threads) {
  const Case& c = trial.c;
  Buffer<T> w(trial.weights), x = with_rubbish<T>(trial.x, trial.x_support, c.cin);
  Buffer<T> grad = with_rubbish<T>(trial.gy, trial.y_support, c.cout);
  Buffer<T> sign = with_rubbish<T>(trial.y, trial.y_support, c.cout);
  const T* signs = trial.slope == 1 ? nullptr : sign.data();
  Bytes prepacked = prepacked_weights(arme, c, w.data(), algorithm, false, threads);
  Bytes transposed = prepacked_weights(arme, c, w.data(), algorithm, true, threads);
  Bytes workspace = arme_workspace(arme, c, algorithm, threads, false);
  Bytes wgrad_workspace(
      arme.wgrad_workspace({list(c.seq_lens), list(c.split), c.w, c.cin, c.cout, algorithm, sizeof(T), threads}));
  Outputs<T> out;
  out.emplace_back(trial.y.size());
  out.emplace_back(trial.x.size());
  out.emplace_back(trial.weights.size());

  auto forward = arme_arguments<hstl::ArmeForward, T>(trial, algorithm, threads, workspace.data());
  forward.y = out[0].data();
  forward.x = x.data();
  forward.prepacked = prepacked.data();
  arme.forward(forward);
  if (algorithm != hstl::kDirect) {
    expect_maxima(c, out[0], [&](T* y, T* maximum, T* max_pooled) {
      Bytes more = arme_workspace(arme, c, algorithm, threads, true);
      auto with_maxima = forward;
      with_maxima.y = y;
      with_maxima.maximum = maximum;
      with_maxima.max_pooled = max_pooled;
      with_maxima.workspace = more.data();
      arme.forward(with_maxima);
    });
  }

  auto dgrad = arme_arguments<hstl::ArmeDgrad, T>(trial, algorithm, threads, workspace.data());
  dgrad.gx = out[1].data();
  dgrad.grad = grad.data();
  dgrad.y = signs;
  dgrad.prepacked = transposed.data();
  arme.dgrad(dgrad);

  auto wgrad = arme_arguments<hstl::ArmeWgrad, T>(trial, algorithm, threads, wgrad_workspace.data());
  wgrad.gw = out[2].data();
  wgrad.x = x.data();
  wgrad.grad = grad.data();
  wgrad.y = signs;
  arme.wgrad(wgrad);
  return out;
}

// Outside the supports nothing but zeros may stand: rounding noise would not show in the errors.
template <class T>
void expect_zeros(Buffer<T>& map, const Mask& support, int64_t channels, const std::string& what) {
  for (size_t i = 0; i < map.size(); ++i)
    if (!naive::inside(support, int64_t(i) / channels) && map.data()[i] != 0) return fail(what);
}

template <class T>
void test_algorithm(Report& report, const std::string& name, const hstl::Arme<T>& arme, int algorithm,
                    const ArmeTrial& trial, const std::string& where) {
  double bound = algorithm != hstl::kDirect ? 1e-5 : sizeof(T) == 4 ? 2e-6 : 1e-13;
  std::vector<Expected> expected = {
      {"y", trial.y, bound}, {"gx", trial.gradients.x, bound}, {"gw", trial.gradients.weights, bound}};
  judge<T>(report, name, where, expected, [&](int threads) {
    Outputs<T> out = run_arme(arme, algorithm, trial, threads);
    expect_zeros(out[0], trial.y_support, trial.c.cout, name + " y: not zero outside the support at " + where);
    expect_zeros(out[1], trial.x_support, trial.c.cin, name + " gx: not zero outside the support at " + where);
    return out;
  });
}

template <class T>
void test_leaky_backward(const ArmeTrial& trial, const std::string& where) {
  const Case& c = trial.c;
  const uint8_t* support = trial.y_support.empty() ? nullptr : trial.y_support.data();
  for (int threads : {1, 3}) {
    Buffer<T> gy = with_rubbish<T>(trial.gy, trial.y_support, c.cout);
    Buffer<T> y = with_rubbish<T>(trial.y, trial.y_support, c.cout);
    hstl::operators<T>().leaky_backward({gy.data(), y.data(), support, list(c.seq_lens), list(c.split), c.w, c.cout,
                                         T(trial.slope), sizeof(T), threads});
    for (size_t i = 0; i < gy.size(); ++i) {
      bool inside = naive::inside(trial.y_support, int64_t(i) / c.cout);
      T expected = T(trial.gy[i]) * (trial.y[i] > 0 ? T(1) : T(trial.slope)), got = gy.data()[i];
      if (inside ? got != expected : !std::isnan(got)) return fail("leaky_backward at " + where);
    }
  }
}

template <class T>
void test_arme(Report& report, const ArmeTrial& trial, const std::string& where) {
  std::string name = std::string(hstl::instruction_set()) + " " + type_name<T>() + " arme ";
  test_leaky_backward<T>(trial, where);
  test_algorithm(report, name + "direct", hstl::operators<T>().direct, hstl::kDirect, trial, where);
  if (sizeof(T) == 8) return;
  for (int frames : hstl::kWinogradFrames)
    test_algorithm(report, name + "winograd " + std::to_string(frames), hstl::operators<T>().winograd, frames, trial,
                   where);
}

// ---- silhouettes

// Bytes give what the direct convolution gives of them over 255, inside their own support.
template <class T>
void test_silhouettes(Case c) {
  c.cin = 1;
  Random random = {17};
  Mask inside = mask_of(c, "sparse"), around = naive::grown(c, inside);
  Buffer<uint8_t> bytes(size_t(c.positions()));
  Map x(c.positions());
  for (int64_t i = 0; i < c.positions(); ++i) {
    bytes.data()[i] = inside[i] ? uint8_t(1 + 127 * (random() + 1)) : 0;
    x[i] = double(T(bytes.data()[i]) / T(255));
  }
  Buffer<T> w(random.map(c.m() * c.cout * 27)), given(x), expected(c.positions() * c.cout), y(expected.size());
  const hstl::Operators<T>& operators = hstl::operators<T>();
  for (int threads : {1, 3}) {
    Bytes prepacked = prepacked_weights(operators.direct, c, w.data(), hstl::kDirect, false, threads);
    Bytes workspace = arme_workspace(operators.direct, c, hstl::kDirect, threads, false);
    auto forward = shaped<hstl::ArmeForward<T>>(c, threads);
    forward.y = expected.data();
    forward.x = given.data();
    forward.prepacked = prepacked.data();
    forward.workspace = workspace.data();
    forward.x_support = inside.data();
    forward.y_support = around.data();
    forward.c_in = 1;
    forward.c_out = c.cout;
    forward.negative_slope = T(0.01);
    operators.direct.forward(forward);
    operators.silhouettes_forward({y.data(), bytes.data(), prepacked.data(), workspace.data(), around.data(),
                                   list(c.seq_lens), list(c.split), c.w, c.cout, T(0.01), sizeof(T), threads, nullptr,
                                   false});
    if (std::memcmp(y.data(), expected.data(), y.size() * sizeof(T))) fail("silhouettes: " + text_of(c));
  }
}

// ---- astp

struct AstpTrial {
  Case c;
  Map x, proj, p, gpooled;
  naive::Maximum maximum;
  Map pooled;
  naive::AstpGradients gradients;
  Map gx;  // of the maximum over frames alone, for gpooled = 1, 2, 3, ...
};

AstpTrial astp_trial(Case c, bool projects) {
  Random random = {uint64_t(c.positions()) + 1};
  if (!projects) c.cout = c.cin;
  AstpTrial trial = {c, {}, {}, {}, {}, {}, {}, {}, {}};
  trial.x = random.map(c.positions() * c.cin);
  if (projects) trial.proj = random.map(c.cout * c.cin, 1 / std::sqrt(double(c.cin)));
  trial.p = random.map(c.m(), 0.3, 6.5);
  trial.gpooled = random.map(c.n() * c.m() * c.cout);
  trial.maximum = naive::frame_maximum(c, trial.x);
  trial.pooled = naive::astp_forward(c, trial.maximum.values, trial.proj, trial.p);
  trial.gradients = naive::astp_backward(c, trial.maximum.values, trial.proj, trial.p, trial.gpooled);
  trial.gx = naive::frame_maximum_backward(c, trial.maximum.values, trial.maximum.frames);
  return trial;
}

template <class T>
void test_frame_maximum(const AstpTrial& trial, const std::string& where) {
  const Case& c = trial.c;
  for (int threads : {1, 3}) {
    Buffer<T> x(trial.x), maximum(trial.maximum.values.size()), gx(trial.gx.size());
    Buffer<int16_t> index(maximum.size());
    const hstl::Operators<T>& operators = hstl::operators<T>();
    const hstl::IntList lens = list(c.seq_lens);
    auto maxima = [&](T* to, int16_t* index) -> hstl::FrameMaximum<T> {
      return {to, index, x.data(), lens, c.h(), c.w, c.cin, sizeof(T), threads, nullptr};
    };
    operators.frame_maximum(maxima(maximum.data(), index.data()));
    Buffer<T> unindexed(maximum.size());
    operators.frame_maximum(maxima(unindexed.data(), nullptr));
    if (error_of(unindexed, trial.maximum.values) > 0) fail("frame_maximum without index at " + where);
    operators.frame_maximum_backward(
        {gx.data(), maximum.data(), index.data(), lens, c.h(), c.w, c.cin, sizeof(T), threads});
    bool first = true;
    for (size_t i = 0; i < index.size(); ++i) first = first && index.data()[i] == trial.maximum.frames[i];
    if (!first || error_of(maximum, trial.maximum.values) > 0) fail("frame_maximum at " + where);
    if (error_of(gx, trial.gx) > 0) fail("frame_maximum_backward at " + where);
    operators.frame_maximum_backward_add(
        {gx.data(), maximum.data(), index.data(), lens, c.h(), c.w, c.cin, sizeof(T), threads});
    for (size_t i = 0; i < gx.size(); ++i) gx.data()[i] /= 2;
    if (error_of(gx, trial.gx) > 0) fail("frame_maximum_backward_add at " + where);
  }
}

template <class T>
void test_astp(Report& report, const AstpTrial& trial, const std::string& where) {
  const Case& c = trial.c;
  const hstl::Operators<T>& operators = hstl::operators<T>();
  test_frame_maximum<T>(trial, where);
  double bound = sizeof(T) == 4 ? 4e-6 : 1e-12;
  std::vector<Expected> expected = {{"pooled", trial.pooled, bound},
                                    {"gmaximum", trial.gradients.maximum, bound},
                                    {"gp", trial.gradients.p, bound},
                                    {"gproj", trial.gradients.proj, bound}};
  std::string name = std::string(hstl::instruction_set()) + " " + type_name<T>() + " astp";
  judge<T>(report, name, where, expected, [&](int threads) {
    Buffer<T> x(trial.x), maximum(trial.maximum.values), proj(trial.proj), p(trial.p), gpooled(trial.gpooled);
    Bytes workspace(operators.astp_workspace({c.n(), list(c.split), c.w, c.cin, c.cout, sizeof(T), threads}));
    Outputs<T> out;
    for (const Expected& each : expected) out.emplace_back(each.values.size());
    T* projection = trial.proj.empty() ? nullptr : proj.data();
    T* gproj = trial.proj.empty() ? nullptr : out[3].data();
    operators.astp_forward({out[0].data(), x.data(), projection, p.data(), workspace.data(), nullptr, list(c.seq_lens),
                            list(c.split), c.w, c.cin, c.cout, sizeof(T), threads});
    operators.astp_backward({out[1].data(), gproj, out[2].data(), gpooled.data(), out[0].data(), maximum.data(),
                             projection, p.data(), workspace.data(), c.n(), list(c.split), c.w, c.cin, c.cout,
                             sizeof(T), threads});
    return out;
  });
}

// ---- head

template <class T>
void test_head(Report& report, const Case& c) {
  constexpr double eps = 1e-3;
  const int64_t n = c.n() + 3, parts = c.m();
  Random random = {11};
  Map x = random.map(n * parts * c.cin), w = random.map(parts * c.cin * c.cout, 1 / std::sqrt(double(c.cin)));
  Map norm = random.map(4 * c.cout);
  for (int64_t o = c.cout; o < 2 * c.cout; ++o) norm[o] = std::fabs(norm[o]) + 0.5;
  std::vector<Expected> expected = {
      {"y", naive::head(x, w, norm, eps, parts, c.cin, c.cout), sizeof(T) == 4 ? 2e-6 : 1e-14}};
  std::string name = std::string(hstl::instruction_set()) + " " + type_name<T>() + " head";
  judge<T>(report, name, text_of(c), expected, [&](int threads) {
    Buffer<T> given(x), weights(w), learned(norm);
    const T* of = learned.data();
    Outputs<T> out;
    out.emplace_back(n * parts * c.cout);
    hstl::operators<T>().head({out[0].data(), given.data(), weights.data(), of, of + c.cout, of + 2 * c.cout,
                               of + 3 * c.cout, T(eps), n, parts, c.cin, c.cout, sizeof(T), threads});
    return out;
  });
}

// ---- distances of embeddings

// Rows of a larger gallery in reverse order; the first is equal to the first probe.
template <class T>
void test_distances(Report& report, const Case& c, bool cosine) {
  const int64_t n = c.w + 3, k = 3 * c.cout, parts = c.m(), channels = c.cin;
  Random random = {13};
  const double mean = cosine ? 0 : 2;  // the cosine of single positive numbers is 1
  Map probe = random.map(n * parts * channels, 1, mean), gallery = random.map((k + 2) * parts * channels, 1, mean);
  Map centre = random.map(parts * channels, 0.1, mean);
  Sizes order, rows, all;
  for (int64_t j = 0; j < k + 2; ++j) all.push_back(j);
  for (int64_t j = 0; j < k; ++j) order.push_back(k + 1 - j);
  std::copy_n(probe.begin(), parts * channels, gallery.begin() + order[0] * parts * channels);
  Map distances = naive::part_distances(probe, gallery, order, parts, channels, cosine);
  for (int64_t i = 0; i < n * k; ++i) rows.push_back(i / k);
  Sizes others;
  for (int64_t i = 0; i < n * k; ++i) others.push_back(order[i % k]);
  std::string name = std::string(hstl::instruction_set()) + " " + type_name<T>() + (cosine ? " cosine" : " euclidean");
  judge<T>(report, name, text_of(c), {{"distances", distances, sizeof(T) == 4 ? 4e-6 : 1e-14}}, [&](int threads) {
    const hstl::Operators<T>& operators = hstl::operators<T>();
    Buffer<T> a(probe), b(gallery), middle(centre);
    Bytes workspace(operators.part_distances_workspace({n, parts, channels, sizeof(T), threads}));
    Outputs<T> out;
    out.emplace_back(n * k);
    operators.part_distances({out[0].data(), a.data(), b.data(), order.data(), middle.data(), workspace.data(), n, k,
                              parts, channels, cosine, sizeof(T), threads});
    if (!cosine && out[0].data()[0] != 0) fail(name + ": equal embeddings are not at distance 0");
    Buffer<double> pairs(n * k);
    operators.pair_distances({pairs.data(), a.data(), b.data(), rows.data(), others.data(), n * k, parts, channels,
                              cosine, sizeof(T), threads});
    report.add(name + " pairs", error_of(pairs, distances), 1e-13, text_of(c));
    if (cosine) return out;
    const Map by_rows = naive::part_distances(probe, gallery, all, parts, channels, false);
    Buffer<T> differences(n * (k + 2));
    operators.difference_distances(
        {differences.data(), a.data(), b.data(), n, k + 2, parts, channels, sizeof(T), threads});
    report.add(name + " differences", error_of(differences, by_rows), sizeof(T) == 4 ? 4e-6 : 1e-14, text_of(c));
    return out;
  });
}

// ---- fta

struct FtaTrial {
  Case c;
  Map x, weights, biases, gy, y;
  naive::FtaGradients gradients;
};

FtaTrial fta_trial(const Case& c) {
  Random random = {uint64_t(c.positions()) + 2};
  FtaTrial trial = {c, {}, {}, {}, {}, {}, {}};
  trial.x = random.map(c.positions() * c.cin);
  trial.weights = random.map(c.m() * 2 * c.cin * c.cin, 1 / std::sqrt(double(c.cin)));
  trial.biases = random.map(c.m() * 2 * c.cin);
  trial.gy = random.map(c.windows() * c.h() * c.w * c.cin);
  trial.y = naive::fta_forward(c, trial.x, trial.weights, trial.biases);
  trial.gradients = naive::fta_backward(c, trial.x, trial.weights, trial.biases, trial.gy);
  return trial;
}

template <class T>
void test_fta(Report& report, const FtaTrial& trial, const std::string& where) {
  const Case& c = trial.c;
  const hstl::Operators<T>& operators = hstl::operators<T>();
  double bound = sizeof(T) == 4 ? 4e-6 : 1e-12;
  std::vector<Expected> expected = {{"y", trial.y, bound},
                                    {"gx", trial.gradients.x, bound},
                                    {"gw", trial.gradients.weights, bound},
                                    {"gbiases", trial.gradients.biases, bound}};
  std::string name = std::string(hstl::instruction_set()) + " " + type_name<T>() + " fta";
  judge<T>(report, name, where, expected, [&](int threads) {
    Buffer<T> x(trial.x), w(trial.weights), biases(trial.biases), gy(trial.gy), z(c.windows() * c.m() * c.cin);
    Bytes workspace(operators.fta_workspace({list(c.seq_lens), list(c.split), c.w, c.cin, sizeof(T), threads}));
    Outputs<T> out;
    for (const Expected& each : expected) out.emplace_back(each.values.size());
    operators.fta_forward({out[0].data(), z.data(), x.data(), w.data(), biases.data(), workspace.data(),
                           list(c.seq_lens), list(c.split), c.w, c.cin, sizeof(T), threads, nullptr, nullptr});
    operators.fta_backward({out[1].data(), out[2].data(), out[3].data(), gy.data(), x.data(), z.data(), w.data(),
                            biases.data(), workspace.data(), list(c.seq_lens), list(c.split), c.w, c.cin, sizeof(T),
                            threads, nullptr});
    return out;
  });
}

// ---- checksums

// Memory of exactly so many bytes, at any address, by any number of threads; and one changed bit.
void test_checksum(const Case& c) {
  Sizes sizes, addresses;
  for (int64_t size : {c.positions() * c.cin, int64_t(1), int64_t(4096), c.positions() * c.cin * 131 + 3})
    sizes.push_back(size);
  std::vector<Buffer<unsigned char>> pieces;
  Random random = {uint64_t(c.positions()) + 3};
  for (size_t i = 0; i < sizes.size(); ++i) {
    pieces.emplace_back(size_t(sizes[i]) + i);
    for (size_t k = 0; k < pieces[i].size(); ++k) pieces[i].data()[k] = (unsigned char)(128 + 127 * random());
    addresses.push_back(int64_t(pieces[i].data() + i));
  }
  std::vector<uint64_t> expected;
  for (int threads : {1, 2, 3, 2}) {
    Buffer<uint64_t> digests(2 * sizes.size());
    hstl::checksum({digests.data(), list(addresses), list(sizes), threads});
    std::vector<uint64_t> got(digests.data(), digests.data() + digests.size());
    if (expected.empty()) expected = got;
    if (got != expected) fail(std::string(hstl::instruction_set()) + " checksum depends on threads");
  }
  for (size_t i = 0; i < sizes.size(); ++i) *(pieces[i].data() + i + sizes[i] - 1) ^= 1;
  Buffer<uint64_t> digests(2 * sizes.size());
  hstl::checksum({digests.data(), list(addresses), list(sizes), 2});
  for (size_t i = 0; i < expected.size(); ++i)
    if (digests.data()[i] == expected[i]) fail(std::string(hstl::instruction_set()) + " checksum misses a bit");
}

// ----

using Names = std::vector<std::string>;

Names all_instruction_sets() {
  Names names;
  for (int i = 0; const char* name = hstl::instruction_set_name(i); ++i) names.push_back(name);
  return names;
}

template <class Test>
void for_each(const Names& instruction_sets, const Test& test) {
  for (const std::string& name : instruction_sets)
    hstl::use_instruction_set(name.c_str()) ? test() : fail("no instruction set " + name);
}

void test(Report& report, const Case& c, const Names& instruction_sets) {
  for_each(instruction_sets, [&] {
    test_supports(c);
    test_checksum(c);
    test_max_pool<float>(c);
    test_max_pool<double>(c);
    test_head<float>(report, c);
    test_head<double>(report, c);
    for (bool cosine : {false, true}) {
      test_distances<float>(report, c, cosine);
      test_distances<double>(report, c, cosine);
    }
    test_silhouettes<float>(c);
    test_silhouettes<double>(c);
  });
  for (const char* kind : {"everywhere", "nowhere", "corner", "sparse", "left"}) {
    ArmeTrial trial = arme_trial(c, kind, &c == kCases ? 1 : 0.01);
    std::string where = text_of(c) + ", support " + kind;
    for_each(instruction_sets, [&] {
      test_arme<float>(report, trial, where);
      test_arme<double>(report, trial, where);
    });
  }
  for (bool projects : {true, false}) {
    AstpTrial trial = astp_trial(c, projects);
    for_each(instruction_sets, [&] {
      test_astp<float>(report, trial, text_of(trial.c));
      test_astp<double>(report, trial, text_of(trial.c));
    });
  }
  FtaTrial trial = fta_trial(c);
  for_each(instruction_sets, [&] {
    test_fta<float>(report, trial, text_of(c));
    test_fta<double>(report, trial, text_of(c));
  });
}

}  // namespace

int main(int count, char** arguments) {
  Report report;
  Names instruction_sets = count > 1 ? Names(arguments + 1, arguments + count) : all_instruction_sets();
  for (const Case& c : kCases) test(report, c, instruction_sets);
  report.print();
  std::printf(failed ? "FAILED\n" : "all as they should be\n");
  return failed;
}
