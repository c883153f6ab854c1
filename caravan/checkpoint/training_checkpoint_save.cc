// The writing half of training_checkpoint.h.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <new>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>
#include <thread>
#include <utility>

#include "caravan/base/directory.h"
#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/checkpoint/step_folder.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "caravan/checkpoint/xxh3.h"
#include "caravan/tensor/copy.h"

namespace caravan::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kNotLooked = -2;
// Header and manifest, for the question of free space: generous guesses.
constexpr std::int64_t kBytesPerTensor = 1024;
constexpr std::int64_t kSmallFiles = std::int64_t{64} << 10;

// One block of host memory, kept from save to save.
class StagingBlock {
 public:
  // Without filling it: a fresh vector would write every byte twice.
  void reserve(std::size_t bytes) {
    if (bytes > capacity_) {
      block_.reset();
      capacity_ = 0;
      try {
        block_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
      } catch (const std::bad_alloc&) {
        throw OutOfMemoryError(
            fmt::format("a checkpoint is copied to host memory before it is written, and {} bytes cannot be had",
                        grouped(static_cast<std::int64_t>(bytes))));
      }
      capacity_ = bytes;
    }
  }
  std::span<std::byte> bytes(std::int64_t begin, std::int64_t count) const {
    return {block_.get() + begin, static_cast<std::size_t>(count)};
  }

 private:
  std::unique_ptr<std::byte[]> block_;
  std::size_t capacity_ = 0;
};

// A save as the writer's thread needs it.
struct Job {
  std::int64_t step = 0;
  std::vector<TensorPlan> plan;  // their bytes follow each other in the staging block
  Json state;
  std::function<void(const char*)> on_write;

  void reached(const char* point) const {
    if (on_write) {
      on_write(point);
    }
  }
};

std::vector<TensorPlan> plan_of(const std::vector<NamedTensor>& tensors) {
  std::vector<TensorPlan> plan;
  plan.reserve(tensors.size());
  for (const NamedTensor& one : tensors) {
    const std::span<const std::int64_t> extents = one.tensor.shape().extents();
    plan.push_back({one.name, one.tensor.dtype(), {extents.begin(), extents.end()}});
  }
  return plan;
}

// rank-0.safetensors and what the manifest says of it.
Manifest write_tensors(const fs::path& directory, const Job& job, const StagingBlock& staging) {
  Manifest manifest;
  SafetensorsWriter writer(directory / kTensorsFile, job.plan);
  std::int64_t begin = 0;
  for (const TensorPlan& tensor : job.plan) {
    const std::span<const std::byte> bytes = staging.bytes(begin, tensor.bytes());
    begin += tensor.bytes();
    writer.append(bytes);
    const Piece whole{kTensorsFile, tensor.name, std::vector<std::int64_t>(tensor.shape.size(), 0), tensor.shape,
                      xxh3_hex(bytes)};
    manifest.tensors[tensor.name] = {tensor.shape, tensor.dtype, {whole}};
    job.reached(tensor.name.c_str());
  }
  writer.finish();
  return manifest;
}

// The new checkpoint in the place of step-N.  Returns with COMPLETE durable.
void write_checkpoint(const fs::path& folder, const Job& job, const StagingBlock& staging) {
  const fs::path staged = saving_directory(folder, job.step);
  const fs::path target = step_directory(folder, job.step);
  bool placed = false;            // step-N is there without its COMPLETE
  bool staged_is_former = false;  // and the only one of the two that is surely durable
  try {
    remove_tree(staged);
    make_directory(staged);
    job.reached("begin");
    const std::string manifest = format_manifest(write_tensors(staged, job, staging), job.state);
    // What cannot be read back must not be called saved.
    parse_manifest(manifest, (target / kManifestFile).string(), nullptr);
    write_text_file(staged / kManifestFile, manifest);
    // SafetensorsWriter and write_text_file have made their files and the directory's names durable.
    if (step_exists(folder, job.step)) {
      // A run saves a step again: the former must not go before this one can take its place at once.
      write_text_file(staged / kCompleteFile, complete_text(manifest));
      job.reached("before_rename");
      exchange_step(folder, job.step);
      staged_is_former = true;
      sync_directory(folder);
      staged_is_former = false;
      job.reached("after_rename");
      remove_tree(staged);
    } else {
      job.reached("before_rename");
      place_step(folder, job.step);
      placed = true;
      sync_directory(folder);
      job.reached("after_rename");
      write_text_file(target / kCompleteFile, complete_text(manifest));
    }
  } catch (...) {
    // A half checkpoint would hold the space that the next save needs.
    const std::exception_ptr failure = std::current_exception();
    try {
      if (placed) {
        remove_step(folder, job.step);
      } else if (!staged_is_former) {
        remove_tree(staged);
      }
    } catch (const Error&) {  // prepare() of the next run removes it; the first failure is the one to tell
    }
    std::rethrow_exception(failure);
  }
}

// Removes complete checkpoints until the newest `keep` are left; the one just saved is always among them, even where a
// run went back to an earlier step.  Returns the newest that is left.
std::int64_t remove_old(const fs::path& folder, std::int64_t keep, std::int64_t saved) {
  const std::vector<std::int64_t> steps = complete_steps(folder);
  std::int64_t too_many = keep > 0 ? static_cast<std::int64_t>(steps.size()) - keep : 0;
  std::int64_t newest = saved;
  for (const std::int64_t step : steps) {
    if (too_many > 0 && step != saved) {
      remove_step(folder, step);
      --too_many;
    } else {
      newest = std::max(newest, step);
    }
  }
  return newest;
}

// Fails now rather than after the first thousand steps.
void prove_writable(const fs::path& folder) {
  const fs::path probe = saving_directory(folder, 0);  // a name that clean_leftovers knows
  remove_tree(probe);
  make_directory(probe);
  try {
    write_text_file(probe / "probe", "Caravan can write here.\n");
  } catch (const FileError&) {
    rmdir(probe.c_str());
    throw;
  }
  remove_tree(probe);
}

}  // namespace

struct CheckpointStore::State {
  StoreOptions options;
  bool prepared = false;
  std::optional<DirectoryLock> lock;  // two runs that save into one folder would remove each other's checkpoints
  StagingBlock staging;
  std::thread writer;
  std::exception_ptr failure;  // the writer's; read once it was joined
  std::atomic<bool> busy{false};
  std::atomic<std::int64_t> newest{kNotLooked};

  void write(const Job& job) noexcept;
};

void CheckpointStore::State::write(const Job& job) noexcept {
  try {
    write_checkpoint(options.folder, job, staging);
    newest = std::max(newest.load(), job.step);
    job.reached("complete");
    newest = remove_old(options.folder, options.keep_latest, job.step);
  } catch (...) {
    failure = std::current_exception();
  }
  busy = false;
}

CheckpointStore::CheckpointStore(StoreOptions options) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
}

CheckpointStore::~CheckpointStore() {
  if (state_->writer.joinable()) {
    state_->writer.join();
  }
}

void CheckpointStore::prepare() {
  if (state_->prepared) {
    return;
  }
  const fs::path& folder = state_->options.folder;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw FileError(fmt::format("{}: the folder for checkpoints cannot be made: {}", folder.string(),
                                std::generic_category().message(error.value())));
  }
  if (!state_->lock) {
    std::optional<DirectoryLock> lock = DirectoryLock::take(folder);
    if (!lock) {
      throw FileError(
          fmt::format("{}: another run saves its checkpoints here; end it or choose another folder", folder.string()));
    }
    state_->lock.emplace(std::move(*lock));
  }
  clean_leftovers(folder);
  prove_writable(folder);
  state_->prepared = true;
}

void CheckpointStore::save_async(std::int64_t step, const std::vector<NamedTensor>& tensors, const Json& state) {
  if (step < 0) {
    throw InputError(fmt::format("a checkpoint of step {} cannot be saved; steps count from 0", step));
  }
  wait();
  prepare();
  Job job{step, plan_of(tensors), state, on_write};
  std::int64_t bytes = 0;
  for (const TensorPlan& tensor : job.plan) {
    if (__builtin_add_overflow(bytes, tensor.bytes(), &bytes)) {
      throw FormatError(fmt::format("the sizes of {} tensors pass 2^63 bytes", job.plan.size()));
    }
  }
  const fs::path target = step_directory(state_->options.folder, step);
  const std::int64_t needed = bytes + kSmallFiles + kBytesPerTensor * static_cast<std::int64_t>(tensors.size());
  const std::int64_t available = free_space(state_->options.folder);
  if (available < needed) {
    throw FileError(fmt::format("{}: needs {} bytes, but the file system has {} free; nothing was written",
                                target.string(), grouped(needed), grouped(available)));
  }
  state_->staging.reserve(static_cast<std::size_t>(bytes));
  std::int64_t begin = 0;
  for (const NamedTensor& one : tensors) {
    copy_to_host(state_->staging.bytes(begin, one.tensor.bytes()), one.tensor);
    begin += one.tensor.bytes();
  }
  newest();  // so that the writer's thread has a number to compare with
  state_->busy = true;
  try {
    state_->writer = std::thread([state = state_.get(), job = std::move(job)] { state->write(job); });
  } catch (const std::system_error& error) {
    state_->busy = false;
    throw OutOfMemoryError(
        fmt::format("{}: the thread that writes it cannot be started: {}", target.string(), error.code().message()));
  } catch (...) {
    state_->busy = false;
    throw;
  }
}

void CheckpointStore::save(std::int64_t step, const std::vector<NamedTensor>& tensors, const Json& state) {
  save_async(step, tensors, state);
  wait();
}

void CheckpointStore::wait() {
  if (state_->writer.joinable()) {
    state_->writer.join();
  }
  if (state_->failure) {
    std::rethrow_exception(std::exchange(state_->failure, nullptr));
  }
}

bool CheckpointStore::busy() const {
  return state_->busy;
}

std::int64_t CheckpointStore::newest() const {
  if (state_->newest == kNotLooked) {
    const std::vector<std::int64_t> steps = complete_steps(state_->options.folder);
    state_->newest = steps.empty() ? -1 : steps.back();
  }
  return state_->newest;
}

}  // namespace caravan::checkpoint
