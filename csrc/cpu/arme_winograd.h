// Shared by the files of arme's Winograd forward and dgrad: the sizes of a block of tiles, and where the prepacked
// weights, the transformed inputs, and the products of a block lie in memory.
#pragma once

#include "arme.h"
#include "arme_winograd_tiles.h"

namespace hstl {
namespace HSTL_ISA {
namespace {

// kPanel: output channels of a GEMM tile. kBlock: Winograd tiles of a block, which are the rows of the GEMM tile, so
// each weight is read once per block.
constexpr int kPanel = kOut<float>;
constexpr int kBlock = kVectorRegisters == 32 ? 14 : 6;

// Pairs of the rows' frequencies: (0, infinity), (a, -a), (b, -b).
constexpr int kPairs = 3;

// Products alive at a time, for each tile and output channel.
template <int N>
constexpr int kProducts = 2 * kFrequencies * (N + 2);

inline int64_t chunks_of(int64_t channels) { return ceil_div(channels, kLanes); }
inline int64_t panels_of(int64_t channels) { return ceil_div(channels, kPanel); }

// Prepacked weights are [m][pairs][panels][2][6][N + 2][c_in padded][kPanel].
inline int64_t matrix_size(int64_t c_in) { return chunks_of(c_in) * kLanes * kPanel; }

template <int N>
int64_t region_size(int64_t c_in, int64_t c_out) {
  return kPairs * panels_of(c_out) * kProducts<N> * matrix_size(c_in);
}

// A block's transformed inputs of one pair are [chunks][products][kBlock][lanes], its products
// [products][kBlock][kPanel]: what one tile reads or writes stays within few pages.
template <int N>
constexpr int64_t kInputChunk = kProducts<N> * kBlock * kLanes;
template <int N>
constexpr int64_t kTileSums = N * kSide * kSide * kPanel;

}  // namespace

// In arme_winograd_prepack.cpp.
void prepack_winograd(const ArmePrepack<float>& a);

}  // namespace HSTL_ISA
}  // namespace hstl
