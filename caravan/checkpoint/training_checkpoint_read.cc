// The reading half of training_checkpoint.h.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <utility>

#include "caravan/base/directory.h"
#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/checkpoint/safetensors_format.h"
#include "caravan/checkpoint/step_folder.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "caravan/checkpoint/xxh3.h"
#include "caravan/tensor/copy.h"

namespace caravan::checkpoint {
namespace {

namespace fs = std::filesystem;

// Copies the elements of a box, which follow each other in `source`, to where they stand in the whole tensor.
void copy_box(std::span<std::byte> whole, const StoredTensor& tensor, const Piece& piece,
              std::span<const std::byte> source) {
  const std::size_t rank = tensor.shape.size();
  const std::size_t element = static_cast<std::size_t>(size_of(tensor.dtype));
  if (source.empty()) {
    return;
  }
  if (rank == 0) {
    std::memcpy(whole.data(), source.data(), source.size());
    return;
  }
  // Runs along the last axis; `at` counts through the others.
  const std::size_t run = static_cast<std::size_t>(piece.end.back() - piece.begin.back()) * element;
  std::vector<std::int64_t> at = piece.begin;
  for (std::size_t from = 0; from < source.size(); from += run) {
    std::int64_t offset = 0;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      offset = offset * tensor.shape[axis] + at[axis];
    }
    std::memcpy(whole.data() + static_cast<std::size_t>(offset) * element, source.data() + from, run);
    for (std::size_t axis = rank - 1; axis-- > 0;) {
      if (++at[axis] < piece.end[axis]) {
        break;
      }
      at[axis] = piece.begin[axis];
    }
  }
}

}  // namespace

struct CheckpointReader::State {
  fs::path directory;
  Manifest manifest;
  Json state;
  std::map<std::string, SafetensorsFile> files;

  void open_files();
  void check_piece(const std::string& name, const StoredTensor& tensor, const Piece& piece) const;
  void check_nothing_else() const;
  const StoredTensor& find(const std::string& name) const;
  // The bytes of a piece, whose hash fits.
  std::span<const std::byte> hashed_bytes(const Piece& piece) const;
};

void CheckpointReader::State::open_files() {
  for (const auto& [name, tensor] : manifest.tensors) {
    for (const Piece& piece : tensor.pieces) {
      if (!files.contains(piece.file)) {
        files.emplace(piece.file, SafetensorsFile::open(directory / piece.file));
      }
      check_piece(name, tensor, piece);
    }
  }
  check_nothing_else();
}

void CheckpointReader::State::check_piece(const std::string& name, const StoredTensor& tensor,
                                          const Piece& piece) const {
  const SafetensorsFile& file = files.at(piece.file);
  const TensorEntry* entry = file.find(piece.tensor);
  if (entry == nullptr) {
    throw FormatError(fmt::format("{}: lacks the tensor {}, which the manifest names as a piece of {}",
                                  file.path().string(), in_quotes(piece.tensor), in_quotes(name)));
  }
  std::vector<std::int64_t> extents;
  for (std::size_t axis = 0; axis < piece.begin.size(); ++axis) {
    extents.push_back(piece.end[axis] - piece.begin[axis]);
  }
  if (entry->dtype != tensor.dtype || entry->shape != extents) {
    throw FormatError(fmt::format("{}: tensor {} is {} {}, but the manifest says {} {}", file.path().string(),
                                  in_quotes(piece.tensor), entry->dtype_name, shape_text(entry->shape),
                                  safetensors_name(tensor.dtype), shape_text(extents)));
  }
}

// What the manifest does not know is not covered by its hashes: the files are those of another save.
void CheckpointReader::State::check_nothing_else() const {
  std::set<std::pair<std::string_view, std::string_view>> known;
  for (const auto& [name, tensor] : manifest.tensors) {
    for (const Piece& piece : tensor.pieces) {
      known.emplace(piece.file, piece.tensor);
    }
  }
  for (const auto& [name, file] : files) {
    for (const TensorEntry& entry : file.header().entries) {
      if (!known.contains({name, entry.name})) {
        throw FormatError(fmt::format("{}: holds the tensor {}, which the manifest does not name", file.path().string(),
                                      in_quotes(entry.name)));
      }
    }
    if (!file.header().metadata.empty()) {
      throw FormatError(fmt::format("{}: has metadata, which no hash covers", file.path().string()));
    }
  }
  for (const std::string& name : names_in(directory)) {
    if (name.ends_with(".safetensors") && !files.contains(name) && !manifest.tensors.empty()) {
      throw FormatError(fmt::format("{}: the manifest does not name this file; is it of another checkpoint?",
                                    (directory / name).string()));
    }
  }
}

std::span<const std::byte> CheckpointReader::State::hashed_bytes(const Piece& piece) const {
  const SafetensorsFile& file = files.at(piece.file);
  const std::span<const std::byte> bytes = file.bytes(*file.find(piece.tensor));
  const std::string found = xxh3_hex(bytes);
  if (found != piece.hash) {
    throw FormatError(fmt::format("{}: tensor {} is damaged: its hash is {}, the manifest says {}",
                                  file.path().string(), in_quotes(piece.tensor), found, piece.hash));
  }
  return bytes;
}

CheckpointReader CheckpointReader::open(const fs::path& directory) {
  auto state = std::make_shared<State>();
  state->directory = directory;
  state->manifest =
      parse_manifest(read_vouched_manifest(directory), (directory / kManifestFile).string(), &state->state);
  state->open_files();
  CheckpointReader reader;
  reader.state_ = std::move(state);
  return reader;
}

const Manifest& CheckpointReader::manifest() const {
  return state_->manifest;
}

const Json& CheckpointReader::state() const {
  return state_->state;
}

const fs::path& CheckpointReader::directory() const {
  return state_->directory;
}

const StoredTensor& CheckpointReader::State::find(const std::string& name) const {
  const auto found = manifest.tensors.find(name);
  if (found == manifest.tensors.end()) {
    throw FormatError(fmt::format("{}: the checkpoint has no tensor {}; is it one of another model?",
                                  directory.string(), in_quotes(name)));
  }
  return found->second;
}

CheckpointReader::View CheckpointReader::view(const std::string& name) const {
  const StoredTensor& tensor = state_->find(name);
  if (tensor.pieces.size() == 1) {
    return {state_->hashed_bytes(tensor.pieces.front()), state_};
  }
  std::int64_t bytes = size_of(tensor.dtype);
  for (const std::int64_t extent : tensor.shape) {
    bytes *= extent;  // the manifest's reader has seen that pieces of that size exist
  }
  const auto whole = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(bytes));
  for (const Piece& piece : tensor.pieces) {
    copy_box(*whole, tensor, piece, state_->hashed_bytes(piece));
  }
  return {*whole, whole};
}

void CheckpointReader::read(const std::string& name, const Tensor& target) const {
  const StoredTensor& tensor = state_->find(name);
  if (tensor.dtype != target.dtype() || !std::ranges::equal(tensor.shape, target.shape().extents())) {
    throw FormatError(fmt::format("{}: tensor {} is {} {}, but {} {} is wanted; is it a checkpoint of another model?",
                                  state_->directory.string(), in_quotes(name), safetensors_name(tensor.dtype),
                                  shape_text(tensor.shape), safetensors_name(target.dtype()),
                                  shape_text(target.shape().extents())));
  }
  if (tensor.pieces.size() == 1) {
    copy_from_host(target, state_->hashed_bytes(tensor.pieces.front()));
    return;
  }
  std::vector<std::byte> whole(static_cast<std::size_t>(target.bytes()));
  for (const Piece& piece : tensor.pieces) {
    copy_box(whole, tensor, piece, state_->hashed_bytes(piece));
  }
  copy_from_host(target, whole);
}

void CheckpointReader::verify() const {
  for (const auto& [name, tensor] : state_->manifest.tensors) {
    for (const Piece& piece : tensor.pieces) {
      state_->hashed_bytes(piece);
    }
  }
}

std::optional<CheckpointReader> open_newest(const fs::path& folder, std::vector<std::string>& warnings) {
  std::vector<std::int64_t> steps = step_directories(folder);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path directory = step_directory(folder, *step);
    try {
      CheckpointReader reader = CheckpointReader::open(directory);
      reader.verify();
      return reader;
    } catch (const FileError& failure) {
      warnings.push_back(fmt::format("the checkpoint of step {} is passed over: {}", *step, failure.what()));
    } catch (const FormatError& failure) {
      warnings.push_back(fmt::format("the checkpoint of step {} is passed over: {}", *step, failure.what()));
    }
  }
  return std::nullopt;
}

}  // namespace caravan::checkpoint
