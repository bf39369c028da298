// Every operator of csrc/cpu/operators.h as plain loops in double, straight from its definition. Slow, for small maps.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace naive {

using Map = std::vector<double>;
using Mask = std::vector<uint8_t>;  // one per position; empty: everywhere
using Sizes = std::vector<int64_t>;

constexpr double kClamp = 1e-6;

struct Case {
  Sizes seq_lens, split;
  int64_t w, cin, cout;

  static int64_t sum(const Sizes& sizes) {
    int64_t total = 0;
    for (int64_t size : sizes) total += size;
    return total;
  }
  int64_t n() const { return int64_t(seq_lens.size()); }
  int64_t m() const { return int64_t(split.size()); }
  int64_t h() const { return sum(split); }
  int64_t frames() const { return sum(seq_lens); }
  int64_t positions() const { return frames() * h() * w; }
  int64_t windows() const {
    int64_t total = 0;
    for (int64_t length : seq_lens) total += length / 3;
    return total;
  }
};

// The part that holds `at` when parts of these sizes stand one after another.
struct Part {
  int64_t index, begin, end;
};

inline Part part_of(const Sizes& sizes, int64_t at) {
  int64_t index = 0, begin = 0;
  for (; at >= begin + sizes[index]; ++index) begin += sizes[index];
  return {index, begin, begin + sizes[index]};
}

// f(position of the output, position of the input, tap 0..26, region) wherever the tap stays inside.
template <class F>
void for_each_tap(const Case& c, const F& f) {
  int64_t h = c.h(), w = c.w;
  for (int64_t t = 0; t < c.frames(); ++t)
    for (int64_t row = 0; row < h; ++row)
      for (int64_t column = 0; column < w; ++column) {
        Part sequence = part_of(c.seq_lens, t), region = part_of(c.split, row);
        for (int64_t tap = 0; tap < 27; ++tap) {
          int64_t t2 = t + tap / 9 - 1, row2 = row + tap / 3 % 3 - 1, column2 = column + tap % 3 - 1;
          bool inside = t2 >= sequence.begin && t2 < sequence.end && row2 >= region.begin && row2 < region.end;
          if (inside && column2 >= 0 && column2 < w)
            f((t * h + row) * w + column, (t2 * h + row2) * w + column2, tap, region.index);
        }
      }
}

// ---- supports

inline Mask grown(const Case& c, const Mask& x) {
  Mask y(x.size(), 0);
  for_each_tap(c, [&](int64_t out, int64_t in, int64_t, int64_t) { y[out] |= x[in]; });
  return y;
}

// Frames of a window of fta, inside the sequence.
struct Window {
  int64_t begin, end;
};

// f(output frame, frames of the window of 3, of the window of 5)
template <class F>
void for_each_window(const Case& c, const F& f) {
  int64_t begin = 0, out = 0;
  for (int64_t length : c.seq_lens) {
    for (int64_t i = 0; i < length / 3; ++i, ++out) {
      int64_t first = std::max<int64_t>(3 * i - 1, 0), last = std::min(3 * i + 4, length);
      f(out, Window{begin + 3 * i, begin + 3 * i + 3}, Window{begin + first, begin + last});
    }
    begin += length;
  }
}

inline Mask windows_of(const Case& c, const Mask& x) {
  int64_t map = c.h() * c.w;
  Mask y(c.windows() * map, 0);
  for_each_window(c, [&](int64_t out, Window, Window five) {
    for (int64_t t = five.begin; t < five.end; ++t)
      for (int64_t i = 0; i < map; ++i) y[out * map + i] |= x[t * map + i];
  });
  return y;
}

inline Mask max_pooled(const Mask& x, int64_t frames, int64_t h, int64_t w) {
  Mask y(frames * (h / 2) * (w / 2), 0);
  for (int64_t t = 0; t < frames; ++t)
    for (int64_t row = 0; row < h / 2 * 2; ++row)
      for (int64_t column = 0; column < w / 2 * 2; ++column)
        y[(t * (h / 2) + row / 2) * (w / 2) + column / 2] |= x[(t * h + row) * w + column];
  return y;
}

// The 2x2 spatial maximum of every frame.
inline Map max_pool(const Case& c, const Map& x) {
  int64_t rows = c.h() / 2, columns = c.w / 2, from = c.w * c.cin;
  Map y;
  for (int64_t t = 0; t < c.frames(); ++t)
    for (int64_t i = 0; i < rows * columns * c.cin; ++i) {
      int64_t row = i / (columns * c.cin), column = i / c.cin % columns;
      const double* upper = x.data() + ((t * c.h() + 2 * row) * c.w + 2 * column) * c.cin + i % c.cin;
      y.push_back(std::max({upper[0], upper[c.cin], upper[from], upper[from + c.cin]}));
    }
  return y;
}

// y[n, p] = ((x[n, p] w[p]) - mean) / sqrt(variance + eps) * weight + bias; `norm` holds the four one after another.
inline Map head(const Map& x, const Map& w, const Map& norm, double eps, int64_t parts, int64_t cin, int64_t cout) {
  Map y;
  for (int64_t row = 0; row < int64_t(x.size()) / cin; ++row)
    for (int64_t o = 0; o < cout; ++o) {
      double sum = 0;
      for (int64_t k = 0; k < cin; ++k) sum += x[row * cin + k] * w[(row % parts * cin + k) * cout + o];
      y.push_back((sum - norm[o]) / std::sqrt(norm[cout + o] + eps) * norm[2 * cout + o] + norm[3 * cout + o]);
    }
  return y;
}

// [n, k] of a [n, parts, c] and b [any, parts, c], of which the rows `order` [k] are compared: mean over the parts of
// the Euclidean distance, or of one minus the cosine.
inline Map part_distances(const Map& a, const Map& b, const Sizes& order, int64_t parts, int64_t c, bool cosine) {
  Map y;
  for (int64_t i = 0; i < int64_t(a.size()) / (parts * c); ++i)
    for (int64_t row : order) {
      double mean = 0;
      for (int64_t p = 0; p < parts; ++p) {
        const double *u = a.data() + (i * parts + p) * c, *v = b.data() + (row * parts + p) * c;
        double squares = 0, dot = 0, norms[2] = {0, 0};
        for (int64_t k = 0; k < c; ++k) {
          squares += (u[k] - v[k]) * (u[k] - v[k]);
          dot += u[k] * v[k];
          norms[0] += u[k] * u[k];
          norms[1] += v[k] * v[k];
        }
        mean += (cosine ? 1 - dot / std::sqrt(norms[0] * norms[1]) : std::sqrt(squares)) / double(parts);
      }
      y.push_back(mean);
    }
  return y;
}

inline bool inside(const Mask& mask, int64_t position) { return mask.empty() || mask[position]; }

// The map with zeros outside the support, whatever stood there.
inline Map masked(Map map, const Mask& mask, int64_t channels) {
  for (int64_t i = 0; i < int64_t(map.size()); ++i)
    if (!inside(mask, i / channels)) map[i] = 0;
  return map;
}

// ---- arme

inline Map arme_forward(const Case& c, const Map& x, const Map& weights, double slope) {
  Map y(c.positions() * c.cout, 0);
  for_each_tap(c, [&](int64_t out, int64_t in, int64_t tap, int64_t r) {
    for (int64_t o = 0; o < c.cout; ++o)
      for (int64_t i = 0; i < c.cin; ++i)
        y[out * c.cout + o] += weights[((r * c.cout + o) * c.cin + i) * 27 + tap] * x[in * c.cin + i];
  });
  for (double& value : y) value *= value > 0 ? 1 : slope;
  return y;
}

struct ArmeGradients {
  Map x, weights;
};

inline ArmeGradients arme_backward(const Case& c, const Map& x, const Map& weights, const Map& y, Map gy,
                                   double slope) {
  ArmeGradients g = {Map(x.size(), 0), Map(weights.size(), 0)};
  for (size_t i = 0; i < gy.size(); ++i) gy[i] *= y[i] > 0 ? 1 : slope;
  for_each_tap(c, [&](int64_t out, int64_t in, int64_t tap, int64_t r) {
    for (int64_t o = 0; o < c.cout; ++o)
      for (int64_t i = 0; i < c.cin; ++i) {
        int64_t weight = ((r * c.cout + o) * c.cin + i) * 27 + tap;
        g.x[in * c.cin + i] += weights[weight] * gy[out * c.cout + o];
        g.weights[weight] += gy[out * c.cout + o] * x[in * c.cin + i];
      }
  });
  return g;
}

// ---- astp

struct Maximum {
  Map values;
  Sizes frames;  // of the sequence
};

inline Maximum frame_maximum(const Case& c, const Map& x) {
  int64_t map = c.h() * c.w * c.cin, begin = 0;
  Maximum result;
  for (int64_t length : c.seq_lens) {
    for (int64_t i = 0; i < map; ++i) {
      int64_t first = 0;
      for (int64_t t = 1; t < length; ++t)
        if (x[(begin + t) * map + i] > x[(begin + first) * map + i]) first = t;
      result.values.push_back(x[(begin + first) * map + i]);
      result.frames.push_back(first);
    }
    begin += length;
  }
  return result;
}

inline Map frame_maximum_backward(const Case& c, const Map& gmaximum, const Sizes& frames) {
  int64_t map = c.h() * c.w * c.cin, begin = 0;
  Map gx(c.frames() * map, 0);
  for (int64_t n = 0; n < c.n(); begin += c.seq_lens[n++])
    for (int64_t i = 0; i < map; ++i) gx[(begin + frames[n * map + i]) * map + i] = gmaximum[n * map + i];
  return gx;
}

// u[n][h][w][cout]; without a projection the maximum itself.
inline Map projected(const Case& c, const Map& maximum, const Map& proj) {
  if (proj.empty()) return maximum;
  Map u(c.n() * c.h() * c.w * c.cout, 0);
  for (int64_t i = 0; i < int64_t(u.size()); ++i)
    for (int64_t k = 0; k < c.cin; ++k) u[i] += proj[i % c.cout * c.cin + k] * maximum[i / c.cout * c.cin + k];
  return u;
}

// Index in pooled [N, m, cout] of an element of u [N, H, W, cout].
inline int64_t pool_of(const Case& c, int64_t element) {
  int64_t row = element / c.cout / c.w % c.h(), n = element / c.cout / c.w / c.h();
  return (n * c.m() + part_of(c.split, row).index) * c.cout + element % c.cout;
}

inline Map mean_powers(const Case& c, const Map& u, const Map& p) {
  Map means(c.n() * c.m() * c.cout, 0);
  for (int64_t i = 0; i < int64_t(u.size()); ++i) {
    int64_t pool = pool_of(c, i), r = pool / c.cout % c.m();
    means[pool] += std::pow(std::max(u[i], kClamp), p[r]) / double(c.split[r] * c.w);
  }
  return means;
}

inline Map astp_forward(const Case& c, const Map& maximum, const Map& proj, const Map& p) {
  Map pooled = mean_powers(c, projected(c, maximum, proj), p);
  for (int64_t i = 0; i < int64_t(pooled.size()); ++i) pooled[i] = std::pow(pooled[i], 1 / p[i / c.cout % c.m()]);
  return pooled;
}

struct AstpGradients {
  Map maximum, proj, p;
};

inline AstpGradients astp_backward(const Case& c, const Map& maximum, const Map& proj, const Map& p,
                                   const Map& gpooled) {
  Map u = projected(c, maximum, proj), means = mean_powers(c, u, p), pooled = astp_forward(c, maximum, proj, p);
  AstpGradients g = {Map(maximum.size(), 0), Map(proj.size(), 0), Map(p.size(), 0)};
  Map gu(u.size(), 0);
  for (int64_t i = 0; i < int64_t(u.size()); ++i) {
    int64_t pool = pool_of(c, i), r = pool / c.cout % c.m();
    double v = std::max(u[i], kClamp), share = pooled[pool] / means[pool] / double(c.split[r] * c.w) * gpooled[pool];
    if (u[i] >= kClamp) gu[i] = share * std::pow(v, p[r] - 1);
    g.p[r] += share * std::pow(v, p[r]) * std::log(v) / p[r];
  }
  for (int64_t i = 0; i < int64_t(pooled.size()); ++i) {
    int64_t r = i / c.cout % c.m();
    g.p[r] -= gpooled[i] * pooled[i] * std::log(means[i]) / (p[r] * p[r]);
  }
  if (proj.empty()) {
    g.maximum = gu;
    return g;
  }
  for (int64_t i = 0; i < int64_t(u.size()); ++i)
    for (int64_t k = 0; k < c.cin; ++k) {
      g.maximum[i / c.cout * c.cin + k] += gu[i] * proj[i % c.cout * c.cin + k];
      g.proj[i % c.cout * c.cin + k] += gu[i] * maximum[i / c.cout * c.cin + k];
    }
  return g;
}

// ---- fta: weights [m, 2, C, C], biases [m, 2, C], C = cin

// The elements of x that the two windows of every element of y take, the first of equals.
struct Taken {
  Sizes three, five;
};

inline Taken taken_by_windows(const Case& c, const Map& x) {
  int64_t map = c.h() * c.w * c.cin;
  Taken taken;
  auto first_maximum = [&](Window window, int64_t i) {
    int64_t best = window.begin * map + i;
    for (int64_t t = window.begin + 1; t < window.end; ++t)
      if (x[t * map + i] > x[best]) best = t * map + i;
    return best;
  };
  for_each_window(c, [&](int64_t, Window three, Window five) {
    for (int64_t i = 0; i < map; ++i) {
      taken.three.push_back(first_maximum(three, i));
      taken.five.push_back(first_maximum(five, i));
    }
  });
  return taken;
}

// Index in z [F', m, C] of an element of y [F', H, W, C].
inline int64_t gate_of(const Case& c, int64_t element) {
  int64_t row = element / c.cin / c.w % c.h(), t = element / c.cin / c.w / c.h();
  return (t * c.m() + part_of(c.split, row).index) * c.cin + element % c.cin;
}

inline double region_size(const Case& c, int64_t gate) { return double(c.split[gate / c.cin % c.m()] * c.w); }

inline Map fta_means(const Case& c, const Map& x, const Taken& taken) {
  Map z(c.windows() * c.m() * c.cin, 0);
  for (int64_t i = 0; i < int64_t(taken.three.size()); ++i) {
    int64_t gate = gate_of(c, i);
    z[gate] += (x[taken.three[i]] + x[taken.five[i]]) / region_size(c, gate);
  }
  return z;
}

// s_a for every gate; s_b = 1 - s_a.
inline Map fta_shares(const Case& c, const Map& z, const Map& weights, const Map& biases) {
  Map shares(z.size());
  for (int64_t gate = 0; gate < int64_t(z.size()); ++gate) {
    int64_t r = gate / c.cin % c.m(), channel = gate % c.cin;
    double logits[2];
    for (int64_t which = 0; which < 2; ++which) {
      int64_t row = (r * 2 + which) * c.cin + channel;
      logits[which] = biases[row];
      for (int64_t k = 0; k < c.cin; ++k) logits[which] += weights[row * c.cin + k] * z[gate - channel + k];
    }
    shares[gate] = 1 / (1 + std::exp(logits[1] - logits[0]));
  }
  return shares;
}

inline Map fta_forward(const Case& c, const Map& x, const Map& weights, const Map& biases) {
  Taken taken = taken_by_windows(c, x);
  Map shares = fta_shares(c, fta_means(c, x, taken), weights, biases), y(taken.three.size());
  for (int64_t i = 0; i < int64_t(y.size()); ++i) {
    double share = shares[gate_of(c, i)];
    y[i] = share * x[taken.three[i]] + (1 - share) * x[taken.five[i]];
  }
  return y;
}

struct FtaGradients {
  Map x, weights, biases;
};

inline FtaGradients fta_backward(const Case& c, const Map& x, const Map& weights, const Map& biases, const Map& gy) {
  Taken taken = taken_by_windows(c, x);
  Map z = fta_means(c, x, taken), shares = fta_shares(c, z, weights, biases);
  FtaGradients g = {Map(x.size(), 0), Map(weights.size(), 0), Map(biases.size(), 0)};
  Map glogit(z.size(), 0), gz(z.size(), 0);  // of the first logit; the second one's is its negative
  for (int64_t i = 0; i < int64_t(gy.size()); ++i) {
    int64_t gate = gate_of(c, i);
    glogit[gate] += gy[i] * (x[taken.three[i]] - x[taken.five[i]]) * shares[gate] * (1 - shares[gate]);
  }
  for (int64_t gate = 0; gate < int64_t(z.size()); ++gate)
    for (int64_t which = 0; which < 2; ++which) {
      int64_t channel = gate % c.cin, row = (gate / c.cin % c.m() * 2 + which) * c.cin + channel;
      double gradient = which ? -glogit[gate] : glogit[gate];
      g.biases[row] += gradient;
      for (int64_t k = 0; k < c.cin; ++k) {
        g.weights[row * c.cin + k] += gradient * z[gate - channel + k];
        gz[gate - channel + k] += gradient * weights[row * c.cin + k];
      }
    }
  for (int64_t i = 0; i < int64_t(gy.size()); ++i) {
    int64_t gate = gate_of(c, i);
    double mean = gz[gate] / region_size(c, gate);
    g.x[taken.three[i]] += gy[i] * shares[gate] + mean;
    g.x[taken.five[i]] += gy[i] * (1 - shares[gate]) + mean;
  }
  return g;
}

}  // namespace naive
