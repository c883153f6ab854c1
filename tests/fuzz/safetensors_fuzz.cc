// Any bytes as a safetensors file: a FormatError, or entries that tile the data section.
//
// The mutator knows the format: it keeps the header's length true while it damages the header, replaces whole numbers
// by boundary values and cuts or grows the data section.  Plain mutation seldom gets past the length.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <string>

#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using caravan::checkpoint::SafetensorsHeader;
using caravan::checkpoint::TensorEntry;

constexpr std::size_t kLengthBytes = 8;

// Uses the file as a loader would: reads the first and the last byte of every tensor, by its offsets and by its shape.
void touch(const std::byte* file, const SafetensorsHeader& header) {
  volatile std::byte sink{};
  for (const TensorEntry& entry : header.entries) {
    const std::byte* const data = file + header.data_begin + entry.begin;
    if (entry.bytes() > 0) {
      sink = data[0];
      sink = data[entry.bytes() - 1];
    }
    std::int64_t bytes = entry.dtype ? caravan::size_of(*entry.dtype) : 0;
    for (const std::int64_t extent : entry.shape) {
      bytes *= extent;
    }
    if (bytes > 0) {
      sink = data[bytes - 1];
    }
  }
  static_cast<void>(sink);
}

void check_tiling(const SafetensorsHeader& header, std::int64_t file_bytes) {
  std::int64_t position = header.data_begin;
  for (const TensorEntry& entry : header.entries) {
    if (header.data_begin + entry.begin != position || entry.end < entry.begin) {
      std::abort();
    }
    position = header.data_begin + entry.end;
  }
  if (position != file_bytes) {
    std::abort();
  }
}

void mutate_text(std::string& text, std::size_t max_size) {
  const std::size_t size = text.size();
  text.resize(std::max(max_size, size));
  text.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(text.data()), size, text.size()));
}

void replace_a_number(std::string& header, std::size_t data_bytes, std::minstd_rand& random) {
  constexpr char kDigits[] = "0123456789";
  const std::size_t somewhere = random() % (header.size() + 1);
  std::size_t begin = header.find_first_of(kDigits, somewhere);
  begin = begin == std::string::npos ? header.find_first_of(kDigits) : begin;
  if (begin == std::string::npos) {
    return;
  }
  while (begin > 0 && std::strchr(kDigits, header[begin - 1]) != nullptr && header[begin - 1] != '\0') {
    --begin;
  }
  const std::size_t end = std::min(header.find_first_not_of(kDigits, begin), header.size());
  const std::string data = std::to_string(data_bytes);
  const char* const values[] = {"0",
                                "1",
                                "2",
                                "3",
                                "4",
                                "8",
                                "255",
                                "65536",
                                "2147483647",
                                "2147483648",
                                "4294967295",
                                "4294967296",
                                "-1",
                                "1.5",
                                "1e18",
                                data.c_str(),
                                "9223372036854775807",
                                "9223372036854775808",
                                "4611686018427387904",
                                "18446744073709551615",
                                "18446744073709551616"};
  header.replace(begin, end - begin, values[random() % std::size(values)]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A heap copy of exact size: a step beyond it is seen.
  const std::unique_ptr<std::byte[]> file(new std::byte[size]);
  if (size > 0) {
    std::memcpy(file.get(), data, size);
  }
  const auto file_bytes = static_cast<std::int64_t>(size);
  try {
    const SafetensorsHeader header =
        caravan::checkpoint::parse_safetensors_header({file.get(), size}, file_bytes, "x.safetensors");
    touch(file.get(), header);
    check_tiling(header, file_bytes);
  } catch (const caravan::FormatError&) {
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  std::minstd_rand random(seed + 1);
  if (size < kLengthBytes + 2 || random() % 4 == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::uint64_t{data[i]} << (8 * i);
  }
  const std::size_t header_bytes = std::min<std::uint64_t>(length, size - kLengthBytes);
  const char* text = reinterpret_cast<const char*>(data) + kLengthBytes;
  std::string header(text, header_bytes);
  std::string tail(text + header_bytes, size - kLengthBytes - header_bytes);
  switch (random() % 3) {
    case 0:
      mutate_text(header, max_size - kLengthBytes - std::min(tail.size(), max_size - kLengthBytes));
      break;
    case 1:
      replace_a_number(header, tail.size(), random);
      break;
    default:
      tail.resize(random() % 2 == 0 ? tail.size() / 2 : tail.size() + 1 + random() % 8, 'd');
      break;
  }
  std::string out;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    out += static_cast<char>((header.size() >> (8 * i)) & 0xff);
  }
  out += header + tail;
  out.resize(std::min(out.size(), max_size));
  std::memcpy(data, out.data(), out.size());
  return out.size();
}
