#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>

#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"
#include "tests/checkpoint/safetensors_cases.h"
#include "tests/support/source_folder.h"

namespace caravan::checkpoint {
namespace {

// Parsed from a heap copy of exact size, so that a sanitizer sees every step beyond it.
SafetensorsHeader parse(const std::string& file) {
  const std::unique_ptr<std::byte[]> copy(new std::byte[file.size()]);
  std::memcpy(copy.get(), file.data(), file.size());
  return parse_safetensors_header({copy.get(), file.size()}, static_cast<std::int64_t>(file.size()), "x.safetensors");
}

// The message of the refusal; "" when the file was accepted.
std::string refusal(const std::string& file) {
  try {
    parse(file);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "";
}

// What the reader promises of every file that it accepts.
void expect_tiled(const SafetensorsHeader& header, std::size_t file_bytes) {
  std::int64_t position = 0;
  for (const TensorEntry& entry : header.entries) {
    EXPECT_EQ(entry.begin, position) << entry.name;
    EXPECT_GE(entry.end, entry.begin) << entry.name;
    position = entry.end;
  }
  EXPECT_EQ(header.data_begin + position, static_cast<std::int64_t>(file_bytes));
}

// The file is refused, or what it says is true.
void expect_refused_or_true(const std::string& file) {
  try {
    expect_tiled(parse(file), file.size());
  } catch (const FormatError&) {
  }
}

TEST(SafetensorsHeader, AcceptsEveryValidFile) {
  for (const ValidCase& valid : valid_safetensors()) {
    SCOPED_TRACE(valid.name);
    EXPECT_EQ(refusal(valid.file), "");
    const SafetensorsHeader header = parse(valid.file);
    EXPECT_EQ(header.entries.size(), valid.tensors);
    expect_tiled(header, valid.file.size());
  }
}

TEST(SafetensorsHeader, RefusesEveryHostileFileWithASentenceThatNamesTheFault) {
  for (const HostileCase& hostile : hostile_safetensors()) {
    SCOPED_TRACE(hostile.name);
    const auto start = std::chrono::steady_clock::now();
    const std::string message = refusal(hostile.file);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
    ASSERT_NE(message, "") << "accepted";
    EXPECT_TRUE(message.starts_with("x.safetensors")) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 800U) << message;
    for (const std::string& word : hostile.words) {
      EXPECT_NE(message.find(word), std::string::npos) << '"' << word << "\" is not in: " << message;
    }
  }
}

TEST(SafetensorsHeader, SaysWhatAnEntryIs) {
  const SafetensorsHeader header = parse(
      safetensors_file(R"({"__metadata__":{"format":"pt"},"late":{"dtype":"BOOL","shape":[3],"data_offsets":[12,15]},)"
                       R"("early":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}} )",
                       std::string(15, 'd')));
  ASSERT_EQ(header.entries.size(), 2U);
  EXPECT_EQ(header.entries[0].name, "early");
  EXPECT_EQ(header.entries[0].dtype_name, "BF16");
  EXPECT_EQ(header.entries[0].dtype, DType::kBF16);
  EXPECT_EQ(header.entries[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(header.entries[0].bytes(), 12);
  EXPECT_EQ(header.entries[1].dtype_name, "BOOL");
  EXPECT_EQ(header.entries[1].dtype, std::nullopt);
  EXPECT_EQ(header.entries[1].begin, 12);
  EXPECT_EQ(header.metadata, (std::map<std::string, std::string>{{"format", "pt"}}));
}

TEST(SafetensorsHeader, ReadsFromABeginningThatEndsWithTheHeader) {
  const std::string file = valid_safetensors().back().file;
  const SafetensorsHeader whole = parse(file);
  const auto bytes = static_cast<std::int64_t>(file.size());
  const auto head = as_bytes(file).first(static_cast<std::size_t>(whole.data_begin));
  EXPECT_EQ(parse_safetensors_header(head, bytes, "x").entries.size(), whole.entries.size());
  EXPECT_THROW(parse_safetensors_header(head.first(head.size() - 1), bytes, "x"), FormatError);
}

TEST(SafetensorsHeader, BelievesTheSizeOfTheFileMoreThanTheBytesItWasGiven) {
  EXPECT_THROW(parse_safetensors_header(as_bytes(safetensors_file("{}", "")), 9, "x"), FormatError);
}

TEST(SafetensorsHeader, RefusesEveryTruncationOfEveryValidFile) {
  for (const ValidCase& valid : valid_safetensors()) {
    for (std::size_t bytes = 0; bytes < valid.file.size(); ++bytes) {
      EXPECT_NE(refusal(valid.file.substr(0, bytes)), "") << valid.name << " cut to " << bytes;
    }
  }
}

TEST(SafetensorsHeader, RefusesEveryExtensionOfEveryValidFile) {
  for (const ValidCase& valid : valid_safetensors()) {
    for (const std::size_t more : {1, 8, 4096}) {
      EXPECT_NE(refusal(valid.file + std::string(more, '\0')), "") << valid.name << " and " << more << " bytes";
    }
  }
}

TEST(SafetensorsHeader, BelievesNoBoundaryValueInTheLengthField) {
  const std::string file = valid_safetensors().back().file;
  const std::uint64_t size = file.size();
  const std::uint64_t honest = static_cast<std::uint64_t>(parse(file).data_begin) - 8;
  std::vector<std::uint64_t> values = {0, 1, 7, 8, 9, honest, size - 8, size - 7, size, 100'000'000};
  for (int bit = 4; bit < 64; ++bit) {
    values.push_back(std::uint64_t{1} << bit);
  }
  for (const std::uint64_t value : values) {
    for (const std::uint64_t near : {value - 1, value, value + 1, ~value, std::uint64_t{0} - value}) {
      if (near != honest) {
        EXPECT_NE(refusal(safetensors_file(near, file.substr(8), "")), "") << near;
      }
    }
  }
}

TEST(SafetensorsHeader, BelievesNoBoundaryValueInAnyNumberOfTheHeader) {
  const std::vector<std::string> values = {"0",
                                           "1",
                                           "2",
                                           "127",
                                           "128",
                                           "255",
                                           "256",
                                           "65535",
                                           "65536",
                                           "2147483647",
                                           "2147483648",
                                           "4294967295",
                                           "4294967296",
                                           "9007199254740992",
                                           "1152921504606846975",
                                           "1152921504606846976",
                                           "4611686018427387903",
                                           "4611686018427387904",
                                           "9223372036854775807",
                                           "9223372036854775808",
                                           "18446744073709551615",
                                           "18446744073709551616",
                                           "-1",
                                           "-9223372036854775808",
                                           "1e18",
                                           "0.5",
                                           "99999999999999999999999999999999"};
  int tried = 0;
  for (const ValidCase& valid : valid_safetensors()) {
    const auto data_begin = static_cast<std::size_t>(parse(valid.file).data_begin);
    const std::string header = valid.file.substr(8, data_begin - 8);
    const std::string data = valid.file.substr(data_begin);
    constexpr char kDigits[] = "0123456789";
    for (std::size_t i = header.find_first_of(kDigits); i != std::string::npos;) {
      const std::size_t end = header.find_first_not_of(kDigits, i);
      for (const std::string& value : values) {
        expect_refused_or_true(safetensors_file(header.substr(0, i) + value + header.substr(end), data));
        ++tried;
      }
      i = header.find_first_of(kDigits, end);
    }
  }
  EXPECT_GT(tried, 1000);
}

TEST(SafetensorsHeader, SurvivesRandomDamage) {
  std::mt19937 random(20240607);
  for (const ValidCase& valid : valid_safetensors()) {
    for (int trial = 0; trial < 1000; ++trial) {
      std::string file = valid.file;
      for (unsigned flips = 1 + random() % 4; flips > 0; --flips) {
        file[random() % file.size()] ^= static_cast<char>(1U << (random() % 8));
      }
      expect_refused_or_true(file);
    }
  }
}

TEST(SafetensorsHeader, CountsTensorsBeforeItLooksAtThem) {
  std::string header = "{";
  for (int i = 0; i <= 1 << 20; ++i) {
    header += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":0";
  }
  const std::string message = refusal(safetensors_file(header + "}", ""));
  EXPECT_NE(message.find("1048577 tensors"), std::string::npos) << message;
}

// The fuzzer's seeds are this table: `scripts/fuzz --make-corpus` writes them.
TEST(SafetensorsHeader, HasItsCasesInTheCorpusOfTheFuzzer) {
  const std::filesystem::path corpus = test::source_folder() / "tests/fuzz/corpus/safetensors";
  const auto expect_same = [&corpus](const std::string& name, const std::string& file) {
    std::ifstream stream(corpus / name, std::ios::binary);
    ASSERT_TRUE(stream) << corpus / name << " is missing";
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(stream), {}), file) << name;
  };
  for (const ValidCase& valid : valid_safetensors()) {
    expect_same(valid.name, valid.file);
  }
  for (const HostileCase& hostile : hostile_safetensors()) {
    expect_same(hostile.name, hostile.file);
  }
}

}  // namespace
}  // namespace caravan::checkpoint
