// What each operator's file contributes to the function tables, once per instruction set.
#pragma once

#include "../hstl.h"

namespace hstl {
namespace HSTL_ISA {

void fill_arme(Operators<float>& single, Operators<double>& dual);
void fill_arme_weight(Operators<float>& single, Operators<double>& dual);
void fill_arme_winograd(Operators<float>& single, Operators<double>& dual);
void fill_arme_winograd_weight(Operators<float>& single, Operators<double>& dual);
void fill_astp(Operators<float>& single, Operators<double>& dual);
void fill_fta(Operators<float>& single, Operators<double>& dual);
void fill_supports(Supports& supports);

// The part of Arme::workspace that backward_weight needs.
template <class T>
size_t arme_weight_workspace(const Shape& shape, int64_t cin, int64_t cout);
size_t arme_winograd_weight_workspace(const Shape& shape, int64_t cin, int64_t cout, int algorithm);

}  // namespace HSTL_ISA
}  // namespace hstl
