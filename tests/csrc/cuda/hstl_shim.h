// csrc/cuda/device.cuh for the CPU: the same functions, carried out by an emulator whose threads are fibers. README.md
// beside this says what it checks. Every instruction takes the place in the source that it stands at, for messages.
#pragma once

#include <cstdint>

#include "shim_cuda.h"
#include "shim_types.h"

// ---- the emulator

namespace hstl::shim {

// Runs body(kernel, parameters) once per thread of every block. Throws std::runtime_error.
void run_grid(const char* name, void (*body)(const void*, const void*), const void* kernel, const void* parameters,
              dim3 grid, int threads, size_t shared_bytes);

template <class Parameters>
void launch(const char* name, void (*kernel)(Parameters), dim3 grid, int threads, size_t shared_bytes,
            const Parameters& parameters) {
  auto body = [](const void* function, const void* argument) {
    (*reinterpret_cast<void (*const*)(Parameters)>(function))(*static_cast<const Parameters*>(argument));
  };
  run_grid(name, body, &kernel, &parameters, grid, threads, shared_bytes);
}

unsigned char* shared_memory();
void check_load(const void* p, int bytes, Where where);
void check_store(const void* p, int bytes, Where where);
void wait_copies(int latest, Where where);
void load_matrices(uint32_t* r, const void* row, bool transposed, Where where);

enum class Element { half, bfloat16, tf32 };
void multiply(Element type, float* d, const uint32_t* a, const uint32_t* b, Where where);
void wgmma(Element type, int columns, bool transposed, float* d, const uint32_t* a, uint64_t b, Where where);
void wait_wgmma(int latest, Where where);
void hold_wgmma(const float* d, int count, Where where);

}  // namespace hstl::shim

// ---- device.cuh's functions

namespace hstl {

inline unsigned char* dynamic_shared() { return shim::shared_memory(); }

// An address in shared memory as PTX takes it: from the beginning of the block's window of the address space.
uint32_t shared_address(const void* p, HSTL_HERE);

template <class T>
T load_shared(const T* p, HSTL_HERE) {
  static_assert((sizeof(T) & (sizeof(T) - 1)) == 0 && sizeof(T) <= 16, "1, 2, 4, 8 or 16 bytes");
  shim::check_load(p, int(sizeof(T)), where);
  return *p;
}
template <class T>
void store_shared(T* p, T value, HSTL_HERE) {
  static_assert((sizeof(T) & (sizeof(T) - 1)) == 0 && sizeof(T) <= 16, "1, 2, 4, 8 or 16 bytes");
  shim::check_store(p, int(sizeof(T)), where);
  *p = value;
}

void store_16(void* global, const uint32_t (&words)[4], HSTL_HERE);

void copy_async_16(void* shared, const void* global, bool exists, HSTL_HERE);
void copy_async_commit(HSTL_HERE);
template <int N>
void copy_async_wait(HSTL_HERE) {
  static_assert(N >= 0, "a number of groups");
  shim::wait_copies(N, where);
}

inline void load_matrices(uint32_t (&r)[4], const void* row, HSTL_HERE) { shim::load_matrices(r, row, false, where); }
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row, HSTL_HERE) {
  shim::load_matrices(r, row, true, where);
}

struct Half {
  using storage = half_t;
  static constexpr shim::Element kElement = shim::Element::half;
};
struct Bfloat16 {
  using storage = bfloat16_t;
  static constexpr shim::Element kElement = shim::Element::bfloat16;
};
struct Tf32 {
  using storage = float;
  static constexpr shim::Element kElement = shim::Element::tf32;
};
struct Float32 {
  using storage = float;  // no fragments: multiplied without tensor cores
};

inline void multiply(Half, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], HSTL_HERE) {
  shim::multiply(shim::Element::half, d, a, b, where);
}
inline void multiply(Bfloat16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], HSTL_HERE) {
  shim::multiply(shim::Element::bfloat16, d, a, b, where);
}
inline void multiply(Tf32, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], HSTL_HERE) {
  shim::multiply(shim::Element::tf32, d, a, b, where);
}

void barrier_init(uint64_t* barrier, int arrivals, HSTL_HERE);
void barrier_init_fence(HSTL_HERE);
void barrier_arrive(uint64_t* barrier, HSTL_HERE);
void barrier_expect(uint64_t* barrier, int bytes, HSTL_HERE);
void wait_phase(uint64_t* barrier, int parity, HSTL_HERE);
void copy_bulk(void* shared, const void* global, int bytes, uint64_t* barrier, HSTL_HERE);
void fence_async_proxy(HSTL_HERE);

// ---- wgmma.cuh's functions. d (64 x N over the warpgroup) += a b with a in registers, as multiply's a of each warp's
// 16 rows, and b in shared memory, where the descriptor says: N rows of 32 bytes of k, or with kTransposed (2-byte
// types only) rows of k. Until wait<M> leaves at most the latest M groups unfinished, d and a belong to the hardware.

void wgmma_fence(HSTL_HERE);
template <class Tag, int N, bool kTransposed = false>
void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, HSTL_HERE) {
  static_assert(N >= 8 && N <= 256 && N % 8 == 0, "N is 8, 16, .. 256");
  static_assert(!kTransposed || sizeof(typename Tag::storage) == 2, "only elements of 2 bytes can be transposed");
  shim::wgmma(Tag::kElement, N, kTransposed, d, a, b, where);
}
void wgmma_commit(HSTL_HERE);
// On the device the compiler must not move accesses to d across this; here d must not be in flight.
template <int N>
void wgmma_hold(float (&d)[N], HSTL_HERE) {
  shim::hold_wgmma(d, N, where);
}
template <int M>
void wgmma_wait(HSTL_HERE) {
  static_assert(M >= 0 && M < 8, "a number of groups");
  shim::wait_wgmma(M, where);
}

}  // namespace hstl
