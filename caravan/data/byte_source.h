// The content of a file as a stream of bytes, plain or unpacked: gzip (several members) and zstd (several frames).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

namespace caravan::data {

// A packed stream that is cut short or damaged.  The one who reads knows the line, and makes a FormatError of it.
struct DamagedStream : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class ByteSource {
 public:
  // The packing is seen from the first bytes.  Throws FileError, and FormatError when the name ends in .gz or .zst and
  // the content is something else.
  static std::unique_ptr<ByteSource> open(const std::filesystem::path& path);
  // The same over memory, which must outlive it; `name` stands for the path.
  static std::unique_ptr<ByteSource> over(std::span<const std::byte> bytes, const std::filesystem::path& name);

  virtual ~ByteSource() = default;
  // Fills `into` from its beginning and returns the number of bytes, 0 at the end.  Throws DamagedStream.
  virtual std::size_t read(std::span<char> into) = 0;
  // Bytes of the file that were used so far.
  virtual std::int64_t consumed() const = 0;
};

// "data/a.jsonl" of "data/a.jsonl.gz": what the file would be called unpacked.
std::filesystem::path unpacked_name(const std::filesystem::path& path);

}  // namespace caravan::data
