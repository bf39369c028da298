// micro list            every case with its prediction, one JSON object a line; needs no GPU
// micro run [NAME...]   measures these cases, all without a name
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "bench.cuh"

namespace micro {
namespace {

constexpr int kRepeats = 9;
constexpr unsigned kLongest = 20;  // seconds of a case; one that takes longer ends the program by SIGALRM

struct FillParameters {
  uint16_t* data;
  size_t count;
};

HSTL_KERNEL(256, 1) fill_random(const __grid_constant__ FillParameters p) {
  size_t step = size_t(gridDim.x) * blockDim.x;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.count; i += step)
    p.data[i] = random_bfloat16(uint32_t(i));
}

}  // namespace

void fill(const Memory& memory) {
  hstl::launch("fill", fill_random, dim3(1024), 256, 0, nullptr,
               FillParameters{memory.as<uint16_t>(), memory.bytes() / 2});
  check(cudaDeviceSynchronize(), "fill");
}

Outcome timed(double amount, const Memory& clock, const std::function<void()>& launch) {
  cudaEvent_t first, last;
  check(cudaEventCreate(&first), "cudaEventCreate");
  check(cudaEventCreate(&last), "cudaEventCreate");
  std::vector<double> seconds;
  for (int i = 0; i < 2 + kRepeats; ++i) {
    check(cudaEventRecord(first), "cudaEventRecord");
    launch();
    check(cudaEventRecord(last), "cudaEventRecord");
    check(cudaEventSynchronize(last), "the kernel");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, first, last), "cudaEventElapsedTime");
    if (i >= 2) seconds.push_back(milliseconds / 1e3);
  }
  cudaEventDestroy(first);
  cudaEventDestroy(last);
  Clock spent;
  check(cudaMemcpy(&spent, clock.as<Clock>(), sizeof spent, cudaMemcpyDeviceToHost), "cudaMemcpy");
  std::sort(seconds.begin(), seconds.end());
  Outcome found;
  found.amount = amount;
  found.seconds = seconds[seconds.size() / 2];
  found.fastest = seconds[0];
  found.clock_hz = spent.nanoseconds > 0 ? 1e9 * double(spent.cycles) / double(spent.nanoseconds) : 0;
  return found;
}

namespace {

std::vector<Case> all_cases() {
  std::vector<Case> cases = wgmma_cases();
  for (auto more : {mma_cases(), copy_cases()}) cases.insert(cases.end(), more.begin(), more.end());
  return cases;
}

void print_start(const Case& c) {
  std::printf("{\"name\": \"%s\", \"unit\": \"%s\", \"predicted\": %.6g, \"model\": \"%s\"", c.name.c_str(),
              c.unit.c_str(), c.predicted, c.model.c_str());
}

void print_end(const char* status, const std::string& reason) {
  std::printf(", \"status\": \"%s\"", status);
  if (!reason.empty()) std::printf(", \"reason\": \"%s\"", reason.c_str());
  std::printf("}\n");
  std::fflush(stdout);
}

void measure(const Case& c, const Gpu& gpu) {
  print_start(c);
  if (gpu.capability < c.least_capability || gpu.capability > c.most_capability)
    return print_end("unavailable", "this GPU lacks the instruction");
  alarm(kLongest);
  try {
    Outcome found = c.run(gpu);
    std::printf(", \"rate\": %.6g, \"fastest\": %.6g, \"seconds\": %.6g, \"clock_hz\": %.6g",
                found.amount / found.seconds, found.amount / found.fastest, found.seconds, found.clock_hz);
    if (found.error >= 0 || std::isnan(found.error)) std::printf(", \"error\": %.3g", std::min(found.error, 1e9));
    bool wrong = std::isnan(found.error) || found.error > 1e-3;
    print_end(wrong ? "wrong" : "ok", wrong ? "the product is not that of the host" : "");
  } catch (const std::exception& error) {
    print_end("failed", error.what());
    std::exit(1);  // a device that has failed once answers nothing more
  }
}

bool wanted(const Case& c, int count, char** names) {
  return count == 0 || std::find(names, names + count, c.name) != names + count;
}

int run(int count, char** names) {
  Gpu gpu;
  gpu.multiprocessors = hstl::multiprocessors(0);
  gpu.capability = hstl::capability(0);
  gpu.shared_limit = size_t(hstl::shared_limit(0));
  for (const Case& c : all_cases())
    if (wanted(c, count, names)) measure(c, gpu);
  return 0;
}

}  // namespace
}  // namespace micro

int main(int count, char** arguments) {
  if (count == 2 && std::strcmp(arguments[1], "list") == 0) {
    for (const micro::Case& c : micro::all_cases()) {
      micro::print_start(c);
      std::printf("}\n");
    }
    return 0;
  }
  if (count < 2 || std::strcmp(arguments[1], "run") != 0) {
    std::fprintf(stderr, "usage: micro list | run [NAME...]\n");
    return 2;
  }
  try {
    return micro::run(count - 2, arguments + 2);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
