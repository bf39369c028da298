// Supports of feature maps: bytes, one per position, a few hundred kilobytes for a batch, so plain loops serve.
#include "geometry.h"
#include "parallel.h"
#include "tables.h"

namespace hstl {
namespace HSTL_ISA {

void fill_supports(Supports&) {}

}  // namespace HSTL_ISA
}  // namespace hstl
