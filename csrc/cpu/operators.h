// The one header of hstl_fast._cpu: every native function that Python sees, as a plain struct of its arguments and the
// function that takes it, and the number of this interface. Raw pointers and sizes only: memory belongs to the caller,
// arguments are checked in Python, every element of an output is written. ../shapes.h says how maps lie in memory.
//
// A new argument is a new field: here, in its struct and in the list below its fields, and in the call's class in
// hstl_fast/backends/cpu. Python compares the two lists when it first makes the call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../function.h"
#include "../shapes.h"

namespace hstl {

// Counts the changes of what Python sees; Python refuses a binary with another number. The comparison of the names of
// fields finds an argument that was added, removed, renamed or moved. It does not find one that keeps its name and
// place and gets another type, layout in memory or meaning, nor a changed layout of prepacked weights: raise the number
// for every change.
constexpr int kInterface = 13;

// The algorithm of a convolution: direct, or Winograd with tiles of 4 x 4 positions and so many frames.
constexpr int kDirect = 0;
constexpr int kWinogradFrames[] = {2, 4, 5};

// ---- arme. `algorithm` is kDirect or one of kWinogradFrames; a support is null where a map may be non-zero
// everywhere, and a position outside counts as 0, whatever stands there.

// Bytes of prepacked weights.
template <class T>
struct ArmePrepackedSize {
  IntList split;
  int64_t c_in, c_out;
  int algorithm;
  bool transposed;
  int itemsize;  // sizeof(T)
  HSTL_FUNCTION("arme_prepacked_size", split, c_in, c_out, algorithm, transposed, itemsize)
};

// The weights as forward reads them, or, transposed, as dgrad does.
template <class T>
struct ArmePrepack {
  void* prepacked;   // [arme_prepacked_size(...)]
  const T* weights;  // [m, c_out, c_in, 3, 3, 3]
  IntList split;
  int64_t c_in, c_out;
  int algorithm;
  bool transposed;
  int itemsize;
  int threads;
  HSTL_FUNCTION("arme_prepack", prepacked, weights, split, c_in, c_out, algorithm, transposed, itemsize, threads)
};

// Bytes that forward and dgrad may use each.
template <class T>
struct ArmeWorkspace {
  IntList seq_lens, split;
  int64_t w, c_in, c_out;
  int algorithm;
  int itemsize;
  int threads;
  bool maximum;  // whether forward finds one
  HSTL_FUNCTION("arme_workspace", seq_lens, split, w, c_in, c_out, algorithm, itemsize, threads, maximum)
};

// Bytes that wgrad may use.
template <class T>
struct ArmeWgradWorkspace {
  IntList seq_lens, split;
  int64_t w, c_in, c_out;
  int algorithm;
  int itemsize;
  int threads;
  HSTL_FUNCTION("arme_wgrad_workspace", seq_lens, split, w, c_in, c_out, algorithm, itemsize, threads)
};

// y = leaky(conv3d of every region with its own weights, zero padding 1 around region and sequence), 0 outside its
// support. In the Winograd domain also, where asked for, the maximum over the frames of each sequence, and the 2x2
// spatial maximum of every frame, for which regions and width have to be even. Where the algorithm is direct, y is all
// there is.
template <class T>
struct ArmeForward {
  T* y;                      // [F, H, W, c_out], or null where only the maxima are wanted
  const T* x;                // [F, H, W, c_in]
  void* prepacked;           // by arme_prepack, not transposed; see weights
  void* workspace;           // [arme_workspace(...)]
  const uint8_t* x_support;  // [F, H, W] or null
  const uint8_t* y_support;  // [F, H, W] or null: x_support grown by one position inside region and sequence
  IntList seq_lens, split;
  int64_t w, c_in, c_out;
  T negative_slope;  // 1: no activation
  int algorithm;
  int itemsize;
  int threads;
  T* maximum;           // [N, H, W, c_out] or null
  T* max_pooled;        // [F, H / 2, W / 2, c_out] or null
  bool leaves_outside;  // by Winograd: nothing is written outside y_support; direct always writes zeros there
  // By Winograd [m, c_out, c_in, 3, 3, 3]: prepacked on the way, one region after another, in `prepacked`, which is as
  // large as one region's. Null where they are prepacked already.
  const T* weights;
  HSTL_FUNCTION("arme_forward", y, x, prepacked, workspace, x_support, y_support, seq_lens, split, w, c_in, c_out,
                negative_slope, algorithm, itemsize, threads, maximum, max_pooled, leaves_outside, weights)
};

// The direct forward of silhouettes, which are 0..1 as x / 255, and are their own support, and the maximum over the
// frames of each sequence.
template <class T>
struct SilhouettesForward {
  T* y;                        // [F, H, W, c_out], or null where only the maximum is wanted
  const uint8_t* silhouettes;  // [F, H, W]
  const void* prepacked;       // by arme_prepack, direct, not transposed
  void* workspace;             // [arme_workspace(...)], direct
  const uint8_t* support;      // [F, H, W] of y, or null
  IntList seq_lens, split;
  int64_t w, c_out;
  T negative_slope;
  int itemsize;
  int threads;
  T* maximum;           // [N, H, W, c_out] or null
  bool leaves_outside;  // y outside its support is left as it is, not set to 0
  HSTL_FUNCTION("silhouettes_forward", y, silhouettes, prepacked, workspace, support, seq_lens, split, w, c_out,
                negative_slope, itemsize, threads, maximum, leaves_outside)
};

// gx = transposed convolution of grad * (y > 0 ? 1 : negative_slope), 0 outside x_support.
template <class T>
struct ArmeDgrad {
  T* gx;                     // [F, H, W, c_in]
  const T* grad;             // [F, H, W, c_out]
  const T* y;                // [F, H, W, c_out], or null when negative_slope is 1
  void* prepacked;           // by arme_prepack, transposed; see weights
  void* workspace;           // [arme_workspace(...)]
  const uint8_t* x_support;  // [F, H, W] or null
  const uint8_t* y_support;  // [F, H, W] or null
  IntList seq_lens, split;
  int64_t w, c_in, c_out;
  T negative_slope;
  int algorithm;
  int itemsize;
  int threads;
  const T* weights;  // as in ArmeForward
  HSTL_FUNCTION("arme_dgrad", gx, grad, y, prepacked, workspace, x_support, y_support, seq_lens, split, w, c_in, c_out,
                negative_slope, algorithm, itemsize, threads, weights)
};

// gw = the gradient of the weights.
template <class T>
struct ArmeWgrad {
  T* gw;                     // [m, c_out, c_in, 3, 3, 3]
  const T* x;                // [F, H, W, c_in]
  const T* grad;             // [F, H, W, c_out]
  const T* y;                // [F, H, W, c_out], or null when negative_slope is 1
  void* workspace;           // [arme_wgrad_workspace(...)]
  const uint8_t* x_support;  // [F, H, W] or null
  const uint8_t* y_support;  // [F, H, W] or null
  IntList seq_lens, split;
  int64_t w, c_in, c_out;
  T negative_slope;
  int algorithm;
  int itemsize;
  int threads;
  HSTL_FUNCTION("arme_wgrad", gw, x, grad, y, workspace, x_support, y_support, seq_lens, split, w, c_in, c_out,
                negative_slope, algorithm, itemsize, threads)
};

// grad *= y > 0 ? 1 : negative_slope inside the support; what stands outside stays.
template <class T>
struct LeakyBackward {
  T* grad;                 // [F, H, W, C]
  const T* y;              // [F, H, W, C], the output of the activation
  const uint8_t* support;  // [F, H, W] or null
  IntList seq_lens, split;
  int64_t w, c;
  T negative_slope;
  int itemsize;
  int threads;
  HSTL_FUNCTION("leaky_backward", grad, y, support, seq_lens, split, w, c, negative_slope, itemsize, threads)
};

// ---- astp

// The maximum over the frames of each sequence.
template <class T>
struct FrameMaximum {
  T* maximum;      // [N, H, W, C]
  int16_t* index;  // [N, H, W, C] first frame of the sequence that attains it, or null
  const T* x;      // [F, H, W, C], 0 outside its support
  IntList seq_lens;
  int64_t h, w, c;
  int itemsize;
  int threads;
  const uint8_t* support;  // [F, H, W] of x, or null
  HSTL_FUNCTION("frame_maximum", maximum, index, x, seq_lens, h, w, c, itemsize, threads, support)
};

// gx = grad at the index frame, else 0.
template <class T>
struct FrameMaximumBackward {
  T* gx;                 // [F, H, W, C]
  const T* grad;         // [N, H, W, C]
  const int16_t* index;  // [N, H, W, C]
  IntList seq_lens;
  int64_t h, w, c;
  int itemsize;
  int threads;
  HSTL_FUNCTION("frame_maximum_backward", gx, grad, index, seq_lens, h, w, c, itemsize, threads)
};

// gx += grad at the index frame.
template <class T>
struct FrameMaximumBackwardAdd {
  T* gx;                 // [F, H, W, C]
  const T* grad;         // [N, H, W, C]
  const int16_t* index;  // [N, H, W, C]
  IntList seq_lens;
  int64_t h, w, c;
  int itemsize;
  int threads;
  HSTL_FUNCTION("frame_maximum_backward_add", gx, grad, index, seq_lens, h, w, c, itemsize, threads)
};

// Bytes that each of the two functions below may use.
template <class T>
struct AstpWorkspace {
  int64_t n;  // N
  IntList split;
  int64_t w, c_in, c_out;
  int itemsize;
  int threads;
  HSTL_FUNCTION("astp_workspace", n, split, w, c_in, c_out, itemsize, threads)
};

// pooled = mean over the region of max(u, 1e-6)^p, to the power 1 / p; u = proj applied to the maximum over the frames
// of each sequence.
template <class T>
struct AstpForward {
  T* pooled;               // [N, m, c_out]
  const T* x;              // [F, H, W, c_in], 0 outside its support
  const T* proj;           // [c_out, c_in], or null: u is the maximum, c_out == c_in
  const T* p;              // [m]
  void* workspace;         // [astp_workspace(...)]
  const uint8_t* support;  // [F, H, W] of x, or null
  IntList seq_lens, split;
  int64_t w, c_in, c_out;
  int itemsize;
  int threads;
  HSTL_FUNCTION("astp_forward", pooled, x, proj, p, workspace, support, seq_lens, split, w, c_in, c_out, itemsize,
                threads)
};

// The gradients of proj, p and the maxima of astp_forward.
template <class T>
struct AstpBackward {
  T* gmaximum;       // [N, H, W, c_in]
  T* gproj;          // [c_out, c_in], or null with proj
  T* gp;             // [m]
  const T* grad;     // [N, m, c_out]
  const T* pooled;   // [N, m, c_out], the output of astp_forward
  const T* maximum;  // [N, H, W, c_in]
  const T* proj;     // [c_out, c_in] or null
  const T* p;        // [m]
  void* workspace;   // [astp_workspace(...)]
  int64_t n;         // N
  IntList split;
  int64_t w, c_in, c_out;
  int itemsize;
  int threads;
  HSTL_FUNCTION("astp_backward", gmaximum, gproj, gp, grad, pooled, maximum, proj, p, workspace, n, split, w, c_in,
                c_out, itemsize, threads)
};

// ---- fta

// Bytes that each of the two functions below may use.
template <class T>
struct FtaWorkspace {
  IntList seq_lens, split;
  int64_t w, c;
  int itemsize;
  int threads;
  HSTL_FUNCTION("fta_workspace", seq_lens, split, w, c, itemsize, threads)
};

// F' = sum(floor(seq_lens / 3)); a = maximum of frames 3t'..3t'+2, b = of 3t'-1..3t'+3 inside the sequence;
// y = s_a a + s_b b, (s_a, s_b) = softmax(W_a z + b_a, W_b z + b_b), z the means.
template <class T>
struct FtaForward {
  T* y;              // [F', H, W, C]
  T* means;          // [F', m, C] mean over the region of a + b
  const T* x;        // [F, H, W, C]
  const T* weights;  // [m, 2, C, C]: W_a, W_b
  const T* biases;   // [m, 2, C]
  void* workspace;   // [fta_workspace(...)]
  IntList seq_lens, split;
  int64_t w, c;
  int itemsize;
  int threads;
  const uint8_t* y_support;  // [F', H, W], or null; outside, y is 0 and x counts as 0
  const uint8_t* x_support;  // [F, H, W], or null; outside, x counts as 0 and is not read
  HSTL_FUNCTION("fta_forward", y, means, x, weights, biases, workspace, seq_lens, split, w, c, itemsize, threads,
                y_support, x_support)
};

// The gradients of all inputs of fta_forward.
template <class T>
struct FtaBackward {
  T* gx;             // [F, H, W, C]
  T* gweights;       // [m, 2, C, C]
  T* gbiases;        // [m, 2, C]
  const T* grad;     // [F', H, W, C]
  const T* x;        // [F, H, W, C]
  const T* means;    // [F', m, C], the output of fta_forward
  const T* weights;  // [m, 2, C, C]
  const T* biases;   // [m, 2, C]
  void* workspace;   // [fta_workspace(...)]
  IntList seq_lens, split;
  int64_t w, c;
  int itemsize;
  int threads;
  const uint8_t* y_support;  // [F', H, W] of grad, or null; outside, grad counts as 0
  HSTL_FUNCTION("fta_backward", gx, gweights, gbiases, grad, x, means, weights, biases, workspace, seq_lens, split, w,
                c, itemsize, threads, y_support)
};

// ---- what only execution plans use

// The 2x2 spatial maximum, stride 2, of every frame; odd last rows and columns are left out.
template <class T>
struct MaxPool {
  T* y;                    // [frames, h / 2, w / 2, C]
  const T* x;              // [frames, h, w, C]
  const uint8_t* support;  // [frames, h / 2, w / 2] of y, or null; outside, y is 0
  int64_t frames, h, w, c;
  int itemsize;
  int threads;
  HSTL_FUNCTION("max_pool", y, x, support, frames, h, w, c, itemsize, threads)
};

// A fully connected layer per part, then batch norm with fixed statistics:
// y[n, p] = (x[n, p] fc[p] - running_mean) / sqrt(running_var + eps) * weight + bias.
template <class T>
struct Head {
  T* y;                                                 // [n, parts, c_out]
  const T* x;                                           // [n, parts, c_in]
  const T* fc;                                          // [parts, c_in, c_out]
  const T *running_mean, *running_var, *weight, *bias;  // [c_out]
  T eps;
  int64_t n, parts, c_in, c_out;
  int itemsize;
  int threads;
  HSTL_FUNCTION("head", y, x, fc, running_mean, running_var, weight, bias, eps, n, parts, c_in, c_out, itemsize,
                threads)
};

// ---- distances of embeddings

// Bytes that part_distances may use.
template <class T>
struct PartDistancesWorkspace {
  int64_t n, parts, c;
  int itemsize;
  int threads;
  HSTL_FUNCTION("part_distances_workspace", n, parts, c, itemsize, threads)
};

// distances[i, j] = the mean over the parts of the Euclidean distance of probe[i] to gallery[order[j]], or of one minus
// their cosine. Equal embeddings have a Euclidean distance of exactly 0. The nearer the embeddings lie to the centre,
// the fewer pairs need more than a product.
template <class T>
struct PartDistances {
  T* distances;          // [n, k]
  const T* probe;        // [n, parts, c]
  const T* gallery;      // [any, parts, c]
  const int64_t* order;  // [k] rows of the gallery
  const T* centre;       // [parts, c], or null for zeros
  void* workspace;       // [part_distances_workspace(...)]
  int64_t n, k, parts, c;
  bool cosine;
  int itemsize;
  int threads;
  HSTL_FUNCTION("part_distances", distances, probe, gallery, order, centre, workspace, n, k, parts, c, cosine, itemsize,
                threads)
};

// distances[i, j] = the mean over the parts of the Euclidean distance of probe[i] to gallery[j], from differences
// alone: made for few probes. It is NaN or infinite where an embedding is not finite or where squares overflow.
template <class T>
struct DifferenceDistances {
  T* distances;      // [n, k]
  const T* probe;    // [n, parts, c]
  const T* gallery;  // [k, parts, c]
  int64_t n, k, parts, c;
  int itemsize;
  int threads;
  HSTL_FUNCTION("difference_distances", distances, probe, gallery, n, k, parts, c, itemsize, threads)
};

// The distance of probe[probe_rows[i]] to gallery[gallery_rows[i]], computed in double.
template <class T>
struct PairDistances {
  double* distances;            // [pairs]
  const T* probe;               // [any, parts, c]
  const T* gallery;             // [any, parts, c]
  const int64_t* probe_rows;    // [pairs]
  const int64_t* gallery_rows;  // [pairs]
  int64_t pairs, parts, c;
  bool cosine;
  int itemsize;
  int threads;
  HSTL_FUNCTION("pair_distances", distances, probe, gallery, probe_rows, gallery_rows, pairs, parts, c, cosine,
                itemsize, threads)
};

// ---- supports

// The support of silhouettes: where they are not 0.
struct FindSupport {
  uint8_t* y;     // [count]
  const void* x;  // [count] uint8, float or double
  int64_t count;
  int itemsize;  // of x: 1, 4 or 8
  int threads;
  HSTL_FUNCTION("find_support", y, x, count, itemsize, threads)
};

// Grown by one position in time, rows and columns, inside region and sequence.
struct GrowSupport {
  uint8_t* y;        // [F, H, W]
  const uint8_t* x;  // [F, H, W]
  IntList seq_lens, split;
  int64_t w;
  int threads;
  HSTL_FUNCTION("grow_support", y, x, seq_lens, split, w, threads)
};

// The support of fta's output: any of the window's five frames.
struct WindowSupport {
  uint8_t* y;        // [F', H, W]
  const uint8_t* x;  // [F, H, W]
  IntList seq_lens;
  int64_t h, w;
  int threads;
  HSTL_FUNCTION("window_support", y, x, seq_lens, h, w, threads)
};

// The support of max_pool's output.
struct MaxPoolSupport {
  uint8_t* y;        // [frames, h / 2, w / 2]
  const uint8_t* x;  // [frames, h, w]
  int64_t frames, h, w;
  HSTL_FUNCTION("max_pool_support", y, x, frames, h, w)
};

// ---- copies

// y[i] = x[i], rows of so many bytes; one row of y begins `stride` bytes after another.
struct CopyRows {
  char* y;
  const char* x;  // [rows, bytes]
  int64_t rows, bytes, stride;
  HSTL_FUNCTION("copy_rows", y, x, rows, bytes, stride)
};

// ---- checksums

// 128 bits of each piece of memory, by which a change is noticed; the same for any number of threads and on every
// instruction set.
struct Checksum {
  uint64_t* digests;         // [k, 2]
  IntList addresses, sizes;  // [k], sizes in bytes
  int threads;
  HSTL_FUNCTION("checksum", digests, addresses, sizes, threads)
};

// ---- tables of functions

// The functions of one algorithm of the region-wise convolution.
template <class T>
struct Arme {
  size_t (*prepacked_size)(const ArmePrepackedSize<T>&);
  void (*prepack)(const ArmePrepack<T>&);
  size_t (*workspace)(const ArmeWorkspace<T>&);
  size_t (*wgrad_workspace)(const ArmeWgradWorkspace<T>&);
  void (*forward)(const ArmeForward<T>&);
  void (*dgrad)(const ArmeDgrad<T>&);
  void (*wgrad)(const ArmeWgrad<T>&);
};

// The operators for T = float or double.
template <class T>
struct Operators {
  Arme<T> direct;
  Arme<T> winograd;  // float only: null functions for double
  void (*silhouettes_forward)(const SilhouettesForward<T>&);
  void (*leaky_backward)(const LeakyBackward<T>&);
  void (*frame_maximum)(const FrameMaximum<T>&);
  void (*frame_maximum_backward)(const FrameMaximumBackward<T>&);
  void (*frame_maximum_backward_add)(const FrameMaximumBackwardAdd<T>&);
  size_t (*astp_workspace)(const AstpWorkspace<T>&);
  void (*astp_forward)(const AstpForward<T>&);
  void (*astp_backward)(const AstpBackward<T>&);
  size_t (*fta_workspace)(const FtaWorkspace<T>&);
  void (*fta_forward)(const FtaForward<T>&);
  void (*fta_backward)(const FtaBackward<T>&);
  void (*max_pool)(const MaxPool<T>&);
  void (*head)(const Head<T>&);
  size_t (*part_distances_workspace)(const PartDistancesWorkspace<T>&);
  void (*part_distances)(const PartDistances<T>&);
  void (*difference_distances)(const DifferenceDistances<T>&);
  void (*pair_distances)(const PairDistances<T>&);
};

struct Supports {
  void (*find)(const FindSupport&);
  void (*grow)(const GrowSupport&);
  void (*window)(const WindowSupport&);
  void (*max_pool)(const MaxPoolSupport&);
};

// All functions, compiled for one instruction set.
struct Tables {
  Operators<float> float32;
  Operators<double> float64;
  Supports supports;
  void (*copy_rows)(const CopyRows&);
  void (*checksum)(const Checksum&);
};

// The files with operators: F.cpp has a function fill_F that puts its functions into the tables. csrc/build.py compiles
// each file once per instruction set; HSTL_ISA is the name of the set, and the namespace of all that is compiled for
// it.
#define HSTL_OPERATOR_FILES(X) \
  X(arme_direct)               \
  X(arme_direct_wgrad)         \
  X(arme_silhouettes)          \
  X(arme_winograd_prepack)     \
  X(arme_winograd)             \
  X(arme_winograd_wgrad)       \
  X(astp)                      \
  X(checksum)                  \
  X(copy_rows)                 \
  X(distances)                 \
  X(frame_maximum)             \
  X(fta)                       \
  X(head)                      \
  X(leaky)                     \
  X(max_pool)                  \
  X(support)

// The functions for the instruction set in use.
template <class T>
const Operators<T>& operators();
const Supports& supports();
void copy_rows(const CopyRows& a);
void checksum(const Checksum& a);

// Name of the i-th instruction set that this machine runs, best first; null past the last.
const char* instruction_set_name(int i);
const char* instruction_set();
bool use_instruction_set(const char* name);  // false when the name is unknown or the machine cannot run it
bool built_with_openmp();

// ---- shapes from arguments

namespace {

// One thread where the binary was built without OpenMP.
inline int usable_threads(int threads) {
#ifdef _OPENMP
  return threads < 1 ? 1 : threads;
#else
  (void)threads;
  return 1;
#endif
}

inline Shape shape_of(IntList seq_lens, IntList split, int64_t w, int threads) {
  return {seq_lens.data, seq_lens.size, split.data, split.size, w, usable_threads(threads)};
}

// The shape of a map by its arguments, which have to outlive it.
template <class Arguments>
Shape shape_of(const Arguments& a) {
  return shape_of(a.seq_lens, a.split, a.w, a.threads);
}

// The shape of a map whose rows are one region.
template <class Arguments>
Shape undivided_shape_of(const Arguments& a) {
  return shape_of(a.seq_lens, {&a.h, 1}, a.w, a.threads);
}

}  // namespace
}  // namespace hstl
