// The GGUF format, versions 2 and 3, little-endian: a header, typed metadata, a table of tensors, padding, then the
// tensors' bytes, each at a multiple of the alignment.
//
//   magic "GGUF", version u32, tensor count u64, metadata count u64
//   metadata    key (string), type u32, value; a string is a length u64 and bytes, an array an element type u32, a
//               count u64 and the elements
//   tensors     name (string), number of dimensions u32, extents u64 (the row's first), type u32, offset u64
//
// Files are strangers.  Nothing is copied while a file is read: values stay where they are in the mapped file, so a
// count in it can ask for no memory, and everything that it says is compared with the bytes that are there.  Format:
// ggml/docs/gguf.md of github.com/ggml-org/ggml.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "caravan/base/file.h"
#include "caravan/quant/block_type.h"

namespace caravan::checkpoint {

// Types of metadata, by their numbers in the file.
enum class GgufType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kText = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// "u32", "array": for messages.
const char* to_string(GgufType type);

// A metadata value, where it lies in the file.
struct GgufValue {
  GgufType type = GgufType::kU8;
  GgufType element = GgufType::kU8;  // of an array
  std::int64_t count = 1;            // elements of an array
  // The value as the file has it behind its type: of a text the characters without the length, of an array the elements
  // without their type and count.
  std::span<const std::byte> bytes;
};

// A file's metadata.  Keys keep their order; each stands once.  Getters give nothing for a key that is not there and
// throw FormatError, naming file, key and type, for a value of another kind.
class GgufMetadata {
 public:
  const std::vector<std::string>& keys() const { return keys_; }
  const GgufValue* find(const std::string& key) const;

  // Any integer type whose value fits.
  std::optional<std::int64_t> integer(const std::string& key) const;
  // Any number.  An f32 as the shortest decimal that gives it: 1e-05, not 9.99999974e-06.
  std::optional<double> number(const std::string& key) const;
  std::optional<bool> boolean(const std::string& key) const;
  // Characters may be any bytes.
  std::optional<std::string> text(const std::string& key) const;
  // Views into the file.
  std::optional<std::vector<std::string_view>> texts(const std::string& key) const;
  // Arrays of any integer type, or one integer.
  std::optional<std::vector<std::int64_t>> integers(const std::string& key) const;
  // Arrays of f32 or f64.
  std::optional<std::vector<double>> numbers(const std::string& key) const;

 private:
  friend struct GgufParser;
  [[noreturn]] void wrong_kind(const std::string& key, const GgufValue& value, const char* expected) const;

  std::string source_;
  std::vector<std::string> keys_;
  std::map<std::string, GgufValue> values_;
};

// One tensor of a file.
struct GgufTensor {
  std::string name;
  const quant::TypeFacts* type = nullptr;
  // Rows first, as everywhere in Caravan (the file has the row's extent first): one to four extents, all above 0.  A
  // scalar, which has none in the file, has [1].
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;  // offset in the file
  std::int64_t bytes = 0;

  std::int64_t columns() const { return shape.back(); }
  std::int64_t rows() const;  // the product of the other extents
};

struct GgufHeader {
  std::uint32_t version = 3;
  std::int64_t alignment = 32;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in the file's order
};

// The beginning of a file, parsed and checked; `head` is the whole file, or its beginning at least to the end of the
// tensor table, `file_bytes` the size of the whole.  The result's values are views of `head`.
// Limits: 48 MiB up to the end of the table, 65,536 keys, 65,536 tensors, 2^21 elements of an array, arrays four deep.
// Throws FormatError (source, offset, expected, found) for what a valid file is not: another magic or version,
// big-endian, cut off, counts and lengths beyond the file, empty, unprintable or repeated names, unknown types, booleans
// that are neither 0 nor 1, an alignment that is no power of two, extents of zero or so large that sizes wrap, rows that
// are no whole number of blocks, offsets that are not aligned, leave the file or overlap.
GgufHeader parse_gguf_header(std::span<const std::byte> head, std::int64_t file_bytes, const std::string& source);

// A file, mapped.  Copies share the mapping.
class GgufFile {
 public:
  // Throws FileError when it cannot be opened, FormatError as parse_gguf_header does.
  static GgufFile open(const std::filesystem::path& path);

  const GgufHeader& header() const { return *header_; }
  const GgufMetadata& metadata() const { return header_->metadata; }
  const std::filesystem::path& path() const { return file_.path(); }
  // The tensor of that name, or nullptr.
  const GgufTensor* find(const std::string& name) const;
  // Its bytes where they are in the mapped file, as rows of blocks: a view that keeps the mapping alive.
  // Throws UnsupportedError when Caravan cannot read the type.
  quant::BlockMatrix blocks(const GgufTensor& tensor) const;

 private:
  MappedFile file_;
  std::shared_ptr<const GgufHeader> header_;
  std::map<std::string, std::size_t> by_name_;
};

// Whether the path is a regular file that begins with the magic.  Never throws.
bool is_gguf(const std::filesystem::path& path);

// A metadata value to write.  GgufValue copies one out of a file that is open.
using GgufWriteValue = std::variant<std::uint32_t, std::int32_t, std::uint64_t, float, bool, std::string,
                                    std::vector<std::string>, std::vector<std::int32_t>, std::vector<float>, GgufValue>;

struct GgufEntry {
  std::string key;
  GgufWriteValue value;
};

struct GgufTensorPlan {
  std::string name;
  quant::BlockType type = quant::BlockType::kF32;
  std::vector<std::int64_t> shape;  // rows first

  // Throws FormatError when there are no extents or more than four, one is below 1, a row is no whole number of blocks or
  // the size passes 2^63.
  std::int64_t bytes() const;
};

// Writes one file of version 3 and alignment 32, tensor by tensor in the order of the plan, through AtomicFile.
class GgufWriter {
 public:
  // Throws FileError when the directory is missing, not writable or too full; FormatError when a key or a name stands
  // twice or is one that readers refuse (llama.cpp's tensors have names of at most 63 bytes), or a size is beyond the
  // format's limits.
  GgufWriter(const std::filesystem::path& target, const std::vector<GgufEntry>& metadata,
             const std::vector<GgufTensorPlan>& plan);

  // The next bytes of the current tensor; may be part of it, and may not pass its end.  Padding is written between
  // tensors.  Throws FormatError when they are more than the tensor has left, FileError when the system refuses.
  void append(std::span<const std::byte> bytes);
  // Where the file lies until finish(): complete once every byte is appended, so that it can be read and checked.
  const std::filesystem::path& staged_path() const { return file_.staged_path(); }
  // Throws FormatError when bytes are missing, FileError when the system refuses.  Before it, the target is untouched.
  void finish();

 private:
  GgufWriter(const std::filesystem::path& target, std::vector<std::int64_t> sizes, const std::string& head);
  void begin_tensor();

  std::string target_;
  AtomicFile file_;
  std::vector<std::int64_t> sizes_;  // bytes of the tensors
  std::size_t at_ = 0;               // the current tensor
  std::int64_t remaining_ = 0;       // of it
};

}  // namespace caravan::checkpoint
