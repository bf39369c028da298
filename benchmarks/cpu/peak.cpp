// Multiply-adds from registers: the rate that no kernel on this machine can exceed.
//
// Every thread repeats x = x * a + b on vectors that never leave their registers; there are more of them than the
// arithmetic units have multiply-adds in flight. Starts, a and b are arguments, so that nothing can be computed ahead,
// and the last x are returned, so that nothing can be left out. benchmarks/cpu/peak.py compiles this file on demand.

#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64, ACCUMULATORS = 24;
#elif defined(__AVX__)
constexpr int BYTES = 32, ACCUMULATORS = 12;
#elif defined(__aarch64__)
constexpr int BYTES = 16, ACCUMULATORS = 24;
#else
constexpr int BYTES = 16, ACCUMULATORS = 12;
#endif
constexpr int LANES = BYTES / int(sizeof(float));
typedef float Vector __attribute__((vector_size(BYTES)));

struct Float32 {
  Vector a, b;
  Float32(float x, float y) : a(Vector{} + x), b(Vector{} + y) {}
  Vector operator()(Vector x) const { return x * a + b; }
};

#ifdef __AVX512BF16__
// A lane adds two products of bfloat16 numbers to its float32 sum.
struct BFloat16 {
  __m512bh a, b;
  BFloat16(float x, float y)
      : a(_mm512_cvtne2ps_pbh(_mm512_set1_ps(x), _mm512_set1_ps(x))),
        b(_mm512_cvtne2ps_pbh(_mm512_set1_ps(y), _mm512_set1_ps(y))) {}
  Vector operator()(Vector x) const { return (Vector)_mm512_dpbf16_ps((__m512)x, a, b); }
};
#endif

template <class Step, int... I>
void repeat(Step step, int64_t rounds, const float* starts, float* ends, std::integer_sequence<int, I...>) {
  Vector x[ACCUMULATORS];
  std::memcpy(x, starts, sizeof x);
  for (int64_t round = 0; round < rounds; ++round) ((x[I] = step(x[I])), ...);
  std::memcpy(ends, x, sizeof x);
}

template <class Step>
void on_threads(Step step, int threads, int64_t rounds, const float* starts, float* ends) {
  std::vector<std::thread> team;
  for (int i = 0; i < threads; ++i)
    team.emplace_back([=] {
      repeat(step, rounds, starts, ends + i * ACCUMULATORS * LANES, std::make_integer_sequence<int, ACCUMULATORS>());
    });
  for (auto& thread : team) thread.join();
}

}  // namespace

extern "C" {

// Numbers that each thread keeps in registers.
int peak_numbers() { return ACCUMULATORS * LANES; }

// Operations on each number in a round, a product and a sum counted one by one; 0 where there are no instructions.
int peak_float32_operations() { return 2; }

int peak_bfloat16_operations() {
#ifdef __AVX512BF16__
  return 4;
#else
  return 0;
#endif
}

// starts: [numbers]; ends: [threads][numbers].
void peak_float32(int threads, int64_t rounds, const float* starts, float a, float b, float* ends) {
  on_threads(Float32(a, b), threads, rounds, starts, ends);
}

// x = x + a * b + a * b instead of x * a + b.
void peak_bfloat16(int threads, int64_t rounds, const float* starts, float a, float b, float* ends) {
#ifdef __AVX512BF16__
  on_threads(BFloat16(a, b), threads, rounds, starts, ends);
#else
  (void)threads, (void)rounds, (void)starts, (void)a, (void)b, (void)ends;
#endif
}
}
