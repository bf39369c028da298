// The gradient of ARME's weights.
#pragma once

#include "operators.h"

namespace hstl {

size_t arme_wgrad_workspace(const ArmeWorkspace& a);

}  // namespace hstl
