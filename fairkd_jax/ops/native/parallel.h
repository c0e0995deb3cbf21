// Shares work between the threads on which XLA runs its own operations.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace fairkd {

namespace ffi = xla::ffi;

// Calls task(0) ... task(count - 1) and returns when all tasks are done. The calling thread works too, and
// never waits for a helper that has not started: a busy pool makes the call slower but cannot block the call.
template <typename Task>
void run_parallel(ffi::ThreadPool pool, int64_t count, const Task& task) {
  struct Progress {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto progress = std::make_shared<Progress>();
  // A helper that starts late finds no task left, and does not touch `task`, which may no longer exist.
  auto work = [progress, count, &task] {
    for (int64_t i; (i = progress->next.fetch_add(1)) < count;) {
      task(i);
      std::lock_guard<std::mutex> lock(progress->mutex);
      if (++progress->done == count) progress->all_done.notify_one();
    }
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::function<void()>(work));
  work();
  std::unique_lock<std::mutex> lock(progress->mutex);
  progress->all_done.wait(lock, [&] { return progress->done == count; });
}

// The range [begin, end) of part `i`, if `count` items are split into `parts` parts.
struct Range {
  int64_t begin, end;
  Range(int64_t count, int64_t parts, int64_t i) : begin(count * i / parts), end(count * (i + 1) / parts) {}
};

}  // namespace fairkd
