// Checksums of several pieces of memory at once.
#include "checksum.h"

#include "operators.h"
#include "parallel.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// What a thread takes at a time.
constexpr int64_t kChunkBytes = 32 * kPageBytes;

void checksum(const Checksum& a) {
  int64_t chunks = 0;
  for (int64_t i = 0; i < a.sizes.size; ++i) {
    chunks += ceil_div(a.sizes.data[i], kChunkBytes);
    start_digest(a.digests + 2 * i, a.sizes.data[i]);
  }
  parallel_for(usable_threads(a.threads), chunks, [&](int64_t chunk, int) {
    int64_t i = 0;
    for (; chunk >= ceil_div(a.sizes.data[i], kChunkBytes); ++i) chunk -= ceil_div(a.sizes.data[i], kChunkBytes);
    const auto* memory = reinterpret_cast<const unsigned char*>(a.addresses.data[i]);
    int64_t begin = chunk * kChunkBytes, end = smaller(begin + kChunkBytes, a.sizes.data[i]);
    add_to_digest(a.digests + 2 * i, digest_of(memory, begin, end));
  });
}

}  // namespace

void fill_checksum(Tables& tables) { tables.checksum = checksum; }

}  // namespace HSTL_ISA
}  // namespace hstl
