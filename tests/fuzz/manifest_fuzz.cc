// Any bytes as a manifest: a FormatError, or tensors whose boxes cover every element once and a text that says the same
// when it is written and read again.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/checkpoint/manifest.h"

namespace {

using caravan::checkpoint::Manifest;
using caravan::checkpoint::Piece;
using caravan::checkpoint::StoredTensor;

// Counts, element by element, where there are few enough.
void check_tiling(const StoredTensor& tensor) {
  constexpr std::int64_t kMost = 4096;
  std::int64_t elements = 1;
  for (const std::int64_t extent : tensor.shape) {
    if (extent > kMost || elements * extent > kMost) {
      return;
    }
    elements *= extent;
  }
  if (elements * static_cast<std::int64_t>(tensor.pieces.size()) > 16 * kMost) {
    return;
  }
  for (std::int64_t element = 0; element < elements; ++element) {
    std::int64_t covered = 0;
    for (const Piece& piece : tensor.pieces) {
      bool inside = true;
      std::int64_t rest = element;
      for (std::size_t axis = tensor.shape.size(); axis-- > 0;) {
        const std::int64_t at = rest % tensor.shape[axis];
        rest /= tensor.shape[axis];
        inside = inside && at >= piece.begin[axis] && at < piece.end[axis];
      }
      covered += inside ? 1 : 0;
    }
    if (covered != 1) {
      std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A heap copy of exact size: a step beyond it is seen.
  const std::unique_ptr<char[]> copy(new char[size]);
  std::copy_n(data, size, copy.get());
  try {
    caravan::Json state;
    const Manifest manifest = caravan::checkpoint::parse_manifest({copy.get(), size}, "m.json", &state);
    for (const auto& [name, tensor] : manifest.tensors) {
      check_tiling(tensor);
    }
    const std::string text = caravan::checkpoint::format_manifest(manifest, state);
    caravan::Json again;
    const Manifest reread = caravan::checkpoint::parse_manifest(text, "again.json", &again);
    if (caravan::checkpoint::format_manifest(reread, again) != text) {
      std::abort();
    }
  } catch (const caravan::FormatError&) {
  }
  return 0;
}
