#include "caravan/checkpoint/manifest.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "caravan/base/error.h"
#include "tests/checkpoint/checkpoint_fixtures.h"
#include "tests/checkpoint/temporary_directory.h"
#include "tests/support/scratch.h"

namespace caravan::checkpoint {
namespace {

using test::message_of;

constexpr char kHash[] = "0123456789abcdef0123456789abcdef";

std::string document(const std::string& tensors) {
  return R"({"caravan_checkpoint": 1, "state": {}, "tensors": {)" + tensors + "}}";
}

std::string tensor_json(const std::string& shape, const std::string& pieces, const std::string& dtype = "F32") {
  return R"("w": {"shape": )" + shape + R"(, "dtype": ")" + dtype + R"(", "pieces": [)" + pieces + "]}";
}

std::string piece_json(const std::string& begin, const std::string& end, const std::string& file = "a.safetensors") {
  return R"({"file": ")" + file + R"(", "tensor": "w", "begin": )" + begin + R"(, "end": )" + end + R"(, "xxh3": ")" +
         kHash + "\"}";
}

std::string refusal(const std::string& text) {
  return message_of<FormatError>([&] { parse_manifest(text, "m.json", nullptr); });
}

TEST(Manifest, ReadsBackWhatItWrites) {
  Manifest manifest;
  manifest.tensors["model.norm.weight"] = {{64}, DType::kF32, {piece("rank-0.safetensors", "n", {0}, {64})}};
  manifest.tensors["\"odd\" \xc3\xa9"] = {
      {3, 4}, DType::kBF16, {piece("a", "1", {0, 0}, {3, 1}), piece("b", "2", {0, 1}, {3, 4})}};
  manifest.tensors["scalar"] = {{}, DType::kI64, {piece("a", "3", {}, {})}};
  manifest.tensors["nothing"] = {{0, 7}, DType::kU8, {}};
  const Json state = {{"step", 500}, {"nested", {{"list", {1, 2.5, nullptr, "x"}}}}};
  const std::string text = format_manifest(manifest, state);
  Json read_state;
  const Manifest read = parse_manifest(text, "m.json", &read_state);
  EXPECT_EQ(read_state, state);
  EXPECT_EQ(format_manifest(read, read_state), text);
  EXPECT_EQ(read.tensors.size(), 4U);
  EXPECT_EQ(read.tensors.at("\"odd\" \xc3\xa9").pieces[1].begin, (std::vector<std::int64_t>{0, 1}));
}

TEST(Manifest, RefusesEachLieWithASentence) {
  const std::string whole = piece_json("[0, 0]", "[4, 4]");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[]", "is no manifest"},
      {"{}", "is no manifest"},
      {R"({"caravan_checkpoint": 2})", "version 2; this program reads version 1"},
      {R"({"caravan_checkpoint": 1.0})", "version 1.0"},
      {R"({"caravan_checkpoint": 1, "state": {}})", "lacks the field \"tensors\""},
      {R"({"caravan_checkpoint": 1, "state": 3, "tensors": {}})", "must be objects"},
      {R"({"caravan_checkpoint": 1, "state": {}, "tensors": {}, "more": 1})", "has a field \"more\""},
      {document(R"("w": 3)"), "must be an object but is a value of type number"},
      {document(R"("w\u0001": 3)"), "control character"},
      {document(tensor_json("[4, 4]", "3")), "piece 0: the description of a piece must be an object"},
      {document(tensor_json("[4, -4]", "")), "holds -4, which is no whole number"},
      {document(tensor_json("[4, 1.5]", "")), "holds 1.5, which is no whole number"},
      {document(tensor_json("[9223372036854775808]", "")), "which is no whole number from 0 to 2^63 - 1"},
      {document(tensor_json("[1e300]", "")), "which is no whole number"},
      {document(tensor_json("[1, 1, 1, 1, 1]", "")), "a list of at most 4 whole numbers"},
      {document(tensor_json("[4611686018427387904, 4]", "")), "wraps around 2^63"},
      {document(tensor_json("[4]", "", "F31")), "the dtype \"F31\" is none that Caravan holds"},
      {document(tensor_json("[4]", "", "BOOL")), "the dtype \"BOOL\" is none that Caravan holds"},
      {document(tensor_json("[4, 4]", "")), "leave 16 of the 16 elements of the shape [4, 4] uncovered"},
      {document(tensor_json("[4, 4]", piece_json("[0, 0]", "[4, 3]"))), "leave 4 of the 16 elements"},
      {document(tensor_json("[4, 4]", piece_json("[0, 0]", "[4, 5]"))), "[4, 5] does not lie in the shape [4, 4]"},
      {document(tensor_json("[4, 4]", piece_json("[3, 0]", "[2, 4]"))), "does not lie in the shape"},
      {document(tensor_json("[4, 4]", piece_json("[0]", "[4]"))), "does not lie in the shape"},
      {document(tensor_json("[4, 4]", whole + "," + whole)), "pieces 0 ([0, 0] to [4, 4]) and 1"},
      {document(tensor_json("[4, 4]", piece_json("[0, 0]", "[3, 4]") + "," + piece_json("[2, 0]", "[4, 4]"))),
       "overlap"},
      // As many elements as the shape has, one of them twice.
      {document(tensor_json("[3]", piece_json("[0]", "[2]") + "," + piece_json("[0]", "[1]"))), "overlap"},
      {document(tensor_json("[]", "")), "leave 1 of the 1 elements"},
      {document(tensor_json("[]", piece_json("[]", "[]") + "," + piece_json("[]", "[]"))), "overlap"},
      {document(tensor_json("[4]", piece_json("[0]", "[4]", "../a"))), "\"../a\" is no plain file name"},
      {document(tensor_json("[4]", piece_json("[0]", "[4]", ".."))), "is no plain file name"},
      {document(tensor_json("[4]", piece_json("[0]", "[4]", "/etc/passwd"))), "is no plain file name"},
      {document(tensor_json("[4]", piece_json("[0]", "[4]", ""))), "is no plain file name"},
      {document(tensor_json("[4]", R"({"file": "a", "tensor": "w", "begin": [0], "end": [4], "xxh3": "12"})")),
       "the hash \"12\" is not 32 digits"},
      {document(tensor_json("[4]", R"({"file": "a", "tensor": "w", "begin": [0], "end": [4]})")),
       "lacks the field \"xxh3\""},
  };
  for (const auto& [text, expected] : cases) {
    const std::string message = refusal(text);
    EXPECT_TRUE(message.starts_with("m.json: ")) << text << "\n" << message;
    EXPECT_NE(message.find(expected), std::string::npos) << text << "\n" << message;
  }
  const std::string text = document(tensor_json("[4, 4]", whole));
  EXPECT_EQ(refusal(text), "");
  for (std::size_t length = 0; length < text.size(); ++length) {
    EXPECT_NE(refusal(text.substr(0, length)), "") << length;
  }
}

// Every set of up to three boxes of a 2 x 3 tensor, against counting.
TEST(Manifest, AcceptsExactlyTheSetsOfBoxesThatTile) {
  std::vector<Piece> boxes;
  std::vector<int> masks;
  for (std::int64_t top = 0; top < 2; ++top) {
    for (std::int64_t bottom = top + 1; bottom <= 2; ++bottom) {
      for (std::int64_t left = 0; left < 3; ++left) {
        for (std::int64_t right = left + 1; right <= 3; ++right) {
          boxes.push_back(piece("f", "t", {top, left}, {bottom, right}));
          int mask = 0;
          for (std::int64_t cell = 0; cell < 6; ++cell) {
            const bool inside = cell / 3 >= top && cell / 3 < bottom && cell % 3 >= left && cell % 3 < right;
            mask |= inside ? 1 << cell : 0;
          }
          masks.push_back(mask);
        }
      }
    }
  }
  const int count = static_cast<int>(boxes.size());
  int accepted = 0;
  for (int a = 0; a < count; ++a) {
    for (int b = -1; b < count; ++b) {
      for (int c = -1; c < (b < 0 ? 0 : count); ++c) {
        StoredTensor tensor{{2, 3}, DType::kF32, {}};
        int sum = 0;
        int seen = 0;
        for (const int chosen : {a, b, c}) {
          if (chosen >= 0) {
            tensor.pieces.push_back(boxes[static_cast<std::size_t>(chosen)]);
            seen |= masks[static_cast<std::size_t>(chosen)];
            sum += __builtin_popcount(static_cast<unsigned>(masks[static_cast<std::size_t>(chosen)]));
          }
        }
        Manifest manifest;
        manifest.tensors["w"] = tensor;
        const bool tiles = seen == 0x3f && sum == 6;
        EXPECT_EQ(refusal(format_manifest(manifest, Json::object())).empty(), tiles) << a << " " << b << " " << c;
        accepted += tiles ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(accepted, 1 + 2 * 3 + 6 * 9) << "one box; two in 3 ways and any order; three in 9 ways and any order";
}

TEST(Manifest, ChecksTensOfThousandsOfPiecesQuickly) {
  constexpr std::int64_t kSide = 180;
  StoredTensor tensor{{kSide, kSide}, DType::kF32, {}};
  for (std::int64_t row = 0; row < kSide; ++row) {
    for (std::int64_t column = 0; column < kSide; ++column) {
      tensor.pieces.push_back(piece("f", "t", {row, column}, {row + 1, column + 1}));
    }
  }
  Manifest manifest;
  manifest.tensors["w"] = tensor;
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(refusal(format_manifest(manifest, Json::object())), "");
  manifest.tensors["w"].pieces.back() = manifest.tensors["w"].pieces.front();
  EXPECT_NE(refusal(format_manifest(manifest, Json::object())), "");
  // Half a billion pairs would take longer than this by far; sorting takes a fraction of a second.
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
}

TEST(Manifest, RefusesToWriteWhatIsNoText) {
  Manifest manifest;
  EXPECT_NE(message_of<FormatError>([&] { format_manifest(manifest, {{"name", "\xff"}}); }), "");
}

}  // namespace
}  // namespace caravan::checkpoint
