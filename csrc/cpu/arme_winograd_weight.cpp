#include "arme.h"
#include "tables.h"

namespace hstl {
namespace HSTL_ISA {

size_t arme_winograd_weight_workspace(const Shape&, int64_t, int64_t, int) { return 0; }

void fill_arme_winograd_weight(Operators<float>&, Operators<double>&) {}

}  // namespace HSTL_ISA
}  // namespace hstl
