// The safetensors format: eight bytes of header length, a JSON header, then the bytes of every tensor, without gaps.
//
// Files are strangers: nothing is believed before it is checked, and nothing is allocated from a length in the file
// that was not compared with the file's size first.  Format: github.com/huggingface/safetensors, "Format".
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "caravan/base/file.h"
#include "caravan/tensor/dtype.h"

namespace caravan::checkpoint {

// One tensor of a file.
struct TensorEntry {
  std::string name;
  std::string dtype_name;      // as the file spells it: "F32", "BF16", "BOOL", ...
  std::optional<DType> dtype;  // nothing for types of the format that Caravan does not hold (BOOL, I8, U16, ...)
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;  // offsets into the data section
  std::int64_t end = 0;

  std::int64_t bytes() const { return end - begin; }
};

// "F32" for DType::kF32 and so on.
const char* safetensors_name(DType dtype);

// The header of a file as bytes, parsed and checked; `head` is the file's beginning, at least to the end of the header,
// `file_bytes` the size of the whole file.  The header's own limits: 100 MB (as in the reference implementation), 2^20
// tensors, names of 4096 bytes.  Entries come back in order of their offsets.
// Throws FormatError (source, what, where, expected, found) for everything that a valid file is not: truncated, a
// header longer than the file, not a JSON object, duplicate or unprintable names, unknown dtypes or fields, negative,
// fractional or huge numbers, products that wrap, a shape that is not the size of the offsets, offsets that overlap,
// leave a gap or do not end with the file.  Legal are scalars, zero extents and spaces after the JSON.
struct SafetensorsHeader {
  std::vector<TensorEntry> entries;
  std::map<std::string, std::string> metadata;  // "__metadata__"
  std::int64_t data_begin = 0;                  // offset of the data section in the file
};
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> head, std::int64_t file_bytes,
                                           const std::string& source);

// A file, mapped.
class SafetensorsFile {
 public:
  // Throws FileError when it cannot be opened, FormatError as parse_safetensors_header does.
  static SafetensorsFile open(const std::filesystem::path& path);

  const SafetensorsHeader& header() const { return header_; }
  const std::filesystem::path& path() const { return file_.path(); }
  // The entry of that name, or nullptr.
  const TensorEntry* find(const std::string& name) const;
  // The mapped bytes of an entry, which is one of header()'s.  They live as long as this object or a copy of it.  The
  // format does not promise that they are aligned to their type.
  std::span<const std::byte> bytes(const TensorEntry& entry) const;

 private:
  MappedFile file_;
  SafetensorsHeader header_;
  std::map<std::string, std::size_t> by_name_;
};

// What a directory of one model holds: model.safetensors, or the shards that model.safetensors.index.json names.
class SafetensorsSet {
 public:
  // Where both are present model.safetensors counts and the index is not read, as transformers does it.
  // Throws FileError when the directory has neither, or a shard is missing; FormatError when index and shards disagree
  // (a tensor in the index that its shard lacks, in two shards, or in a shard but not in the index; a shard name that
  // is no plain file name).
  static SafetensorsSet open(const std::filesystem::path& directory);

  // Points into the set it came from.
  struct Located {
    const SafetensorsFile* file;
    const TensorEntry* entry;
    std::span<const std::byte> bytes() const { return file->bytes(*entry); }
  };
  // The tensor of that name, or nothing.
  std::optional<Located> find(const std::string& name) const;
  // All names, sorted.
  std::vector<std::string> names() const;
  const std::vector<SafetensorsFile>& files() const { return files_; }
  std::int64_t total_bytes() const;  // of all tensors

 private:
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::pair<std::size_t, std::size_t>> by_name_;  // file, entry
};

// What is going to be written.
struct TensorPlan {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;

  // Throws FormatError when an extent is negative or the size passes 2^63 bits.
  std::int64_t bytes() const;
};

// Writes one file, tensor by tensor in the order of the plan, through AtomicFile.  The data section begins at a
// multiple of eight; tensors follow each other without gaps (the format forbids them), so a plan that mixes types keeps
// them aligned only when wider types come first.  Hugging Face's readers want the metadata {"format": "pt"}.
class SafetensorsWriter {
 public:
  // Throws FileError when the directory is missing, not writable or too full; FormatError when a name stands twice or
  // is one that the reader refuses, or a size or the header is beyond the format's limits.
  SafetensorsWriter(const std::filesystem::path& target, const std::vector<TensorPlan>& plan,
                    const std::map<std::string, std::string>& metadata = {});

  // The next bytes of the data section; may be parts of a tensor.  Throws FormatError when they are more than the plan
  // has left, FileError when the system refuses.
  void append(std::span<const std::byte> bytes);
  // Throws FormatError when bytes are missing, FileError when the system refuses.  Before it, the target is untouched.
  void finish();

 private:
  SafetensorsWriter(const std::filesystem::path& target, std::int64_t data_bytes, const std::string& head);

  std::string target_;
  AtomicFile file_;
  std::int64_t remaining_;
};

// The plan cut into shards of at most `max_shard_bytes` of tensor data (a larger tensor gets a shard of its own), order
// kept; an empty plan is one empty shard.  Throws InputError when `max_shard_bytes` is not above 0.
std::vector<std::vector<TensorPlan>> plan_shards(const std::vector<TensorPlan>& plan, std::int64_t max_shard_bytes);

// "model.safetensors" for one shard, else "model-00001-of-00003.safetensors"; `index` from 0.
std::string shard_name(std::size_t index, std::size_t count);

// The text of model.safetensors.index.json.  Throws FormatError when a name stands twice.
std::string shard_index(const std::vector<std::vector<TensorPlan>>& shards);

}  // namespace caravan::checkpoint
