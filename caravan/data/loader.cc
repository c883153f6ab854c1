#include "caravan/data/loader.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "caravan/base/error.h"

namespace caravan::data {
namespace {

void check_options(const LoaderOptions& options) {
  constexpr std::int64_t kMostRows = std::int64_t{1} << 31;
  if (options.micro_batch_rows < 1 || options.micro_batch_rows > kMostRows || options.micro_batches < 1 ||
      options.ranks < 1 || options.rank < 0 || options.rank >= options.ranks || options.next_row < 0 ||
      options.prefetch < 0) {
    throw ConfigError(
        fmt::format("a loader cannot give {} micro-batches of {} rows to rank {} of {} from row {} on "
                    "with {} steps made ahead",
                    options.micro_batches, options.micro_batch_rows, options.rank, options.ranks, options.next_row,
                    options.prefetch));
  }
}

}  // namespace

struct Loader::State {
  const Rows& rows;
  LoaderOptions options;
  std::int64_t next_row;  // of the step that is made next
  double waited = 0.0;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<StepBatch> ready;
  std::exception_ptr failure;
  bool stop = false;
  std::thread maker;

  State(const Rows& all_rows, const LoaderOptions& given) : rows(all_rows), options(given), next_row(given.next_row) {}

  MicroBatch micro_batch(std::int64_t first_row) const {
    MicroBatch batch;
    for (std::int64_t j = 0; j < options.micro_batch_rows; ++j) {
      const Row row = rows.row(first_row + j * options.ranks);
      std::int64_t begin = static_cast<std::int64_t>(batch.ids.size());
      for (const std::int64_t length : row.lengths) {
        batch.layout.sequences.push_back({.begin = begin, .length = length});
        begin += length;
      }
      batch.ids.insert(batch.ids.end(), row.ids.begin(), row.ids.end());
      batch.targets.insert(batch.targets.end(), row.targets.begin(), row.targets.end());
    }
    batch.layout.rows = static_cast<std::int64_t>(batch.ids.size());
    return batch;
  }

  StepBatch make_step() {
    StepBatch step;
    step.epoch = rows.epoch_of(next_row);
    const std::int64_t rows_of_all = options.micro_batch_rows * options.ranks;  // in one micro-batch
    std::int64_t after = 0;
    if (__builtin_mul_overflow(rows_of_all, options.micro_batches, &after) ||
        __builtin_add_overflow(next_row, after, &after)) {
      throw InputError(fmt::format("row {} is the last one that can be counted to; was the state damaged?", next_row));
    }
    for (std::int64_t m = 0; m < options.micro_batches; ++m) {
      step.micro_batches.push_back(micro_batch(next_row + m * rows_of_all + options.rank));
    }
    next_row = after;
    step.next_row = next_row;
    return step;
  }

  void make_ahead() {
    std::unique_lock lock(mutex);
    while (!stop && !failure) {
      lock.unlock();
      std::optional<StepBatch> step;
      std::exception_ptr caught;
      try {
        step = make_step();
      } catch (...) {
        caught = std::current_exception();
      }
      lock.lock();
      changed.wait(lock, [&] { return stop || ready.size() < static_cast<std::size_t>(options.prefetch); });
      failure = caught;
      if (step && !stop) {
        ready.push_back(*std::move(step));
      }
      changed.notify_all();
    }
  }

  StepBatch take() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !ready.empty() || failure; });
    if (ready.empty()) {
      std::rethrow_exception(failure);
    }
    StepBatch step = std::move(ready.front());
    ready.pop_front();
    changed.notify_all();
    return step;
  }
};

Loader::Loader(const Rows& rows, const LoaderOptions& options) {
  check_options(options);
  state_ = std::make_unique<State>(rows, options);
  if (options.prefetch > 0) {
    state_->maker = std::thread([state = state_.get()] { state->make_ahead(); });
  }
}

Loader::~Loader() {
  if (!state_->maker.joinable()) {
    return;
  }
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->changed.notify_all();
  state_->maker.join();
}

StepBatch Loader::next() {
  const auto begin = std::chrono::steady_clock::now();
  StepBatch step = state_->options.prefetch > 0 ? state_->take() : state_->make_step();
  state_->waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return step;
}

double Loader::waited_seconds() const {
  return state_->waited;
}

}  // namespace caravan::data
