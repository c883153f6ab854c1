// Checkpoints of a running training: written beside, complete or not there, several kept, damaged ones passed over.
//
//   FOLDER/step-500/rank-0.safetensors    the tensors
//   FOLDER/step-500/manifest.json         what they are, with hashes (manifest.h)
//   FOLDER/step-500/COMPLETE              the XXH3-128 of manifest.json; written last
//
// A save writes all of it below FOLDER/.saving-step-500, fsyncs every file and the directory, renames it, fsyncs
// FOLDER, then writes COMPLETE and fsyncs again.  Without a COMPLETE that fits, a directory is no checkpoint: it is
// never read, never counted, and replaced by the next save of the same step.  Where step-500 is there already, the new
// one gets its COMPLETE before the two change places, so that at every moment one of them is whole.
//
// The format knows the files of many ranks (manifest.h) and the reader takes any split; the store writes rank 0's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "caravan/base/json.h"
#include "caravan/checkpoint/manifest.h"
#include "caravan/tensor/tensor.h"

namespace caravan::checkpoint {

// A tensor under the name that the manifest gives it; the whole parameter.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

struct StoreOptions {
  std::filesystem::path folder;
  std::int64_t keep_latest = 10;  // complete checkpoints that stay, the newest and the one just saved; 0: all
};

// Saves and finds the checkpoints of one folder.  One object a training run; not for several threads at once, except
// busy() and newest() after prepare().
class CheckpointStore {
 public:
  explicit CheckpointStore(StoreOptions options);
  // Waits for a save that is under way.  Its failure, if nobody has asked, is lost: call wait() first.
  ~CheckpointStore();
  CheckpointStore(const CheckpointStore&) = delete;

  // Makes the folder, locks it against other runs, removes what killed runs left half done there, and proves that it
  // can be written to.  Call it before open_newest() of the same folder; the first save does it otherwise.  Throws
  // FileError.
  void prepare();

  // Copies the tensors to host memory of its own (when this returns they may change), then writes on another thread; at
  // most one save is under way, an earlier one is waited for and its failure thrown first.  Older checkpoints beyond
  // keep_latest are removed after COMPLETE is durable, never before.
  // Throws FileError when free space is short before anything is written, OutOfMemoryError when host memory is, and
  // what wait() throws; in the last case this save has not begun.
  void save_async(std::int64_t step, const std::vector<NamedTensor>& tensors, const Json& state);
  // The same, done when it returns.
  void save(std::int64_t step, const std::vector<NamedTensor>& tensors, const Json& state);
  // Until nothing is under way.  Throws the failure of the last save, once; every checkpoint before it is untouched,
  // and what it had written is removed.  When only removing old checkpoints failed, the new one stays and newest()
  // tells.
  void wait();
  // Whether a save is under way (it may have failed: wait() tells).
  bool busy() const;
  // The newest step that this object or an earlier run saved completely, or -1.
  std::int64_t newest() const;

  // Called on the writer's thread between the pieces of a save; tests block or throw in it.  Points: "begin", the name
  // of each tensor once it is written, "before_rename", "after_rename", "complete" (durable, nothing old removed yet).
  // A save uses what is set when it starts.
  std::function<void(const char* point)> on_write;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A complete checkpoint, opened; hashes are checked as tensors are read.
class CheckpointReader {
 public:
  // Throws FileError, FormatError (another COMPLETE, a damaged manifest or file, tensors or safetensors files that the
  // manifest does not name).
  static CheckpointReader open(const std::filesystem::path& directory);

  const Manifest& manifest() const;
  const Json& state() const;
  const std::filesystem::path& directory() const;

  // Puts the parameter together from its pieces.  `target` has its shape and dtype.  Throws FormatError when the name
  // is missing, shape or dtype differ (naming both), or a piece's hash does not fit (naming file and tensor).
  void read(const std::string& name, const Tensor& target) const;
  // The bytes of a parameter in row-major order, hashes checked.  Saved in one piece they are a view of the mapped file,
  // else they are put together in memory.  `owner` keeps them.  Throws FormatError.
  struct View {
    std::span<const std::byte> bytes;
    std::shared_ptr<const void> owner;
  };
  View view(const std::string& name) const;
  // Reads every piece and checks its hash.  Throws FormatError.
  void verify() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// Steps of the checkpoints in a folder that have a COMPLETE that fits, ascending; other names are passed over.  Tensors
// are not looked at.  A folder that is missing has none.  Throws FileError when it cannot be listed.
std::vector<std::int64_t> complete_steps(const std::filesystem::path& folder);
std::filesystem::path step_directory(const std::filesystem::path& folder, std::int64_t step);

// The newest checkpoint that is whole to the last byte (all of it is read), or nothing when there is none; each one
// that was passed over, damaged or its save cut off, is a sentence in `warnings`.  Throws FileError when the folder
// cannot be listed.
std::optional<CheckpointReader> open_newest(const std::filesystem::path& folder, std::vector<std::string>& warnings);

}  // namespace caravan::checkpoint
