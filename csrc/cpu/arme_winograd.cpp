#include "arme.h"
#include "tables.h"

namespace hstl {
namespace HSTL_ISA {

void fill_arme_winograd(Operators<float>&, Operators<double>&) {}

}  // namespace HSTL_ISA
}  // namespace hstl
