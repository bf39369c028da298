// ldmatrix and mma.sync: what each lane gives and gets, as device.cuh describes it.
#include <algorithm>

#include "counters.h"
#include "emulator.h"
#include "hazards.h"

namespace hstl::shim {

namespace {

struct Load {
  uint32_t* r;
  const unsigned char* row;
};

// Lane i gives the address of row i % 8 of matrix i / 8.
template <bool kTransposed>
void load_all(void* const* arguments, uint32_t, Where where) {
  uint16_t matrix[4][8][8];
  note_loaded(static_cast<const Load*>(arguments[0])->r);
  size_t offsets[kWarp];
  int warp = block.current->warp;
  for (int lane = 0; lane < kWarp; ++lane) {
    const unsigned char* row = static_cast<const Load*>(arguments[lane])->row;
    offsets[lane] = offset_in_shared(row, 16, 16, "ldmatrix", where);
    note_read(offsets[lane], 16, warp * kWarp + lane, kFirstWarpAgent + warp, Proxy::generic, true, where);
    memcpy(matrix[lane / 8][lane % 8], row, 16);
  }
  note_accesses(kTransposed ? Op::ldmatrix_trans : Op::ldmatrix, offsets, kWarp, 16, where);
  for (int lane = 0; lane < kWarp; ++lane)
    for (int m = 0; m < 4; ++m) {
      int i = lane / 4, j = lane % 4 * 2;
      uint32_t low = kTransposed ? matrix[m][j][i] : matrix[m][i][j];
      uint32_t high = kTransposed ? matrix[m][j + 1][i] : matrix[m][i][j + 1];
      static_cast<const Load*>(arguments[lane])->r[m] = low | high << 16;
    }
}

struct Product {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

// Both elements of a register, or the only one.
template <Element kType>
inline void unpack(uint32_t bits, float* to) {
  if constexpr (kType == Element::tf32) {
    to[0] = __uint_as_float(bits & 0xffffe000);
  } else {
    for (int i = 0; i < 2; ++i) {
      uint16_t half = uint16_t(bits >> (16 * i));
      if constexpr (kType == Element::half)
        to[i] = to_float(half_t{half});
      else
        to[i] = to_float(bfloat16_t{half});
    }
  }
}

// d (16 x 8) += a (16 x kDepth) b (kDepth x 8).
template <Element kType>
void multiply_all(void* const* arguments, uint32_t, Where) {
  constexpr int kEach = kType == Element::tf32 ? 1 : 2;  // elements of a register
  constexpr int kDepth = 8 * kEach;
  float a[16][kDepth], b[kDepth][8], d[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto* p = static_cast<const Product*>(arguments[lane]);
    int g = lane / 4, c = lane % 4;
    for (int i = 0; i < 4; ++i) {
      unpack<kType>(p->a[i], &a[g + i % 2 * 8][(c + i / 2 * 4) * kEach]);
      d[g + i / 2 * 8][2 * c + i % 2] = p->d[i];
    }
    for (int i = 0; i < 2; ++i) {
      float values[2];
      unpack<kType>(p->b[i], values);
      for (int j = 0; j < kEach; ++j) b[(c + i * 4) * kEach + j][g] = values[j];
    }
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < kDepth; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < 4; ++i)
      static_cast<const Product*>(arguments[lane])->d[i] = d[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
}

}  // namespace

void load_matrices(uint32_t* r, const void* row, bool transposed, Where where) {
  Load load{r, static_cast<const unsigned char*>(row)};
  if (transposed)
    whole_warp(Op::ldmatrix_trans, &load, where, load_all<true>);
  else
    whole_warp(Op::ldmatrix, &load, where, load_all<false>);
}

void multiply(Element type, float* d, const uint32_t* a, const uint32_t* b, Where where) {
  Product product{d, a, b};
  if (type == Element::half) whole_warp(Op::mma_f16, &product, where, multiply_all<Element::half>);
  if (type == Element::bfloat16) whole_warp(Op::mma_bf16, &product, where, multiply_all<Element::bfloat16>);
  if (type == Element::tf32) whole_warp(Op::mma_tf32, &product, where, multiply_all<Element::tf32>);
}

}  // namespace hstl::shim
