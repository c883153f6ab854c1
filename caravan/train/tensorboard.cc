#include "caravan/train/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <protozero/pbf_writer.hpp>

#include "caravan/base/error.h"

namespace caravan::train {

namespace {

// Field numbers of tensorflow's event.proto, summary.proto, tensor.proto and tensor_shape.proto.
namespace event {
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
}
namespace session_log {
constexpr int kStatus = 1, kStart = 1;
}
namespace summary {
constexpr int kValue = 1;
}
namespace value {
constexpr int kTag = 1, kSimpleValue = 2, kTensor = 8, kMetadata = 9;
}
namespace metadata {
constexpr int kPluginData = 1, kPluginName = 1;
}
namespace tensor {
constexpr int kDtype = 1, kString = 7, kShape = 2, kDim = 2, kSize = 1, kStringVal = 8;
}

std::array<std::uint32_t, 256> make_table() {
  constexpr std::uint32_t kReflected = 0x82f63b78;  // of the polynomial 0x1edc6f41
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) {
      rest = (rest >> 1) ^ ((rest & 1) != 0 ? kReflected : 0);
    }
    table[byte] = rest;
  }
  return table;
}

template <typename T>
std::string little_endian(T number) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    bytes += static_cast<char>(number >> (8 * i) & 0xff);
  }
  return bytes;
}

std::string masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return little_endian<std::uint32_t>(((crc >> 15) | (crc << 17)) + 0xa282ead8u);
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') {
    return "host";
  }
  return name.data();
}

std::unique_ptr<AppendFile> new_file(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  const auto now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch());
  std::filesystem::path path =
      folder / fmt::format("events.out.tfevents.{:010}.{}.{}", now.count(), host_name(), ::getpid());
  // Two runs of one process within a second: TensorBoard reads files in the order of their names.
  const std::string first = path.string();
  for (int i = 1; std::filesystem::exists(path, code); ++i) {
    path = fmt::format("{}.{}", first, i);
  }
  return std::make_unique<AppendFile>(path, /*fresh=*/true);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static const std::array<std::uint32_t, 256> table = make_table();
  std::uint32_t crc = 0xffffffffu;
  for (const char c : bytes) {
    crc = table[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ (crc >> 8);
  }
  return ~crc;
}

EventFile::EventFile(const std::filesystem::path& folder, std::int64_t first_step) : file_(new_file(folder)) {
  write_event(0, event::kFileVersion, "brain.Event:2");
  std::string log;
  protozero::pbf_writer{log}.add_enum(session_log::kStatus, session_log::kStart);
  write_event(first_step, event::kSessionLog, log);
}

void EventFile::scalars(std::int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  std::string message;
  protozero::pbf_writer writer{message};
  for (const auto& [tag, number] : values) {
    protozero::pbf_writer one{writer, summary::kValue};
    one.add_string(value::kTag, tag);
    one.add_float(value::kSimpleValue, static_cast<float>(number));
  }
  keep_event(step, event::kSummary, message);
}

void EventFile::text(std::int64_t step, const std::string& tag, const std::string& markdown) {
  std::string message;
  {
    protozero::pbf_writer writer{message};
    protozero::pbf_writer one{writer, summary::kValue};
    one.add_string(value::kTag, tag);
    {
      protozero::pbf_writer strings{one, value::kTensor};
      strings.add_enum(tensor::kDtype, tensor::kString);
      {
        protozero::pbf_writer shape{strings, tensor::kShape};
        protozero::pbf_writer dim{shape, tensor::kDim};
        dim.add_int64(tensor::kSize, 1);
      }
      strings.add_bytes(tensor::kStringVal, markdown);
    }
    protozero::pbf_writer about{one, value::kMetadata};
    protozero::pbf_writer plugin{about, metadata::kPluginData};
    plugin.add_string(metadata::kPluginName, "text");
  }
  keep_event(step, event::kSummary, message);
}

void EventFile::sync() {
  file_->retry();
  file_->sync();
}

void EventFile::keep_event(std::int64_t step, int field, std::string_view message) {
  try {
    write_event(step, field, message);
  } catch (const FileError&) {  // sync() tries again and tells
  }
}

void EventFile::write_event(std::int64_t step, int field, std::string_view message) {
  std::string bytes;
  protozero::pbf_writer writer{bytes};
  writer.add_double(event::kWallTime,
                    std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  writer.add_int64(event::kStep, step);
  writer.add_bytes(static_cast<protozero::pbf_tag_type>(field), message.data(), message.size());
  const std::string length = little_endian<std::uint64_t>(bytes.size());
  file_->append(length + masked_crc(length) + bytes + masked_crc(bytes));
}

}  // namespace caravan::train
