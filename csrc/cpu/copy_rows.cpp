// Copies of rows into a wider array: parts that were pooled by level, side by side.
#include "operators.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

void copy_rows(const CopyRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) __builtin_memcpy(a.y + i * a.stride, a.x + i * a.bytes, size_t(a.bytes));
}

}  // namespace

void fill_copy_rows(Tables& tables) { tables.copy_rows = copy_rows; }

}  // namespace HSTL_ISA
}  // namespace hstl
