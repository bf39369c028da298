// A program: native functions with their arguments, which run one after another without the interpreter.
//
// An address among the arguments of a step is the number of a place in the program's table of places: a base and an
// offset in bytes from it. Number 0 stands for no memory. Every run gets the bases, so that runs of one program may
// happen at once, each in memory of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../binding.h"

namespace hstl {
namespace binding {

class Step {
 public:
  virtual ~Step() = default;
  virtual void run(char* const* places) const = 0;
  virtual size_t bytes() const = 0;
};

// Puts the address of a place into every field that is one.
class Locator {
 public:
  explicit Locator(char* const* places) : places_(places) {}
  template <class... Fields>
  void operator()(const char*, Fields&... fields) const {
    (locate(fields), ...);
  }

 private:
  template <class T>
  void locate(T*& field) const {
    field = reinterpret_cast<T*>(places_[reinterpret_cast<uintptr_t>(field)]);
  }
  template <class T>
  void locate(T&) const {}

  char* const* places_;
};

// Throws unless every address is the number of a place.
class PlaceCheck {
 public:
  PlaceCheck(const char* function, size_t places) : function_(function), places_(places) {}
  template <class... Fields>
  void operator()(const char*, Fields&... fields) const {
    (check(fields), ...);
  }

 private:
  template <class T>
  void check(T*& field) const {
    uintptr_t number = reinterpret_cast<uintptr_t>(field);
    if (number >= places_)
      throw py::value_error(std::string(function_) + ": expected places below " + std::to_string(places_) + ", got " +
                            std::to_string(number));
  }
  template <class T>
  void check(T&) const {}

  const char* function_;
  size_t places_;
};

template <class Arguments>
class StepOf final : public Step {
 public:
  StepOf(PyObject* const* arguments, Py_ssize_t count, size_t places) : reader_(arguments, count) {
    reader_.read(arguments_);
    arguments_.visit(PlaceCheck(Arguments::name(), places));
  }
  void run(char* const* places) const override {
    Arguments located = arguments_;
    located.visit(Locator(places));
    hstl::run(located);
  }
  size_t bytes() const override { return sizeof *this + reader_.bytes_of_lists(); }

 private:
  Reader<Arguments> reader_;  // owns the lists
  Arguments arguments_ = {};
};

struct Place {
  size_t base;
  int64_t offset;
};

class Program {
 public:
  explicit Program(const std::vector<std::pair<size_t, int64_t>>& places) {
    for (const auto& [base, offset] : places) {
      places_.push_back({base, offset});
      if (base >= bases_) bases_ = base + 1;
    }
  }

  void append(std::unique_ptr<Step> step) { steps_.push_back(std::move(step)); }
  size_t places() const { return places_.size(); }

  void run(const std::vector<uintptr_t>& bases) const {
    const std::vector<char*> places = located(bases);
    WithoutGil released;
    for (const auto& step : steps_) step->run(places.data());
  }

  // Seconds of every step.
  std::vector<double> run_timed(const std::vector<uintptr_t>& bases) const {
    using Clock = std::chrono::steady_clock;
    const std::vector<char*> places = located(bases);
    std::vector<double> seconds(steps_.size());
    WithoutGil released;
    Clock::time_point start = Clock::now();
    for (size_t i = 0; i < steps_.size(); ++i) {
      steps_[i]->run(places.data());
      Clock::time_point end = Clock::now();
      seconds[i] = std::chrono::duration<double>(end - start).count();
      start = end;
    }
    return seconds;
  }

  size_t bytes() const {
    size_t sum = sizeof *this + places_.size() * sizeof(Place);
    for (const auto& step : steps_) sum += step->bytes();
    return sum;
  }

 private:
  std::vector<char*> located(const std::vector<uintptr_t>& bases) const {
    if (bases.size() < bases_)
      throw py::value_error("bases: expected at least " + std::to_string(bases_) + " addresses, got " +
                            std::to_string(bases.size()));
    std::vector<char*> places;
    for (const Place& place : places_) places.push_back(reinterpret_cast<char*>(bases[place.base] + place.offset));
    return places;
  }

  std::vector<Place> places_;
  size_t bases_ = 0;
  std::vector<std::unique_ptr<Step>> steps_;
};

}  // namespace binding
}  // namespace hstl
