// 128-bit checksums of memory, by which a change of weights is noticed.
//
// A page of 4 KiB is 32-bit words e_j, o_j, the even and the odd ones. Its two sums, modulo 2^64 and with 32-bit keys
// k_j, are
//   sum e_j k_j + o_j k_{j + n}   and   sum e_j k_{j + n} + o_j k_{j + 2 n},   n = 512.
// A product of two words is exact, and no key is 0, so a change within one word changes both sums. An exchange of two
// words of one parity, and a change of two signs, do so as well, since keys differ. For keys drawn at random, any other
// change leaves a sum as it was with probability 2^-32 at most and both with 2^-64 (Toeplitz's construction). The
// digest adds up a bijective mix of each page's sums and place, so that any number of threads gets the same.
#pragma once

#include <cstddef>
#include <cstdint>
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "../shapes.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

typedef uint64_t Words __attribute__((vector_size(HSTL_VECTOR_BYTES)));

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kPagePairs = kPageBytes / 8;
constexpr int64_t kVectorWords = HSTL_VECTOR_BYTES / 8;
// Bytes by which memory is asked for ahead: the processor's own prefetching stops at the end of a small page.
constexpr int64_t kPageAhead = 4096;

// A bijection of 32 bits, 0 to 0: multiplications by odd numbers, and shifts.
constexpr uint32_t scrambled(uint32_t x) {
  x = (x ^ x >> 15) * 0x2c1b3c6du;
  x = (x ^ x >> 13) * 0x297a2d39u;
  return x ^ x >> 16;
}

// A bijection of 64 bits.
constexpr uint64_t mixed(uint64_t x) {
  x = (x ^ x >> 31) * 0x9e6c63d0676a9a99ull;
  x = (x ^ x >> 29) * 0xd1342543de82ef95ull;
  return x ^ x >> 32;
}

// Keys in the low halves of words: none is 0, and none is there twice.
struct Keys {
  alignas(64) uint64_t at[3 * kPagePairs];
  constexpr Keys() : at() {
    for (int64_t i = 0; i < 3 * kPagePairs; ++i) at[i] = scrambled(uint32_t(0x3c6ef372 + i));
  }
};
constexpr Keys kKeys;

struct Sums {
  uint64_t first, second;

  void operator+=(Sums other) {
    first += other.first;
    second += other.second;
  }
};

HSTL_INLINE Words words_at(const void* from) {
  Words v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

// The 64-bit products of the low halves.
HSTL_INLINE Words low_products(Words x, Words y) {
#if defined(__aarch64__)
  return (Words)vmull_u32(vmovn_u64((uint64x2_t)x), vmovn_u64((uint64x2_t)y));
#elif defined(__clang__) || !defined(__SSE2__)
  return (x & 0xffffffff) * (y & 0xffffffff);
#elif defined(__AVX512F__)
  typedef int V __attribute__((vector_size(64)));
  typedef long long W __attribute__((vector_size(64)));
  return (Words)__builtin_ia32_pmuludq512_mask((V)x, (V)y, W{}, 0xff);
#elif defined(__AVX2__)
  typedef int V __attribute__((vector_size(32)));
  return (Words)__builtin_ia32_pmuludq256((V)x, (V)y);
#else
  typedef int V __attribute__((vector_size(16)));
  return (Words)__builtin_ia32_pmuludq128((V)x, (V)y);
#endif
}

inline uint64_t sum_of(Words v) {
  uint64_t total = 0;
  for (int i = 0; i < kVectorWords; ++i) total += v[i];
  return total;
}

// The sums of a whole page. Per vector 4 products, 4 additions and 4 loads.
inline Sums sums_of(const unsigned char* page) {
  Words even_first{}, odd_first{}, even_second{}, odd_second{};
  for (int64_t i = 0; i < kPagePairs; i += kVectorWords) {
    const unsigned char* from = page + 8 * i;
    __builtin_prefetch(from + kPageAhead, 0, 3);
    Words even = words_at(from), odd = even >> 32;
    Words k0 = words_at(kKeys.at + i), k1 = words_at(kKeys.at + kPagePairs + i),
          k2 = words_at(kKeys.at + 2 * kPagePairs + i);
    even_first += low_products(even, k0);
    odd_first += low_products(odd, k1);
    even_second += low_products(even, k1);
    odd_second += low_products(odd, k2);
  }
  return {sum_of(even_first + odd_first), sum_of(even_second + odd_second)};
}

// What page number i adds to the digest.
inline Sums contribution(Sums sums, int64_t i) {
  uint64_t place = uint64_t(i + 1) * 0x9e3779b97f4a7c15ull;
  return {mixed(sums.first + place), mixed(sums.second ^ place)};
}

// The pages of a range of bytes; what is missing of the last one counts as 0.
inline Sums digest_of(const unsigned char* memory, int64_t begin, int64_t end) {
  Sums total = {0, 0};
  for (int64_t at = begin; at < end; at += kPageBytes) {
    alignas(64) unsigned char last[kPageBytes];
    const unsigned char* page = memory + at;
    if (end - at < kPageBytes) {
      __builtin_memset(last, 0, kPageBytes);
      __builtin_memcpy(last, page, std::size_t(end - at));
      page = last;
    }
    total += contribution(sums_of(page), at / kPageBytes);
  }
  return total;
}

// A digest of so many bytes begins with this; then the pages are added.
inline void start_digest(uint64_t* digest, int64_t bytes) { digest[0] = digest[1] = mixed(uint64_t(bytes)); }

inline void add_to_digest(uint64_t* digest, Sums added) {
  __atomic_fetch_add(digest, added.first, __ATOMIC_RELAXED);
  __atomic_fetch_add(digest + 1, added.second, __ATOMIC_RELAXED);
}

// A thread's share of a digest, a whole number of pages but for the last, computed bit by bit between other work, for
// whose time the memory has been asked for: then it costs the multiplications, and hardly any waiting.
class Share {
 public:
  Share() : memory_(nullptr), at_(0), asked_(0), end_(0), digest_(nullptr) {}

  // Share i of `shares` of the digest of so many bytes; without a digest there is nothing to do.
  Share(const void* memory, int64_t bytes, uint64_t* digest, int64_t i, int64_t shares) : Share() {
    if (!digest) return;
    Range pages = chunk_of(ceil_div(bytes, kPageBytes), shares, i);
    memory_ = static_cast<const unsigned char*>(memory);
    at_ = asked_ = pages.begin * kPageBytes;
    end_ = smaller(pages.end * kPageBytes, bytes);
    digest_ = digest;
  }

  // Memory to ask for next; `other`, where there is no need.
  const void* wanted(const void* other) const { return asked_ < end_ ? memory_ + asked_ : other; }

  // So many bytes from there on were asked for. What was asked for a page ago has arrived.
  void advance(int64_t bytes) {
    if (at_ >= end_) return;
    asked_ += bytes;
    if (asked_ - at_ < 2 * kPageBytes) return;
    int64_t next = smaller(end_, at_ + kPageBytes);
    total_ += digest_of(memory_, at_, next);
    at_ = next;
  }

  void finish() {
    if (!digest_) return;
    total_ += digest_of(memory_, at_, end_);
    at_ = end_;
    add_to_digest(digest_, total_);
  }

 private:
  const unsigned char* memory_;
  int64_t at_, asked_, end_;
  uint64_t* digest_;
  Sums total_ = {0, 0};
};

}  // namespace
}  // namespace HSTL_ISA
}  // namespace hstl
