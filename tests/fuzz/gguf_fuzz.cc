// Any bytes as a GGUF file: a FormatError, or tensors that lie in the file and values that can be walked.
//
// The mutator knows where lengths, counts and offsets stand (everywhere) and replaces eight bytes by boundary values;
// plain mutation does the rest.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>

#include "caravan/base/error.h"
#include "caravan/checkpoint/gguf.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using namespace caravan::checkpoint;

// Uses the file as a loader would.
void touch(const std::byte* file, std::int64_t file_bytes, const GgufHeader& header) {
  volatile std::byte sink{};
  for (const GgufTensor& tensor : header.tensors) {
    if (tensor.begin < 0 || tensor.bytes <= 0 || tensor.begin > file_bytes - tensor.bytes ||
        tensor.rows() * tensor.columns() / tensor.type->elements * tensor.type->bytes != tensor.bytes) {
      std::abort();
    }
    sink = file[tensor.begin];
    sink = file[tensor.begin + tensor.bytes - 1];
  }
  static_cast<void>(sink);
}

template <typename Get>
void try_get(const Get& get) {
  try {
    static_cast<void>(get());
  } catch (const caravan::FormatError&) {
  }
}

void walk(const GgufMetadata& metadata) {
  std::size_t letters = 0;
  for (const std::string& key : metadata.keys()) {
    try_get([&] { return metadata.integer(key); });
    try_get([&] { return metadata.number(key); });
    try_get([&] { return metadata.boolean(key); });
    try_get([&] { return metadata.text(key); });
    try_get([&] { return metadata.integers(key); });
    try_get([&] { return metadata.numbers(key); });
    try_get([&] {
      const auto texts = metadata.texts(key);
      for (const std::string_view one : *texts) {
        letters += one.empty() ? 0 : static_cast<unsigned char>(one.front()) + static_cast<unsigned char>(one.back());
      }
      return letters;
    });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A heap copy of exact size: a step beyond it is seen.
  const std::unique_ptr<std::byte[]> file(new std::byte[size]);
  if (size > 0) {
    std::memcpy(file.get(), data, size);
  }
  try {
    const GgufHeader header = parse_gguf_header({file.get(), size}, static_cast<std::int64_t>(size), "x.gguf");
    touch(file.get(), static_cast<std::int64_t>(size), header);
    walk(header.metadata);
  } catch (const caravan::FormatError&) {
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  std::minstd_rand random(seed + 1);
  constexpr std::size_t kField = 8;
  if (size < 2 * kField || random() % 3 == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const std::uint64_t values[] = {0,
                                  1,
                                  2,
                                  31,
                                  32,
                                  33,
                                  255,
                                  size - 1,
                                  size,
                                  size + 1,
                                  65536,
                                  (std::uint64_t{1} << 21) + 1,
                                  std::uint64_t{1} << 31,
                                  std::uint64_t{1} << 32,
                                  std::uint64_t{1} << 60,
                                  std::uint64_t{1} << 62,
                                  std::uint64_t{1} << 63,
                                  ~std::uint64_t{31},
                                  ~std::uint64_t{0}};
  const std::uint64_t value = values[random() % std::size(values)];
  const std::size_t width = random() % 2 == 0 ? kField : kField / 2;
  std::memcpy(data + 4 + random() % (size - 4 - kField + 1), &value, width);
  return size;
}
