// 128-bit checksums of memory, by which a change of weights is noticed.
//
// A page of 4 KiB is 32-bit words e_j, o_j, the even and the odd ones. Its two sums, modulo 2^64 and with 32-bit keys
// k_j, are
//   sum e_j k_j + o_j k_{j + n}   and   sum e_j k_{j + n} + o_j k_{j + 2 n},   n = 512.
// A product of two words is exact, and no key is 0, so a change within one word changes both sums. An exchange of two
// words of one parity, and a change of two signs, do so as well, since keys differ. For keys drawn at random, any other
// change leaves a sum as it was with probability 2^-32 at most and both with 2^-64 (Toeplitz's construction). The
// digest adds up a bijective mix of each page's sums and place, so that any number of threads gets the same.
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "operators.h"
#include "parallel.h"
#include "simd.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

typedef uint64_t Words __attribute__((vector_size(HSTL_VECTOR_BYTES)));

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kPairs = kPageBytes / 8;
constexpr int64_t kVectorPairs = HSTL_VECTOR_BYTES / 8;
// What a thread takes at a time.
constexpr int64_t kChunkBytes = 32 * kPageBytes;
// Bytes by which memory is asked for ahead, into the second-level cache: the processor's own prefetching stops at the
// end of a small page.
constexpr int64_t kAhead = 4 * kPageBytes;

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
  alignas(64) uint64_t at[3 * kPairs];
  constexpr Keys() : at() {
    for (int64_t i = 0; i < 3 * kPairs; ++i) at[i] = scrambled(uint32_t(0x3c6ef372 + i));
  }
};
constexpr Keys kKeys;

struct Sums {
  uint64_t first, second;
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
  for (int i = 0; i < kVectorPairs; ++i) total += v[i];
  return total;
}

// The sums of a whole page. Per vector 4 products, 4 additions and 4 loads.
inline Sums sums_of(const unsigned char* page) {
  Words even_first{}, odd_first{}, even_second{}, odd_second{};
  for (int64_t i = 0; i < kPairs; i += kVectorPairs) {
    const unsigned char* from = page + 8 * i;
    __builtin_prefetch(from + kAhead, 0, 2);
    Words even = words_at(from), odd = even >> 32;
    Words k0 = words_at(kKeys.at + i), k1 = words_at(kKeys.at + kPairs + i), k2 = words_at(kKeys.at + 2 * kPairs + i);
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
Sums digest_of(const unsigned char* memory, int64_t begin, int64_t end) {
  Sums total = {0, 0};
  for (int64_t at = begin; at < end; at += kPageBytes) {
    alignas(64) unsigned char last[kPageBytes];
    const unsigned char* page = memory + at;
    if (end - at < kPageBytes) {
      __builtin_memset(last, 0, kPageBytes);
      __builtin_memcpy(last, page, size_t(end - at));
      page = last;
    }
    Sums added = contribution(sums_of(page), at / kPageBytes);
    total.first += added.first;
    total.second += added.second;
  }
  return total;
}

void checksum(const Checksum& a) {
  int64_t chunks = 0;
  for (int64_t i = 0; i < a.sizes.size; ++i) {
    chunks += ceil_div(a.sizes.data[i], kChunkBytes);
    a.digests[2 * i] = a.digests[2 * i + 1] = mixed(uint64_t(a.sizes.data[i]));
  }
  parallel_for(usable_threads(a.threads), chunks, [&](int64_t chunk, int) {
    int64_t i = 0;
    for (; chunk >= ceil_div(a.sizes.data[i], kChunkBytes); ++i) chunk -= ceil_div(a.sizes.data[i], kChunkBytes);
    const auto* memory = reinterpret_cast<const unsigned char*>(a.addresses.data[i]);
    int64_t begin = chunk * kChunkBytes;
    Sums added = digest_of(memory, begin, smaller(begin + kChunkBytes, a.sizes.data[i]));
    __atomic_fetch_add(a.digests + 2 * i, added.first, __ATOMIC_RELAXED);
    __atomic_fetch_add(a.digests + 2 * i + 1, added.second, __ATOMIC_RELAXED);
  });
}

}  // namespace

void fill_checksum(Tables& tables) { tables.checksum = checksum; }

}  // namespace HSTL_ISA
}  // namespace hstl
