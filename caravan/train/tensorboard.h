// TensorBoard's event file: records of tensorflow.Event messages; inside train only.
//
//   record   length u64 | masked crc32c of the length u32 | bytes | masked crc32c of the bytes u32     tensorflow TFRecord
//   mask(c)  ((c >> 15) | (c << 17)) + 0xa282ead8
// Little-endian.  The first event names the version; a second one says from which step on earlier files are outdated.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "caravan/train/append_file.h"

namespace caravan::train {

// CRC-32C (Castagnoli), RFC 3720 appendix B.4.
std::uint32_t crc32c(std::string_view bytes);

class EventFile {
 public:
  // Makes `folder`/events.out.tfevents.TIME.HOST.PID; `first_step`: what other files in the folder say of this step and
  // later ones is hidden by TensorBoard.  Throws FileError.
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);

  // What the system does not take is kept for sync().
  void scalars(std::int64_t step, const std::vector<std::pair<std::string, double>>& values);
  void text(std::int64_t step, const std::string& tag, const std::string& markdown);
  // Writes what was kept and makes everything durable.  Throws FileError; it may be asked again.
  void sync();

 private:
  void keep_event(std::int64_t step, int field, std::string_view message);
  void write_event(std::int64_t step, int field, std::string_view message);

  std::unique_ptr<AppendFile> file_;
};

}  // namespace caravan::train
