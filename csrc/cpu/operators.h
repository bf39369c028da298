// The one header of hstl_fast._cpu: every function that Python sees, and the number of this interface. Raw pointers and
// sizes only: memory belongs to the caller, arguments are checked in Python, every element of an output is written.
// ../shapes.h says how feature maps lie in memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../shapes.h"

namespace hstl {

// Counts the changes of what Python sees; hstl_fast/ops/_native.py refuses a binary with another number.
constexpr int kInterface = 7;

// The supports of a convolution's maps; null: everywhere. A position outside counts as 0, whatever stands there.
struct Support {
  const uint8_t* x;  // [F, H, W] of the input
  const uint8_t* y;  // [F, H, W] of the output: the input's grown by one position inside region and sequence
};

// The algorithm of a convolution: direct, or Winograd with tiles of 4 x 4 positions and so many frames.
constexpr int kDirect = 0;
constexpr int kWinogradFrames[] = {2, 4, 5};

// One way to compute the region-wise convolution. `algorithm` is kDirect or one of kWinogradFrames.
template <class T>
struct Arme {
  // Bytes of prepacked weights. Of the shape, split and regions are read.
  size_t (*prepacked_size)(const Shape& shape, int64_t cin, int64_t cout, int algorithm, bool transposed);

  // The weights as forward reads them, or, transposed, as dgrad does.
  void (*prepack)(void* prepacked,  // [prepacked_size(...)]
                  const T* w,       // [m, cout, cin, 3, 3, 3]
                  const Shape& shape, int64_t cin, int64_t cout, int algorithm, bool transposed);

  // Bytes that forward and dgrad may use each; `maximum`: forward finds one.
  size_t (*workspace)(const Shape& shape, int64_t cin, int64_t cout, int algorithm, bool maximum);

  // Bytes that wgrad may use.
  size_t (*wgrad_workspace)(const Shape& shape, int64_t cin, int64_t cout, int algorithm);

  // y = leaky(conv3d of every region with its own weights, zero padding 1 around region and sequence), 0 outside
  // support.y. In the Winograd domain also, where asked for, the maximum over the frames of each sequence, and the 2x2
  // spatial maximum of every frame, for which regions and width have to be even. Where the algorithm is direct, y is
  // all there is.
  void (*forward)(T* y,                   // [F, H, W, cout], or null where only the maxima are wanted
                  T* maximum,             // [N, H, W, cout] or null
                  T* max_pooled,          // [F, H / 2, W / 2, cout] or null
                  const T* x,             // [F, H, W, cin]
                  const void* prepacked,  // by prepack(..., false)
                  void* workspace,        // [workspace(...)]
                  const Shape& shape, const Support& support, int64_t cin, int64_t cout,
                  T negative_slope,  // 1: no activation
                  int algorithm);

  // gx = transposed convolution of gy * (y > 0 ? 1 : negative_slope), 0 outside support.x.
  void (*dgrad)(T* gx,                  // [F, H, W, cin]
                const T* gy,            // [F, H, W, cout]
                const T* y,             // [F, H, W, cout], or null when negative_slope is 1
                const void* prepacked,  // by prepack(..., true)
                void* workspace,        // [workspace(...)]
                const Shape& shape, const Support& support, int64_t cin, int64_t cout, T negative_slope, int algorithm);

  void (*wgrad)(T* gw,            // [m, cout, cin, 3, 3, 3]
                const T* x,       // [F, H, W, cin]
                const T* gy,      // [F, H, W, cout]
                const T* y,       // [F, H, W, cout], or null when negative_slope is 1
                void* workspace,  // [wgrad_workspace(...)]
                const Shape& shape, const Support& support, int64_t cin, int64_t cout, T negative_slope, int algorithm);
};

// Batch norm with fixed statistics: (y - mean) / sqrt(variance + eps) * weight + bias.
template <class T>
struct Norm {
  const T *mean, *variance, *weight, *bias;  // [cout]
  T eps;
};

// The operators for T = float or double, compiled for one instruction set.
template <class T>
struct Operators {
  Arme<T> direct;
  Arme<T> winograd;  // float only: null functions for double

  // gy *= y > 0 ? 1 : negative_slope inside the support; what stands outside stays.
  void (*leaky_backward)(T* gy,       // [F, H, W, C]
                         const T* y,  // [F, H, W, C], the output of the activation
                         const Shape& shape,
                         const uint8_t* support,  // [F, H, W] or null
                         int64_t c, T negative_slope);

  // direct.forward of the silhouettes, which are 0..1 as x / 255, and are their own support.
  void (*silhouettes_forward)(T* y,                        // [F, H, W, cout]
                              const uint8_t* silhouettes,  // [F, H, W]
                              const void* prepacked,       // by direct.prepack(..., kDirect, false)
                              void* workspace,             // [direct.workspace(...)]
                              const Shape& shape,
                              const uint8_t* support,  // [F, H, W] of y, or null
                              int64_t cout, T negative_slope);

  void (*frame_maximum)(T* maximum,      // [N, H, W, C] over the frames of each sequence
                        int16_t* index,  // [N, H, W, C] first frame of the sequence that attains it, or null
                        const T* x,      // [F, H, W, C], 0 outside its support
                        const Shape& shape,
                        const uint8_t* support,  // [F, H, W] of x, or null
                        int64_t c);

  void (*frame_maximum_backward)(T* gx,                 // [F, H, W, C]: gmaximum at the index frame, else 0
                                 const T* gmaximum,     // [N, H, W, C]
                                 const int16_t* index,  // [N, H, W, C]
                                 const Shape& shape, int64_t c);

  void (*frame_maximum_backward_add)(T* gx,                 // [F, H, W, C]: += gmaximum at the index frame
                                     const T* gmaximum,     // [N, H, W, C]
                                     const int16_t* index,  // [N, H, W, C]
                                     const Shape& shape, int64_t c);

  // The 2x2 spatial maximum, stride 2, of every frame; odd last rows and columns are left out.
  void (*max_pool)(T* y,                    // [frames, h / 2, w / 2, C]
                   const T* x,              // [frames, h, w, C]
                   const uint8_t* support,  // [frames, h / 2, w / 2] of y, or null; outside, y is 0
                   int64_t frames, int64_t h, int64_t w, int64_t c, int threads);

  // Bytes that each of the two functions below may use. They read shape.sequences, not shape.seq_lens.
  size_t (*astp_workspace)(const Shape& shape, int64_t cin, int64_t cout);

  // pooled = mean over the region of max(u, 1e-6)^p, to the power 1 / p; u = proj applied to the maximum.
  void (*astp_forward)(T* pooled,         // [N, m, cout]
                       const T* maximum,  // [N, H, W, cin]
                       const T* proj,     // [cout, cin], or null: u is the maximum, cout == cin
                       const T* p,        // [m]
                       void* workspace,   // [astp_workspace(...)]
                       const Shape& shape, int64_t cin, int64_t cout);

  void (*astp_backward)(T* gmaximum,       // [N, H, W, cin]
                        T* gproj,          // [cout, cin], or null with proj
                        T* gp,             // [m]
                        const T* gpooled,  // [N, m, cout]
                        const T* pooled,   // [N, m, cout], the output of astp_forward
                        const T* maximum,  // [N, H, W, cin]
                        const T* proj,     // [cout, cin] or null
                        const T* p,        // [m]
                        void* workspace,   // [astp_workspace(...)]
                        const Shape& shape, int64_t cin, int64_t cout);

  // The head, a fully connected layer per part, then batch norm: y[n, p] = norm(x[n, p] w[p]).
  void (*head)(T* y,        // [N, parts, cout]
               const T* x,  // [N, parts, cin]
               const T* w,  // [parts, cin, cout]
               const Norm<T>& norm, int64_t n, int64_t parts, int64_t cin, int64_t cout, int threads);

  // Bytes that each of the two functions below may use.
  size_t (*fta_workspace)(const Shape& shape, int64_t c);

  // F' = sum(floor(seq_lens / 3)); a = maximum of frames 3t'..3t'+2, b = of 3t'-1..3t'+3 inside the sequence;
  // y = s_a a + s_b b, (s_a, s_b) = softmax(W_a z + b_a, W_b z + b_b).
  void (*fta_forward)(T* y,             // [F', H, W, C]
                      T* z,             // [F', m, C] mean over the region of a + b
                      const T* x,       // [F, H, W, C]
                      const T* w,       // [m, 2, C, C]: W_a, W_b
                      const T* biases,  // [m, 2, C]
                      void* workspace,  // [fta_workspace(...)]
                      const Shape& shape,
                      const uint8_t* support,  // [F', H, W] of y, or null; outside, y is 0 and x counts as 0
                      int64_t c);

  void (*fta_backward)(T* gx,            // [F, H, W, C]
                       T* gw,            // [m, 2, C, C]
                       T* gbiases,       // [m, 2, C]
                       const T* gy,      // [F', H, W, C]
                       const T* x,       // [F, H, W, C]
                       const T* z,       // [F', m, C], the output of fta_forward
                       const T* w,       // [m, 2, C, C]
                       const T* biases,  // [m, 2, C]
                       void* workspace,  // [fta_workspace(...)]
                       const Shape& shape,
                       const uint8_t* support,  // [F', H, W] of gy, or null; outside, gy counts as 0
                       int64_t c);
};

// Supports of feature maps, compiled for one instruction set.
struct Supports {
  // Grown by one position in time, rows and columns, inside region and sequence.
  void (*grow)(uint8_t* y,        // [F, H, W]
               const uint8_t* x,  // [F, H, W]
               const Shape& shape);

  // Of fta's output: any of the window's five frames.
  void (*window)(uint8_t* y,        // [F', H, W]
                 const uint8_t* x,  // [F, H, W]
                 const Shape& shape);

  // Of max_pool.
  void (*max_pool)(uint8_t* y,        // [frames, h / 2, w / 2]
                   const uint8_t* x,  // [frames, h, w]
                   int64_t frames, int64_t h, int64_t w);
};

// All functions, compiled for one instruction set.
struct Tables {
  Operators<float> single;
  Operators<double> dual;
  Supports supports;
};

// The files with operators: F.cpp has a function fill_F, once per instruction set, that puts its functions into the
// tables.
#define HSTL_OPERATOR_FILES(X) \
  X(arme_direct)               \
  X(arme_direct_wgrad)         \
  X(arme_winograd_prepack) X(arme_winograd) X(arme_winograd_wgrad) X(astp) X(fta) X(head) X(max_pool) X(support)

// Those of the instruction set in use.
const Supports& supports();

template <class T>
const Operators<T>& operators();

// Name of the i-th instruction set that this machine runs, best first; null past the last.
const char* instruction_set_name(int i);
const char* instruction_set();
bool use_instruction_set(const char* name);  // false when the name is unknown or the machine cannot run it
bool built_with_openmp();

}  // namespace hstl
