// The one header of hstl_fast._cuda: every native function that Python sees, as a plain struct of its arguments and the
// function that takes it, and the number of this interface. Addresses in device memory and sizes only: memory belongs
// to the caller, arguments are checked in Python, every element of an output is written. ../shapes.h says how maps lie
// in memory. Kernels are enqueued on `stream` of `device`; nothing waits for them. A call that fails throws, in CUDA's
// own words, and leaves the device usable where CUDA does.
//
// Tables in device memory, int32: `starts` [N + 1], the first frame of every sequence and the number of all frames;
// `ends` [F, 2], the first and last frame of a frame's sequence; `regions` [m, 2], first row and rows of every region;
// `region_of_row` [H]. Behind the last sequence there may be frames that belong to none: sizes say F, tables the rest.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../function.h"

namespace hstl {

// Counts the changes of what Python sees; Python refuses a binary with another number (../cpu/operators.h says when).
constexpr int kInterface = 1;

// The types of maps and weights, and how they are multiplied.
enum Type { kFloat32 = 0, kTf32 = 1, kFloat16 = 2, kBfloat16 = 3, kBytes = 4 };

// ---- arme

// Bytes of scratch memory for forward, dgrad (as forward, with c_in and c_out exchanged) and wgrad.
struct ArmeWorkspace {
  IntList split;
  int64_t frames, sequences, w, c_in, c_out;
  int type;
  int stretch;  // frames of one block's stretch of time, >= 1
  bool wgrad;
  int device;
  HSTL_FUNCTION("arme_workspace", split, frames, sequences, w, c_in, c_out, type, stretch, wgrad, device)
};

// y = leaky(conv3d of every region with its own weights, zero padding 1 around region and sequence), 0 outside its
// support.
struct ArmeForward {
  void* y;                   // [F, H, W, c_out], in the weights' type
  const void* x;             // [F, H, W, c_in], 0 outside its support; in the weights' type, or bytes 0..255 for 0..1
  const void* weights;       // [m, c_out, c_in, 3, 3, 3]
  const uint8_t* y_support;  // [F, H, W] or null: everywhere
  const int32_t* starts;
  const int32_t* ends;
  const int32_t* regions;
  void* workspace;  // [arme_workspace(...)], aligned to 256 bytes
  IntList split;
  int64_t frames, sequences, w, c_in, c_out;
  float negative_slope;  // 1: no activation
  int type;              // of weights and y
  int x_type;            // `type`, or kBytes
  int stretch;
  int device;
  void* stream;
  HSTL_FUNCTION("arme_forward", y, x, weights, y_support, starts, ends, regions, workspace, split, frames, sequences, w,
                c_in, c_out, negative_slope, type, x_type, stretch, device, stream)
};

// The gradient of x: that of the convolution, plus, where `maximum_index` names the frame, that of x's frame maximum,
// all times the derivative of the activation whose output x is.
struct ArmeDgrad {
  void* gx;                      // [F, H, W, c_in], 0 outside x_support
  const void* grad;              // [F, H, W, c_out], of the convolution's sums
  const void* weights;           // [m, c_out, c_in, 3, 3, 3]
  const uint8_t* x_support;      // [F, H, W] or null: everywhere
  const void* x;                 // [F, H, W, c_in], or null: no activation's derivative is applied
  const float* maximum_grad;     // [N, H, W, c_in], or null
  const int16_t* maximum_index;  // [N, H, W, c_in], frames of the sequence
  const int32_t* starts;
  const int32_t* ends;
  const int32_t* regions;
  void* workspace;  // [arme_workspace(...)], with c_in and c_out exchanged
  IntList split;
  int64_t frames, sequences, w, c_in, c_out;
  float x_slope;  // of the activation whose output x is
  int type;
  int stretch;
  int device;
  void* stream;
  HSTL_FUNCTION("arme_dgrad", gx, grad, weights, x_support, x, maximum_grad, maximum_index, starts, ends, regions,
                workspace, split, frames, sequences, w, c_in, c_out, x_slope, type, stretch, device, stream)
};

// The gradient of the weights.
struct ArmeWgrad {
  float* gw;                 // [m, c_out, c_in, 3, 3, 3]
  const void* grad;          // [F, H, W, c_out], of the convolution's sums; outside the support it is not read
  const void* x;             // [F, H, W, c_in]; in grad's type, or bytes 0..255 for 0..1
  const uint8_t* y_support;  // [F, H, W] or null: everywhere
  const int32_t* starts;
  const int32_t* ends;
  const int32_t* regions;
  void* workspace;  // [arme_workspace(..., wgrad)]
  IntList split;
  int64_t frames, sequences, w, c_in, c_out;
  int type;
  int x_type;
  int stretch;
  int device;
  void* stream;
  HSTL_FUNCTION("arme_wgrad", gw, grad, x, y_support, starts, ends, regions, workspace, split, frames, sequences, w,
                c_in, c_out, type, x_type, stretch, device, stream)
};

// grad is multiplied in place by the derivative of LeakyReLU, found from the sign of its output y.
struct LeakyBackward {
  void* grad;     // [size]
  const void* y;  // [size]
  int64_t size;
  float negative_slope;
  int type;
  int device;
  void* stream;
  HSTL_FUNCTION("leaky_backward", grad, y, size, negative_slope, type, device, stream)
};

// ---- astp

// The maximum over the frames of each sequence, and the first frame of the sequence that attains it; NaN wins, as in
// torch. A position outside the support counts as 0, whatever stands there.
struct FrameMaximum {
  void* maximum;           // [N, H, W, C], in x's type
  int16_t* index;          // [N, H, W, C]
  const void* x;           // [F, H, W, C]
  const uint8_t* support;  // [F, H, W] or null
  const int32_t* starts;
  int64_t sequences, h, w, c;
  int type;
  int device;
  void* stream;
  HSTL_FUNCTION("frame_maximum", maximum, index, x, support, starts, sequences, h, w, c, type, device, stream)
};

// gx: the maximum's gradient at the frame that attains it, 0 elsewhere.
struct FrameMaximumBackward {
  void* gx;          // [F, H, W, C]
  const void* grad;  // [N, H, W, C]
  const int16_t* index;
  const int32_t* ends;
  const int32_t* sequence_of_frame;  // [F]
  int64_t frames, h, w, c;
  int type;       // of gx
  int grad_type;  // `type` or kFloat32
  int device;
  void* stream;
  HSTL_FUNCTION("frame_maximum_backward", gx, grad, index, ends, sequence_of_frame, frames, h, w, c, type, grad_type,
                device, stream)
};

// gx += the maximum's gradient, at the frame that attains it.
struct FrameMaximumBackwardAdd {
  void* gx;          // [F, H, W, C]
  const void* grad;  // [N, H, W, C]
  const int16_t* index;
  const int32_t* starts;
  int64_t sequences, h, w, c;
  int type;
  int grad_type;
  int device;
  void* stream;
  HSTL_FUNCTION("frame_maximum_backward_add", gx, grad, index, starts, sequences, h, w, c, type, grad_type, device,
                stream)
};

// Of every region r, with u = maximum projT or, without a projection, the maximum itself, clamped from below at 1e-6:
// pooled = exp(log(mean(exp(p_r log u))) / p_r), relative to the largest u, and its derivative by p_r.
struct AstpForward {
  float* pooled;        // [N, m, c_out]
  float* by_power;      // [N, m, c_out]
  const void* maximum;  // [N, H, W, c_in]
  const float* proj;    // [c_out, c_in] or null: c_out = c_in
  const float* p;       // [m]
  const int32_t* regions;
  int64_t sequences, region_count, h, w, c_in, c_out;
  int type;  // of maximum
  int device;
  void* stream;
  HSTL_FUNCTION("astp_forward", pooled, by_power, maximum, proj, p, regions, sequences, region_count, h, w, c_in, c_out,
                type, device, stream)
};

// The gradient of u: grad (u / pooled)^(p - 1) / positions where u is not clamped, else 0.
struct AstpBackward {
  float* gu;            // [N, H, W, c_out]
  const float* grad;    // [N, m, c_out]
  const float* pooled;  // [N, m, c_out]
  const void* maximum;  // [N, H, W, c_in]
  const float* proj;
  const float* p;
  const int32_t* regions;
  const int32_t* region_of_row;
  int64_t sequences, region_count, h, w, c_in, c_out;
  int type;  // of maximum
  int device;
  void* stream;
  HSTL_FUNCTION("astp_backward", gu, grad, pooled, maximum, proj, p, regions, region_of_row, sequences, region_count, h,
                w, c_in, c_out, type, device, stream)
};

// ---- supports

// Grown by one position in time, rows and columns, inside region and sequence.
struct GrowSupport {
  uint8_t* y;        // [F, H, W]
  const uint8_t* x;  // [F, H, W]
  const int32_t* ends;
  const int32_t* regions;
  const int32_t* region_of_row;
  int64_t frames, h, w;
  int device;
  void* stream;
  HSTL_FUNCTION("grow_support", y, x, ends, regions, region_of_row, frames, h, w, device, stream)
};

// Any of fta's five frames.
struct WindowSupport {
  uint8_t* y;              // [F', H, W]
  const uint8_t* x;        // [F, H, W]
  const int32_t* windows;  // [F', 3]: a window's second frame, the first and the last frame of its sequence
  int64_t frames, h, w;    // F'
  int device;
  void* stream;
  HSTL_FUNCTION("window_support", y, x, windows, frames, h, w, device, stream)
};

// Any of 2 x 2 positions.
struct MaxPoolSupport {
  uint8_t* y;            // [F, H / 2, W / 2]
  const uint8_t* x;      // [F, H, W]
  int64_t frames, h, w;  // of x
  int device;
  void* stream;
  HSTL_FUNCTION("max_pool_support", y, x, frames, h, w, device, stream)
};

size_t run(const ArmeWorkspace&);
void run(const ArmeForward&);
void run(const ArmeDgrad&);
void run(const ArmeWgrad&);
void run(const LeakyBackward&);
void run(const FrameMaximum&);
void run(const FrameMaximumBackward&);
void run(const FrameMaximumBackwardAdd&);
void run(const AstpForward&);
void run(const AstpBackward&);
void run(const GrowSupport&);
void run(const WindowSupport&);
void run(const MaxPoolSupport&);

}  // namespace hstl
