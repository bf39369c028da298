// ARME of maps of one channel, the silhouettes: forward and the gradient of the weights, without tensor cores.
#pragma once

#include "operators.h"

namespace hstl {

// Where c_in == 1: arme_forward and arme_wgrad, and the bytes of scratch memory that the latter needs.
void arme_first_forward(const ArmeForward& a);
void arme_first_wgrad(const ArmeWgrad& a);
size_t arme_first_wgrad_workspace(const ArmeWorkspace& a);

}  // namespace hstl
