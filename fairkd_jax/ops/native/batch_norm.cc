// BatchNorm by the batch's statistics, with swish, and its gradient: each takes two passes over memory.
//
// x is [members, pixels, channels]; scale and bias are [members, channels]. The pixels are summed in parts,
// in float32, and the sums of the parts are added in double. The number of parts does not depend on threads.

#include <cmath>
#include <cstring>
#include <vector>

#include "parallel.h"

namespace fairkd {
namespace {

constexpr int64_t kPixelsPerPart = 512;

int64_t count_parts(int64_t pixels) { return std::max<int64_t>(pixels / kPixelsPerPart, 1); }

// Computes e^x to 2 units in the last place, by operations that compilers turn into vector instructions.
inline float compute_exp(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float n = std::nearbyint(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;  // Cephes' polynomial for (e^r - 1 - r) / r^2
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return (p * r * r + r + 1.0f) * power;
}

inline float compute_sigmoid(float z) { return 1.0f / (1.0f + compute_exp(-z)); }

// Sums two functions of each channel's values. `add(pixel, first, second)` adds a pixel to both, [channels].
template <typename Add>
void sum_channels(ffi::ThreadPool pool, int64_t pixels, int64_t channels, const Add& add, double* first,
                  double* second) {
  const int64_t parts = count_parts(pixels);
  std::vector<float> partial(parts * 2 * channels, 0.0f);
  run_parallel(pool, parts, [&](int64_t part) {
    float* sums = partial.data() + part * 2 * channels;
    const Range range(pixels, parts, part);
    for (int64_t pixel = range.begin; pixel < range.end; ++pixel) add(pixel, sums, sums + channels);
  });
  for (int64_t c = 0; c < channels; ++c) first[c] = second[c] = 0.0;
  for (int64_t part = 0; part < parts; ++part) {
    const float* sums = partial.data() + part * 2 * channels;
    for (int64_t c = 0; c < channels; ++c) first[c] += sums[c];
    for (int64_t c = 0; c < channels; ++c) second[c] += sums[channels + c];
  }
}

template <typename Write>
void for_each_pixel(ffi::ThreadPool pool, int64_t pixels, const Write& write) {
  const int64_t parts = count_parts(pixels);
  run_parallel(pool, parts, [&](int64_t part) {
    const Range range(pixels, parts, part);
    for (int64_t pixel = range.begin; pixel < range.end; ++pixel) write(pixel);
  });
}

template <bool swish>
void forward(ffi::ThreadPool pool, int64_t pixels, int64_t channels, float epsilon, const float* __restrict x,
             const float* __restrict scale, const float* __restrict bias, float* __restrict y,
             float* __restrict mean, float* __restrict variance) {
  std::vector<double> sums(2 * channels);
  sum_channels(
      pool, pixels, channels,
      [=](int64_t pixel, float* __restrict sum, float* __restrict squares) {
        const float* __restrict from = x + pixel * channels;
        for (int64_t c = 0; c < channels; ++c) {
          sum[c] += from[c];
          squares[c] += from[c] * from[c];
        }
      },
      sums.data(), sums.data() + channels);
  std::vector<float> factors(channels);
  for (int64_t c = 0; c < channels; ++c) {
    const double m = sums[c] / pixels, square = sums[channels + c] / pixels - m * m;
    mean[c] = static_cast<float>(m);
    variance[c] = static_cast<float>(square < 0.0 ? 0.0 : square);  // NaN stays NaN
    factors[c] = static_cast<float>(scale[c] / std::sqrt(variance[c] + static_cast<double>(epsilon)));
  }
  const float* __restrict factor = factors.data();
  for_each_pixel(pool, pixels, [=](int64_t pixel) {
    const float* __restrict from = x + pixel * channels;
    float* __restrict to = y + pixel * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float z = (from[c] - mean[c]) * factor[c] + bias[c];
      to[c] = swish ? z * compute_sigmoid(z) : z;
    }
  });
}

template <bool swish>
void backward(ffi::ThreadPool pool, int64_t pixels, int64_t channels, const float* __restrict x,
              const float* __restrict scale, const float* __restrict bias, const float* __restrict mean,
              const float* __restrict inverse, const float* __restrict dy, float* __restrict dx,
              float* __restrict dscale, float* __restrict dbias) {
  // Computes the gradient before the swish; computing this twice is cheaper than storing the values.
  auto compute_slope = [=](float centred, float dy, int64_t c) {
    if (!swish) return dy;
    const float z = centred * (inverse[c] * scale[c]) + bias[c];
    const float gate = compute_sigmoid(z);
    return dy * gate * (1.0f + z * (1.0f - gate));
  };
  std::vector<double> sums(2 * channels);
  sum_channels(
      pool, pixels, channels,
      [=](int64_t pixel, float* __restrict sum, float* __restrict products) {
        const float* __restrict from = x + pixel * channels;
        const float* __restrict above = dy + pixel * channels;
        for (int64_t c = 0; c < channels; ++c) {
          const float centred = from[c] - mean[c];
          const float dz = compute_slope(centred, above[c], c);
          sum[c] += dz;
          products[c] += dz * centred;
        }
      },
      sums.data(), sums.data() + channels);
  std::vector<float> means(2 * channels);
  for (int64_t c = 0; c < channels; ++c) {
    const double product = inverse[c] * sums[channels + c];
    dbias[c] = static_cast<float>(sums[c]);
    dscale[c] = static_cast<float>(product);
    means[c] = static_cast<float>(sums[c] / pixels);
    means[channels + c] = static_cast<float>(inverse[c] * product / pixels);
  }
  const float* __restrict mean_dz = means.data();
  const float* __restrict mean_product = means.data() + channels;
  for_each_pixel(pool, pixels, [=](int64_t pixel) {
    const float* __restrict from = x + pixel * channels;
    const float* __restrict above = dy + pixel * channels;
    float* __restrict to = dx + pixel * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float centred = from[c] - mean[c];
      const float dz = compute_slope(centred, above[c], c);
      to[c] = inverse[c] * scale[c] * (dz - mean_dz[c] - centred * mean_product[c]);
    }
  });
}

using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Array>;

struct Sizes {
  int64_t members, pixels, channels;
  Sizes(const Array& x, const Array& scale)
      : members(scale.element_count() / x.dimensions().back()),
        pixels(x.element_count() / scale.element_count()),
        channels(x.dimensions().back()) {}
};

ffi::Error forward_handler(ffi::ThreadPool pool, Array x, Array scale, Array bias, float epsilon, bool swish,
                           Result y, Result mean, Result variance) {
  const Sizes n(x, scale);
  for (int64_t m = 0; m < n.members; ++m) {
    const int64_t large = m * n.pixels * n.channels, small = m * n.channels;
    (swish ? forward<true> : forward<false>)(pool, n.pixels, n.channels, epsilon, x.typed_data() + large,
                                             scale.typed_data() + small, bias.typed_data() + small,
                                             y->typed_data() + large, mean->typed_data() + small,
                                             variance->typed_data() + small);
  }
  return ffi::Error::Success();
}

ffi::Error backward_handler(ffi::ThreadPool pool, Array x, Array scale, Array bias, Array mean, Array inverse,
                            Array dy, bool swish, Result dx, Result dscale, Result dbias) {
  const Sizes n(x, scale);
  for (int64_t m = 0; m < n.members; ++m) {
    const int64_t large = m * n.pixels * n.channels, small = m * n.channels;
    (swish ? backward<true> : backward<false>)(
        pool, n.pixels, n.channels, x.typed_data() + large, scale.typed_data() + small,
        bias.typed_data() + small, mean.typed_data() + small, inverse.typed_data() + small,
        dy.typed_data() + large, dx->typed_data() + large, dscale->typed_data() + small,
        dbias->typed_data() + small);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace fairkd

XLA_FFI_DEFINE_HANDLER_SYMBOL(fairkd_batch_norm_forward, fairkd::forward_handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Attr<float>("epsilon")
                                  .Attr<bool>("swish")
                                  .Ret<fairkd::Array>()
                                  .Ret<fairkd::Array>()
                                  .Ret<fairkd::Array>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fairkd_batch_norm_backward, fairkd::backward_handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Attr<bool>("swish")
                                  .Ret<fairkd::Array>()
                                  .Ret<fairkd::Array>()
                                  .Ret<fairkd::Array>());
