// Depthwise convolution and its gradients: channels in vector registers, no padded copy of the image.
//
// x is [members, batch, height, width, channels]; the kernel is [members, taps, taps, 1, channels].

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
  int64_t members, batch, height, width, channels, rows, columns;  // rows and columns: of the output
  int64_t taps, stride, top, left;

  Shape(const Array& x, const Array& kernel, int64_t out_rows, int64_t out_columns, int32_t stride,
        int32_t top, int32_t left)
      : rows(out_rows), columns(out_columns), stride(stride), top(top), left(left) {
    const auto x_sizes = x.dimensions(), kernel_sizes = kernel.dimensions();
    const size_t n = x_sizes.size();
    channels = x_sizes[n - 1], width = x_sizes[n - 2], height = x_sizes[n - 3], batch = x_sizes[n - 4];
    taps = kernel_sizes[kernel_sizes.size() - 4];
    members = kernel.element_count() / (taps * taps * channels);
  }
  int64_t input_size() const { return height * width * channels; }
  int64_t output_size() const { return rows * columns * channels; }
};

// Finds the columns of the output whose taps all lie inside the image.
Range find_inner_columns(const Shape& s) {
  Range range(s.columns, 1, 0);
  range.begin = std::clamp<int64_t>((s.left + s.stride - 1) / s.stride, 0, s.columns);
  range.end = std::max(range.begin, std::min(s.columns, (s.width + s.left - s.taps) / s.stride + 1));
  if (s.width + s.left < s.taps) range.end = range.begin;
  return range;
}

// Calls `block(std::integral_constant<int, lanes>, channel)` for groups of 16, 8 and 1 channels.
template <typename Block>
void for_each_channel_block(int64_t channels, const Block& block) {
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) block(std::integral_constant<int, 16>(), c);
  for (; c + 8 <= channels; c += 8) block(std::integral_constant<int, 8>(), c);
  for (; c < channels; ++c) block(std::integral_constant<int, 1>(), c);
}

// Computes a row of the output from the `taps` rows of the image that it reads. Rows outside the image are
// zeros.
template <int taps>
void convolve_row(const Shape& s, const float* const* rows, const float* kernel, float* out) {
  const Range inner = find_inner_columns(s);
  for_each_channel_block(s.channels, [&](auto width, int64_t c) {
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
    for (int64_t column = 0; column < inner.begin; ++column) edge(column);
    for (int64_t column = inner.begin; column < inner.end; ++column) {
      const int64_t from = (column * s.stride - s.left) * s.channels + c;
      typename V::Type sum = {};
      for (int i = 0; i < taps; ++i)
        for (int j = 0; j < taps; ++j) sum += V::load(rows[i] + from + j * s.channels) * weights[i][j];
      V::store(out + column * s.channels + c, sum);
    }
    for (int64_t column = inner.end; column < s.columns; ++column) edge(column);
  });
}

// Adds the contribution of a row of the output to the kernel's gradient.
template <int taps>
void add_kernel_gradient_row(const Shape& s, const float* const* rows, const float* dy, float* dkernel) {
  const Range inner = find_inner_columns(s);
  for_each_channel_block(s.channels, [&](auto width, int64_t c) {
    using V = Vector<decltype(width)::value>;
    typename V::Type sums[taps][taps];
    for (int i = 0; i < taps; ++i)
      for (int j = 0; j < taps; ++j) sums[i][j] = V::load(dkernel + (i * taps + j) * s.channels + c);
    for (int64_t column = inner.begin; column < inner.end; ++column) {
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
    for (int64_t column = 0; column < inner.begin; ++column) edge(column);
    for (int64_t column = inner.end; column < s.columns; ++column) edge(column);
  });
}

// Adds the contribution of a row of the output to the gradient of the image rows that the row reads. Rows
// outside the image are null, and are skipped.
template <int taps>
void add_image_gradient_row(const Shape& s, const float* dy, const float* kernel, float* const* rows) {
  for_each_channel_block(s.channels, [&](auto width, int64_t c) {
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

// Selects the rows of the image that row `row` of the output reads; outside the image a row is `none`.
template <typename Float>
void select_rows(const Shape& s, Float* image, int64_t row, Float* none, Float** rows) {
  for (int64_t i = 0; i < s.taps; ++i) {
    const int64_t at = row * s.stride + i - s.top;
    rows[i] = at < 0 || at >= s.height ? none : image + at * s.width * s.channels;
  }
}

template <int taps>
void convolve(ffi::ThreadPool pool, const Shape& s, const float* x, const float* kernel, float* y) {
  const std::vector<float> zeros(s.width * s.channels, 0.0f);
  const int64_t rows = s.batch * s.rows, tasks = std::min<int64_t>(rows, 64);
  run_parallel(pool, tasks, [&](int64_t task) {
    const Range range(rows, tasks, task);
    for (int64_t at = range.begin; at < range.end; ++at) {
      const float* selected[taps];
      select_rows<const float>(s, x + at / s.rows * s.input_size(), at % s.rows, zeros.data(), selected);
      convolve_row<taps>(s, selected, kernel, y + at * s.columns * s.channels);
    }
  });
}

// Computes the gradient of the image: for a stride of 1 by a convolution with the reversed kernel.
template <int taps>
void compute_image_gradient(ffi::ThreadPool pool, const Shape& s, const float* kernel, const float* dy,
                            float* dx) {
  if (s.stride == 1) {
    std::vector<float> reversed(taps * taps * s.channels);
    for (int64_t tap = 0; tap < taps * taps; ++tap)
      std::memcpy(reversed.data() + tap * s.channels, kernel + (taps * taps - 1 - tap) * s.channels,
                  s.channels * sizeof(float));
    Shape back = s;
    back.height = s.rows, back.width = s.columns, back.rows = s.height, back.columns = s.width;
    back.top = taps - 1 - s.top, back.left = taps - 1 - s.left;
    convolve<taps>(pool, back, dy, reversed.data(), dx);
    return;
  }
  run_parallel(pool, s.batch, [&](int64_t image) {
    float* to = dx + image * s.input_size();
    std::memset(to, 0, s.input_size() * sizeof(float));
    for (int64_t row = 0; row < s.rows; ++row) {
      float* selected[taps];
      select_rows<float>(s, to, row, nullptr, selected);
      const float* slopes = dy + image * s.output_size() + row * s.columns * s.channels;
      add_image_gradient_row<taps>(s, slopes, kernel, selected);
    }
  });
}

template <int taps>
void compute_kernel_gradient(ffi::ThreadPool pool, const Shape& s, const float* x, const float* dy,
                             float* dkernel) {
  const std::vector<float> zeros(s.width * s.channels, 0.0f);
  const int64_t size = taps * taps * s.channels, rows = s.batch * s.rows;
  // Each task has a partial sum, on any thread. Short sums lose less to rounding; few sums are added faster.
  const int64_t max_tasks = std::max<int64_t>((1 << 18) / std::max<int64_t>(size, 1), 16);
  const int64_t tasks = std::min<int64_t>(max_tasks, rows);
  std::vector<float> partial(tasks * size, 0.0f);
  run_parallel(pool, tasks, [&](int64_t task) {
    const Range range(rows, tasks, task);
    for (int64_t at = range.begin; at < range.end; ++at) {
      const float* selected[taps];
      select_rows<const float>(s, x + at / s.rows * s.input_size(), at % s.rows, zeros.data(), selected);
      const float* slopes = dy + at * s.columns * s.channels;
      add_kernel_gradient_row<taps>(s, selected, slopes, partial.data() + task * size);
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
  compute_image_gradient<taps>(pool, s, kernel, dy, dx);
  compute_kernel_gradient<taps>(pool, s, x, dy, dkernel);
}

ffi::Error forward_handler(ffi::ThreadPool pool, Array x, Array kernel, int32_t stride, int32_t top,
                           int32_t left, Result y) {
  const auto out = y->dimensions();
  const Shape s(x, kernel, out[out.size() - 3], out[out.size() - 2], stride, top, left);
  if (s.taps != 3 && s.taps != 5) return ffi::Error::InvalidArgument("the kernel must be 3x3 or 5x5");
  for (int64_t m = 0; m < s.members; ++m)
    (s.taps == 3 ? convolve<3> : convolve<5>)(pool, s, x.typed_data() + m * s.batch * s.input_size(),
                                              kernel.typed_data() + m * s.taps * s.taps * s.channels,
                                              y->typed_data() + m * s.batch * s.output_size());
  return ffi::Error::Success();
}

ffi::Error backward_handler(ffi::ThreadPool pool, Array x, Array kernel, Array dy, int32_t stride, int32_t top,
                            int32_t left, Result dx, Result dkernel) {
  const auto out = dy.dimensions();
  const Shape s(x, kernel, out[out.size() - 3], out[out.size() - 2], stride, top, left);
  if (s.taps != 3 && s.taps != 5) return ffi::Error::InvalidArgument("the kernel must be 3x3 or 5x5");
  for (int64_t m = 0; m < s.members; ++m) {
    const int64_t in = m * s.batch * s.input_size(), weights = m * s.taps * s.taps * s.channels;
    (s.taps == 3 ? backward<3> : backward<5>)(pool, s, x.typed_data() + in, kernel.typed_data() + weights,
                                              dy.typed_data() + m * s.batch * s.output_size(),
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
