// Depthwise convolution and its gradients: channels in vector registers, no padded copy of the image.
//
// x is [members, batch, height, width, channels], the kernel [members, taps, taps, 1, channels].

#include <cstring>
#include <vector>

#include "parallel.h"

namespace fairkd {
namespace {

using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Array>;

template <int lanes>
struct Vector {
  typedef float Type __attribute__((vector_size(lanes * sizeof(float))));

  static Type load(const float* from) {
    Type value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  static void store(float* to, const Type& value) { std::memcpy(to, &value, sizeof value); }
};

struct Shape {
  int64_t members, batch, height, width, channels, rows, columns;  // the last two of the output
  int64_t taps, stride, top, left;

  Shape(const Array& x, const Array& kernel, int64_t out_rows, int64_t out_columns, int32_t stride,
        int32_t top, int32_t left)
      : rows(out_rows), columns(out_columns), stride(stride), top(top), left(left) {
    const auto of_x = x.dimensions(), of_kernel = kernel.dimensions();
    const size_t n = of_x.size();
    channels = of_x[n - 1], width = of_x[n - 2], height = of_x[n - 3], batch = of_x[n - 4];
    taps = of_kernel[of_kernel.size() - 4];
    members = kernel.element_count() / (taps * taps * channels);
  }
  int64_t pixels_in() const { return height * width * channels; }
  int64_t pixels_out() const { return rows * columns * channels; }
};

// The columns of the output whose taps all lie inside the image.
Range whole_columns(const Shape& s) {
  Range range(s.columns, 1, 0);
  range.begin = std::clamp<int64_t>((s.left + s.stride - 1) / s.stride, 0, s.columns);
  range.end = std::max(range.begin, std::min(s.columns, (s.width + s.left - s.taps) / s.stride + 1));
  if (s.width + s.left < s.taps) range.end = range.begin;
  return range;
}

// Calls `blocks(std::integral_constant<int, lanes>, channel)` for groups of 16, 8 and 1 channels.
template <typename Block>
void over_channels(int64_t channels, const Block& block) {
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) block(std::integral_constant<int, 16>(), c);
  for (; c + 8 <= channels; c += 8) block(std::integral_constant<int, 8>(), c);
  for (; c < channels; ++c) block(std::integral_constant<int, 1>(), c);
}

// One row of the output from the `taps` rows of the image that it sees (a row of zeros where there is none).
template <int taps>
void forward_row(const Shape& s, const float* const* rows, const float* kernel, float* out) {
  const Range whole = whole_columns(s);
  over_channels(s.channels, [&](auto width, int64_t c) {
    using V = Vector<decltype(width)::value>;
    typename V::Type weights[taps][taps];
    for (int i = 0; i < taps; ++i)
      for (int j = 0; j < taps; ++j) weights[i][j] = V::load(kernel + (i * taps + j) * s.channels + c);
    auto edge = [&](int64_t column) {
      typename V::Type sum = {};
      for (int64_t j = 0; j < taps; ++j) {
        const int64_t at = column * s.stride + j - s.left;
        if (at < 0 || at >= s.width) continue;
        for (int i = 0; i < taps; ++i)
          sum += V::load(rows[i] + at * s.channels + c) * V::load(kernel + (i * taps + j) * s.channels + c);
      }
      V::store(out + column * s.channels + c, sum);
    };
    for (int64_t column = 0; column < whole.begin; ++column) edge(column);
    for (int64_t column = whole.begin; column < whole.end; ++column) {
      const int64_t from = (column * s.stride - s.left) * s.channels + c;
      typename V::Type sum = {};
      for (int i = 0; i < taps; ++i)
        for (int j = 0; j < taps; ++j) sum += V::load(rows[i] + from + j * s.channels) * weights[i][j];
      V::store(out + column * s.channels + c, sum);
    }
    for (int64_t column = whole.end; column < s.columns; ++column) edge(column);
  });
}

// Adds what one row of the output contributes to the kernel's gradient.
template <int taps>
void weight_row(const Shape& s, const float* const* rows, const float* dy, float* dkernel) {
  const Range whole = whole_columns(s);
  over_channels(s.channels, [&](auto width, int64_t c) {
    using V = Vector<decltype(width)::value>;
    typename V::Type sums[taps][taps];
    for (int i = 0; i < taps; ++i)
      for (int j = 0; j < taps; ++j) sums[i][j] = V::load(dkernel + (i * taps + j) * s.channels + c);
    for (int64_t column = whole.begin; column < whole.end; ++column) {
      const int64_t from = (column * s.stride - s.left) * s.channels + c;
      const auto slope = V::load(dy + column * s.channels + c);
      for (int i = 0; i < taps; ++i)
        for (int j = 0; j < taps; ++j) sums[i][j] += V::load(rows[i] + from + j * s.channels) * slope;
    }
    for (int i = 0; i < taps; ++i)
      for (int j = 0; j < taps; ++j) V::store(dkernel + (i * taps + j) * s.channels + c, sums[i][j]);
    auto edge = [&](int64_t column) {
      const auto slope = V::load(dy + column * s.channels + c);
      for (int64_t j = 0; j < taps; ++j) {
        const int64_t at = column * s.stride + j - s.left;
        if (at < 0 || at >= s.width) continue;
        for (int i = 0; i < taps; ++i) {
          float* to = dkernel + (i * taps + j) * s.channels + c;
          V::store(to, V::load(to) + V::load(rows[i] + at * s.channels + c) * slope);
        }
      }
    };
    for (int64_t column = 0; column < whole.begin; ++column) edge(column);
    for (int64_t column = whole.end; column < s.columns; ++column) edge(column);
  });
}

// Adds what one row of the output hands back to the rows of the image that it saw (null where there is none).
template <int taps>
void scatter_row(const Shape& s, const float* dy, const float* kernel, float* const* rows) {
  over_channels(s.channels, [&](auto width, int64_t c) {
    using V = Vector<decltype(width)::value>;
    for (int i = 0; i < taps; ++i) {
      if (rows[i] == nullptr) continue;
      for (int64_t column = 0; column < s.columns; ++column) {
        const auto slope = V::load(dy + column * s.channels + c);
        for (int64_t j = 0; j < taps; ++j) {
          const int64_t at = column * s.stride + j - s.left;
          if (at < 0 || at >= s.width) continue;
          float* to = rows[i] + at * s.channels + c;
          V::store(to, V::load(to) + slope * V::load(kernel + (i * taps + j) * s.channels + c));
        }
      }
    }
  });
}

// The rows that row `row` of the output sees.
template <typename Float>
void rows_seen(const Shape& s, Float* image, int64_t row, Float* none, Float** rows) {
  for (int64_t i = 0; i < s.taps; ++i) {
    const int64_t at = row * s.stride + i - s.top;
    rows[i] = at < 0 || at >= s.height ? none : image + at * s.width * s.channels;
  }
}

template <int taps>
void convolve(ffi::ThreadPool pool, const Shape& s, const float* x, const float* kernel, float* y) {
  const std::vector<float> zeros(s.width * s.channels, 0.0f);
  const int64_t rows = s.batch * s.rows, tasks = std::min<int64_t>(rows, 64);
  parallel(pool, tasks, [&](int64_t task) {
    const Range range(rows, tasks, task);
    for (int64_t at = range.begin; at < range.end; ++at) {
      const float* seen[taps];
      rows_seen<const float>(s, x + at / s.rows * s.pixels_in(), at % s.rows, zeros.data(), seen);
      forward_row<taps>(s, seen, kernel, y + at * s.columns * s.channels);
    }
  });
}

// The gradient of the image: for a stride of 1 a convolution with the kernel turned around.
template <int taps>
void image_gradient(ffi::ThreadPool pool, const Shape& s, const float* kernel, const float* dy, float* dx) {
  if (s.stride == 1) {
    std::vector<float> turned(taps * taps * s.channels);
    for (int64_t tap = 0; tap < taps * taps; ++tap)
      std::memcpy(turned.data() + tap * s.channels, kernel + (taps * taps - 1 - tap) * s.channels,
                  s.channels * sizeof(float));
    Shape back = s;
    back.height = s.rows, back.width = s.columns, back.rows = s.height, back.columns = s.width;
    back.top = taps - 1 - s.top, back.left = taps - 1 - s.left;
    convolve<taps>(pool, back, dy, turned.data(), dx);
    return;
  }
  parallel(pool, s.batch, [&](int64_t image) {
    float* to = dx + image * s.pixels_in();
    std::memset(to, 0, s.pixels_in() * sizeof(float));
    for (int64_t row = 0; row < s.rows; ++row) {
      float* seen[taps];
      rows_seen<float>(s, to, row, nullptr, seen);
      scatter_row<taps>(s, dy + image * s.pixels_out() + row * s.columns * s.channels, kernel, seen);
    }
  });
}

template <int taps>
void weight_gradient(ffi::ThreadPool pool, const Shape& s, const float* x, const float* dy, float* dkernel) {
  const std::vector<float> zeros(s.width * s.channels, 0.0f);
  const int64_t size = taps * taps * s.channels, rows = s.batch * s.rows;
  // One partial sum for each task, whatever thread takes it: short sums lose less, few are added up sooner.
  const int64_t short_sums = std::max<int64_t>((1 << 18) / std::max<int64_t>(size, 1), 16);
  const int64_t tasks = std::min<int64_t>(short_sums, rows);
  std::vector<float> partial(tasks * size, 0.0f);
  parallel(pool, tasks, [&](int64_t task) {
    const Range range(rows, tasks, task);
    for (int64_t at = range.begin; at < range.end; ++at) {
      const float* seen[taps];
      rows_seen<const float>(s, x + at / s.rows * s.pixels_in(), at % s.rows, zeros.data(), seen);
      weight_row<taps>(s, seen, dy + at * s.columns * s.channels, partial.data() + task * size);
    }
  });
  std::vector<double> sums(size, 0.0);
  for (int64_t task = 0; task < tasks; ++task)
    for (int64_t i = 0; i < size; ++i) sums[i] += partial[task * size + i];
  for (int64_t i = 0; i < size; ++i) dkernel[i] = static_cast<float>(sums[i]);
}

template <int taps>
void backward(ffi::ThreadPool pool, const Shape& s, const float* x, const float* kernel, const float* dy,
              float* dx, float* dkernel) {
  image_gradient<taps>(pool, s, kernel, dy, dx);
  weight_gradient<taps>(pool, s, x, dy, dkernel);
}

ffi::Error forward_handler(ffi::ThreadPool pool, Array x, Array kernel, int32_t stride, int32_t top,
                           int32_t left, Result y) {
  const auto out = y->dimensions();
  const Shape s(x, kernel, out[out.size() - 3], out[out.size() - 2], stride, top, left);
  if (s.taps != 3 && s.taps != 5) return ffi::Error::InvalidArgument("kernels of 3 and 5 only");
  for (int64_t m = 0; m < s.members; ++m)
    (s.taps == 3 ? convolve<3> : convolve<5>)(pool, s, x.typed_data() + m * s.batch * s.pixels_in(),
                                              kernel.typed_data() + m * s.taps * s.taps * s.channels,
                                              y->typed_data() + m * s.batch * s.pixels_out());
  return ffi::Error::Success();
}

ffi::Error backward_handler(ffi::ThreadPool pool, Array x, Array kernel, Array dy, int32_t stride, int32_t top,
                            int32_t left, Result dx, Result dkernel) {
  const auto out = dy.dimensions();
  const Shape s(x, kernel, out[out.size() - 3], out[out.size() - 2], stride, top, left);
  if (s.taps != 3 && s.taps != 5) return ffi::Error::InvalidArgument("kernels of 3 and 5 only");
  for (int64_t m = 0; m < s.members; ++m) {
    const int64_t in = m * s.batch * s.pixels_in(), weights = m * s.taps * s.taps * s.channels;
    (s.taps == 3 ? backward<3> : backward<5>)(pool, s, x.typed_data() + in, kernel.typed_data() + weights,
                                              dy.typed_data() + m * s.batch * s.pixels_out(),
                                              dx->typed_data() + in, dkernel->typed_data() + weights);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace fairkd

XLA_FFI_DEFINE_HANDLER_SYMBOL(fairkd_depthwise_forward, fairkd::forward_handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Attr<int32_t>("stride")
                                  .Attr<int32_t>("top")
                                  .Attr<int32_t>("left")
                                  .Ret<fairkd::Array>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fairkd_depthwise_backward, fairkd::backward_handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Arg<fairkd::Array>()
                                  .Attr<int32_t>("stride")
                                  .Attr<int32_t>("top")
                                  .Attr<int32_t>("left")
                                  .Ret<fairkd::Array>()
                                  .Ret<fairkd::Array>());
