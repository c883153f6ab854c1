#include "caravan/data/loader.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

namespace caravan::data {

namespace {

// Rows side by side: each keeps its own stretch of activations, padding at its end included.
MicroBatch join(const std::vector<Row>& rows, std::int64_t seq_len) {
  MicroBatch batch;
  batch.layout.rows = static_cast<std::int64_t>(rows.size()) * seq_len;
  std::int64_t begin = 0;
  for (const Row& row : rows) {
    std::int64_t at = begin;
    for (const std::int64_t length : row.lengths) {
      batch.layout.sequences.push_back({at, length, 0});
      at += length;
    }
    batch.ids.insert(batch.ids.end(), row.ids.begin(), row.ids.end());
    batch.targets.insert(batch.targets.end(), row.targets.begin(), row.targets.end());
    begin += seq_len;
  }
  return batch;
}

}  // namespace

struct Loader::State {
  const Rows& rows;
  LoaderOptions options;
  double waited = 0.0;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<StepBatch> ready;
  std::exception_ptr failure;
  bool stopping = false;
  std::thread thread;

  StepBatch make(std::int64_t next_row) const {
    StepBatch step;
    step.epoch = rows.epoch_of(next_row);
    for (std::int64_t m = 0; m < options.micro_batches; ++m) {
      std::vector<Row> batch;
      for (std::int64_t j = 0; j < options.micro_batch_rows; ++j) {
        batch.push_back(rows.row(next_row + (m * options.micro_batch_rows + j) * options.ranks + options.rank));
      }
      const auto seq_len = static_cast<std::int64_t>(batch.front().ids.size());
      step.micro_batches.push_back(join(batch, seq_len));
    }
    step.next_row = next_row + options.micro_batches * options.micro_batch_rows * options.ranks;
    return step;
  }

  void run() {
    std::int64_t next_row = options.next_row;
    try {
      while (true) {
        StepBatch step = make(next_row);
        next_row = step.next_row;
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stopping || static_cast<int>(ready.size()) < options.prefetch; });
        if (stopping) {
          return;
        }
        ready.push_back(std::move(step));
        changed.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      changed.notify_all();
    }
  }
};

Loader::Loader(const Rows& rows, const LoaderOptions& options)
    : state_(new State{rows, options, 0.0, {}, {}, {}, {}, false, {}}) {
  if (options.prefetch > 0) {
    state_->thread = std::thread([this] { state_->run(); });
  }
}

Loader::~Loader() {
  if (state_->thread.joinable()) {
    {
      const std::lock_guard lock(state_->mutex);
      state_->stopping = true;
    }
    state_->changed.notify_all();
    state_->thread.join();
  }
}

StepBatch Loader::next() {
  const auto begin = std::chrono::steady_clock::now();
  StepBatch step;
  if (state_->thread.joinable()) {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] { return state_->failure != nullptr || !state_->ready.empty(); });
    if (state_->ready.empty()) {
      std::rethrow_exception(state_->failure);
    }
    step = std::move(state_->ready.front());
    state_->ready.pop_front();
    state_->changed.notify_all();
  } else {
    step = state_->make(state_->options.next_row);
    state_->options.next_row = step.next_row;
  }
  state_->waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return step;
}

double Loader::waited_seconds() const {
  return state_->waited;
}

}  // namespace caravan::data
