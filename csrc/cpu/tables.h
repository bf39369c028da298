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
void fill_halve(Operators<float>& single, Operators<double>& dual);
void fill_parts(Operators<float>& single, Operators<double>& dual);
void fill_supports(Supports& supports);

}  // namespace HSTL_ISA
}  // namespace hstl
