#include "caravan/checkpoint/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/checkpoint/safetensors_format.h"
#include "caravan/tensor/shape.h"

namespace caravan::checkpoint {
namespace {

constexpr std::int64_t kVersion = 1;
constexpr std::size_t kMaxPieces = 65'536;  // of one tensor: more than there are ranks
constexpr std::size_t kMaxRank = Shape::kMaxRank;
constexpr std::size_t kHashDigits = 32;

// What a message is about: the file, a tensor in it, a piece of that.
struct Place {
  const std::string& source;
  const std::string* tensor = nullptr;
  std::optional<std::size_t> piece = std::nullopt;

  [[noreturn]] void fail(const std::string& what) const {
    std::string text = source + ": ";
    if (tensor != nullptr) {
      text += fmt::format("tensor {}{}: ", in_quotes(*tensor), piece ? fmt::format(", piece {}", *piece) : "");
    }
    throw FormatError(text + what);
  }
};

// The members of an object that has exactly these keys, in the order of `keys`.
template <std::size_t count>
std::array<const Json*, count> members(const Json& json, const std::array<const char*, count>& keys, const Place& place,
                                       const char* what) {
  if (!json.is_object()) {
    place.fail(fmt::format("{} must be an object but is a value of type {}", what, json.type_name()));
  }
  std::array<const Json*, count> found{};
  for (const auto& [key, value] : json.items()) {
    const auto at = std::find(keys.begin(), keys.end(), key);
    if (at == keys.end()) {
      place.fail(fmt::format("{} has a field {} that version {} does not know", what, in_quotes(key), kVersion));
    }
    found[static_cast<std::size_t>(at - keys.begin())] = &value;
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (found[i] == nullptr) {
      place.fail(fmt::format("{} lacks the field \"{}\"", what, keys[i]));
    }
  }
  return found;
}

std::string text_of(const Json& json, const Place& place, const char* what) {
  if (!json.is_string()) {
    place.fail(fmt::format("\"{}\" must be a text but is a value of type {}", what, json.type_name()));
  }
  return json.get<std::string>();
}

// A list of whole numbers from 0 to 2^63 - 1.
std::vector<std::int64_t> extents_of(const Json& json, const Place& place, const char* what) {
  if (!json.is_array() || json.size() > kMaxRank) {
    place.fail(fmt::format("\"{}\" must be a list of at most {} whole numbers", what, kMaxRank));
  }
  std::vector<std::int64_t> extents;
  for (const Json& number : json) {
    // nlohmann holds what is not negative as unsigned, and what does not fit as a float.
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() > std::uint64_t{INT64_MAX}) {
      place.fail(fmt::format("\"{}\" holds {}, which is no whole number from 0 to 2^63 - 1", what,
                             printable(number.dump(-1, ' ', true), 40)));
    }
    extents.push_back(number.get<std::int64_t>());
  }
  return extents;
}

std::string box_text(const Piece& piece) {
  return fmt::format("{} to {}", shape_text(piece.begin), shape_text(piece.end));
}

Piece parse_piece(const Json& json, const std::vector<std::int64_t>& shape, const Place& place) {
  const auto [file, tensor, begin, end, hash] = members(
      json, std::array<const char*, 5>{"file", "tensor", "begin", "end", "xxh3"}, place, "the description of a piece");
  Piece piece{text_of(*file, place, "file"), text_of(*tensor, place, "tensor"), extents_of(*begin, place, "begin"),
              extents_of(*end, place, "end"), text_of(*hash, place, "xxh3")};
  if (!is_plain_file_name(piece.file)) {
    place.fail(fmt::format("the file {} is no plain file name; pieces lie in the checkpoint's own directory",
                           in_quotes(piece.file)));
  }
  if (const auto fault = name_fault(piece.tensor)) {
    place.fail(fmt::format("the tensor {} of the file {}", in_quotes(piece.tensor), *fault));
  }
  if (piece.hash.size() != kHashDigits || piece.hash.find_first_not_of("0123456789abcdef") != std::string::npos) {
    place.fail(fmt::format("the hash {} is not {} digits 0 to 9 and a to f", in_quotes(piece.hash), kHashDigits));
  }
  bool inside = piece.begin.size() == shape.size() && piece.end.size() == shape.size();
  for (std::size_t axis = 0; inside && axis < shape.size(); ++axis) {
    inside = piece.begin[axis] <= piece.end[axis] && piece.end[axis] <= shape[axis];
  }
  if (!inside) {
    place.fail(fmt::format("the box {} does not lie in the shape {}", box_text(piece), shape_text(shape)));
  }
  return piece;
}

// Elements of a box inside a tensor whose own number of elements is known to fit.
std::int64_t volume(const std::vector<std::int64_t>& begin, const std::vector<std::int64_t>& end) {
  std::int64_t elements = 1;
  for (std::size_t axis = 0; axis < begin.size(); ++axis) {
    elements *= end[axis] - begin[axis];
  }
  return elements;
}

bool overlap(const Piece& a, const Piece& b) {
  bool common = volume(a.begin, a.end) > 0 && volume(b.begin, b.end) > 0;
  for (std::size_t axis = 0; axis < a.begin.size(); ++axis) {
    common = common && std::max(a.begin[axis], b.begin[axis]) < std::min(a.end[axis], b.end[axis]);
  }
  return common;
}

// A corner of a box and the sign of the box's mixed derivative there.
struct Corner {
  std::array<std::int64_t, kMaxRank> at{};
  int sign = 1;
};

void add_corners(std::vector<Corner>& corners, const std::vector<std::int64_t>& begin,
                 const std::vector<std::int64_t>& end, int sign) {
  if (volume(begin, end) == 0) {
    return;
  }
  for (std::size_t choice = 0; choice < std::size_t{1} << begin.size(); ++choice) {
    Corner corner{{}, sign};
    for (std::size_t axis = 0; axis < begin.size(); ++axis) {
      const bool far = ((choice >> axis) & 1) != 0;
      corner.at[axis] = far ? end[axis] : begin[axis];
      corner.sign = far ? -corner.sign : corner.sign;
    }
    corners.push_back(corner);
  }
}

// Whether every element lies in exactly one piece.  That is so when the boxes' indicator functions add up to the
// tensor's own; and since these vanish far away, when their mixed derivatives (along each axis once) do.  The
// derivative of a box is +-1 at its corners, so all corners but the tensor's own must cancel.  No pair is compared.
bool tiles(const StoredTensor& tensor) {
  std::vector<Corner> corners;
  corners.reserve((tensor.pieces.size() + 1) << tensor.shape.size());
  for (const Piece& piece : tensor.pieces) {
    add_corners(corners, piece.begin, piece.end, 1);
  }
  add_corners(corners, std::vector<std::int64_t>(tensor.shape.size(), 0), tensor.shape, -1);
  std::sort(corners.begin(), corners.end(), [](const Corner& a, const Corner& b) { return a.at < b.at; });
  for (std::size_t i = 0; i < corners.size();) {
    std::int64_t sum = 0;
    std::size_t next = i;
    for (; next < corners.size() && corners[next].at == corners[i].at; ++next) {
      sum += corners[next].sign;
    }
    if (sum != 0) {
      return false;
    }
    i = next;
  }
  return true;
}

// Why the pieces do not tile.
[[noreturn]] void fail_tiling(const StoredTensor& tensor, const Place& place) {
  const std::size_t searched = std::min<std::size_t>(tensor.pieces.size(), 1024);  // a hostile file has many
  for (std::size_t a = 0; a < searched; ++a) {
    for (std::size_t b = a + 1; b < searched; ++b) {
      if (overlap(tensor.pieces[a], tensor.pieces[b])) {
        place.fail(fmt::format("pieces {} ({}) and {} ({}) overlap", a, box_text(tensor.pieces[a]), b,
                               box_text(tensor.pieces[b])));
      }
    }
  }
  const std::int64_t elements = volume(std::vector<std::int64_t>(tensor.shape.size(), 0), tensor.shape);
  std::int64_t missing = elements;
  for (const Piece& piece : tensor.pieces) {
    missing -= std::min(missing, volume(piece.begin, piece.end));
  }
  if (tensor.pieces.size() > searched) {
    place.fail(fmt::format("the {} pieces overlap or leave elements of the shape {} uncovered", tensor.pieces.size(),
                           shape_text(tensor.shape)));
  }
  place.fail(fmt::format("the pieces leave {} of the {} elements of the shape {} uncovered", grouped(missing),
                         grouped(elements), shape_text(tensor.shape)));
}

StoredTensor parse_tensor(const Json& json, Place place) {
  const auto [shape, dtype, pieces] =
      members(json, std::array<const char*, 3>{"shape", "dtype", "pieces"}, place, "the description of the tensor");
  StoredTensor tensor;
  tensor.shape = extents_of(*shape, place, "shape");
  const std::string dtype_name = text_of(*dtype, place, "dtype");
  const FormatType* type = find_format_type(dtype_name);
  if (type == nullptr || !type->dtype) {
    place.fail(fmt::format("the dtype {} is none that Caravan holds", in_quotes(dtype_name)));
  }
  tensor.dtype = *type->dtype;
  if (!tensor_bits(tensor.shape, type->bits)) {
    place.fail(fmt::format("the size of the shape {} wraps around 2^63 bits", shape_text(tensor.shape)));
  }
  if (!pieces->is_array() || pieces->size() > kMaxPieces) {
    place.fail(fmt::format("\"pieces\" must be a list of at most {} pieces", grouped(kMaxPieces)));
  }
  for (const Json& piece : *pieces) {
    place.piece = tensor.pieces.size();
    tensor.pieces.push_back(parse_piece(piece, tensor.shape, place));
  }
  place.piece.reset();
  if (!tiles(tensor)) {
    fail_tiling(tensor, place);
  }
  return tensor;
}

std::string quoted(const std::string& text) {
  return Json(text).dump();
}

std::string piece_json(const Piece& piece) {
  return fmt::format(R"({{"file": {}, "tensor": {}, "begin": [{}], "end": [{}], "xxh3": {}}})", quoted(piece.file),
                     quoted(piece.tensor), fmt::join(piece.begin, ", "), fmt::join(piece.end, ", "),
                     quoted(piece.hash));
}

}  // namespace

std::string format_manifest(const Manifest& manifest, const Json& state) {
  try {
    std::string text = fmt::format("{{\n\"caravan_checkpoint\": {},\n\"state\": {},\n\"tensors\": {{", kVersion,
                                   state.is_null() ? "{}" : state.dump());
    const char* before_tensor = "\n";
    for (const auto& [name, tensor] : manifest.tensors) {
      text += fmt::format("{}{}: {{\"shape\": [{}], \"dtype\": \"{}\", \"pieces\": [", before_tensor, quoted(name),
                          fmt::join(tensor.shape, ", "), safetensors_name(tensor.dtype));
      before_tensor = ",\n";
      const char* before_piece = "";
      for (const Piece& piece : tensor.pieces) {
        text += before_piece + piece_json(piece);
        before_piece = ",\n    ";
      }
      text += "]}";
    }
    return text + "\n}}\n";
  } catch (const Json::exception&) {
    throw FormatError("the state or a name cannot be written into a manifest: it is not UTF-8");
  }
}

Manifest parse_manifest(std::string_view text, const std::string& source, Json* state) {
  const Json json = parse_json(text, source);
  const Place place{source};
  // The version first: what else another one has is not known here.
  const auto version = json.is_object() ? json.find("caravan_checkpoint") : json.end();
  if (!json.is_object() || version == json.end()) {
    place.fail("is no manifest of a training checkpoint: there is no \"caravan_checkpoint\"");
  }
  if (*version != kVersion || !version->is_number_integer()) {
    place.fail(fmt::format("is a manifest of version {}; this program reads version {}",
                           printable(version->dump(-1, ' ', true), 40), kVersion));
  }
  const auto [number, stored_state, tensors] =
      members(json, std::array<const char*, 3>{"caravan_checkpoint", "state", "tensors"}, place, "the manifest");
  if (!stored_state->is_object() || !tensors->is_object()) {
    place.fail("\"state\" and \"tensors\" must be objects");
  }
  Manifest manifest;
  for (const auto& [name, tensor] : tensors->items()) {
    const Place here{source, &name};
    if (const auto fault = name_fault(name)) {
      here.fail(*fault);
    }
    manifest.tensors.emplace(name, parse_tensor(tensor, here));
  }
  if (state != nullptr) {
    *state = *stored_state;
  }
  return manifest;
}

}  // namespace caravan::checkpoint
