#include "caravan/train/tensorboard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <map>
#include <stdexcept>

#include "caravan/train/metrics.h"
#include "tests/support/scratch.h"

namespace caravan::train {
namespace {

namespace fs = std::filesystem;

// RFC 3720, appendix B.4.
TEST(Crc32c, GivesThePublishedValues) {
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising;
  for (int i = 0; i < 32; ++i) {
    rising += static_cast<char>(i);
  }
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
}

// A second reading of the formats, which shares nothing with the writer.
template <typename T>
T number_at(const std::string& bytes, std::size_t at) {
  T number{};
  std::memcpy(&number, bytes.substr(at, sizeof(T)).data(), sizeof(T));
  return number;
}

std::uint32_t masked(const std::string& bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

std::vector<std::string> records_of(const std::string& file) {
  std::vector<std::string> records;
  for (std::size_t at = 0; at < file.size();) {
    const auto length = number_at<std::uint64_t>(file, at);
    EXPECT_EQ(number_at<std::uint32_t>(file, at + 8), masked(file.substr(at, 8)));
    records.push_back(file.substr(at + 12, length));
    EXPECT_EQ(number_at<std::uint32_t>(file, at + 12 + length), masked(records.back()));
    at += 16 + length;
  }
  return records;
}

// The fields of a protobuf message, as raw bytes: varints and fixed numbers as 8 bytes, the rest as it stands.
std::multimap<int, std::string> fields_of(const std::string& message) {
  std::multimap<int, std::string> fields;
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) {
        return value;
      }
    }
  };
  while (at < message.size()) {
    const std::uint64_t key = varint();
    std::string value;
    if ((key & 7) == 0) {
      const std::uint64_t number = varint();
      value.assign(reinterpret_cast<const char*>(&number), 8);
    } else {
      const std::size_t size = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : varint();
      value = message.substr(at, size);
      at += size;
    }
    fields.emplace(static_cast<int>(key >> 3), value);
  }
  return fields;
}

std::string field(const std::string& message, int number) {
  const auto fields = fields_of(message);
  EXPECT_EQ(fields.count(number), 1u) << number;
  return fields.count(number) == 0 ? "" : fields.find(number)->second;
}

std::string only_file(const fs::path& folder) {
  std::vector<fs::path> files(fs::directory_iterator(folder), fs::directory_iterator{});
  EXPECT_EQ(files.size(), 1u);
  EXPECT_EQ(files.at(0).filename().string().find("events.out.tfevents."), 0u);
  return test::read_file(files.at(0));
}

// tag -> value of an event's scalars.
std::map<std::string, float> scalars_of(const std::string& event) {
  std::map<std::string, float> scalars;
  for (const auto& [number, value] : fields_of(field(event, 5))) {
    EXPECT_EQ(number, 1);
    scalars[field(value, 1)] = number_at<float>(field(value, 2), 0);
  }
  return scalars;
}

TEST(EventFile, BeginsWithItsVersionAndTheStepThatEarlierFilesEndAt) {
  const test::ScratchDirectory scratch;
  EventFile(scratch.path() / "a" / "tb", 41);
  const auto records = records_of(only_file(scratch.path() / "a" / "tb"));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(field(records[0], 3), "brain.Event:2");
  EXPECT_GT(number_at<double>(field(records[0], 1), 0), 1.6e9);
  EXPECT_EQ(number_at<std::int64_t>(field(records[1], 2), 0), 41);
  EXPECT_EQ(number_at<std::int64_t>(field(field(records[1], 7), 1), 0), 1);
}

TEST(EventFile, HoldsTheMetricsUnderTorchtitansNames) {
  const test::ScratchDirectory scratch;
  {
    MetricsFiles files(scratch.path() / "metrics.jsonl", scratch.path() / "tb", 1);
    files.step({.step = 300,
                .loss = 4.5,
                .grad_norm = 2.5,
                .lr = 0.125,
                .tokens_per_second = 1000.0,
                .mfu = 0.5,
                .memory_gib = 3.25,
                .n_tokens_seen = 4096,
                .epoch = 0.25,
                .seconds = 2.0,
                .data_seconds = 0.5});
    files.validation({.step = 301, .loss = 3.5, .bits_per_byte = 2.25});
  }
  const auto records = records_of(only_file(scratch.path() / "tb"));
  ASSERT_EQ(records.size(), 4u);
  EXPECT_EQ(number_at<std::int64_t>(field(records[2], 2), 0), 300);
  EXPECT_EQ(scalars_of(records[2]), (std::map<std::string, float>{{"loss_metrics/global_avg_loss", 4.5f},
                                                                  {"grad_norm", 2.5f},
                                                                  {"lr", 0.125f},
                                                                  {"throughput(tps)", 1000.0f},
                                                                  {"mfu(%)", 50.0f},
                                                                  {"memory/max_active(GiB)", 3.25f},
                                                                  {"n_tokens_seen", 4096.0f},
                                                                  {"time_metrics/end_to_end(s)", 2.0f},
                                                                  {"time_metrics/data_loading(s)", 0.5f},
                                                                  {"time_metrics/data_loading(%)", 25.0f},
                                                                  {"epoch", 0.25f}}));
  EXPECT_EQ(number_at<std::int64_t>(field(records[3], 2), 0), 301);
  EXPECT_EQ(scalars_of(records[3]), (std::map<std::string, float>{{"validation_metrics/loss", 3.5f},
                                                                  {"validation_metrics/bits_per_byte", 2.25f}}));
}

TEST(EventFile, HoldsSamplesForTheTextPage) {
  const test::ScratchDirectory scratch;
  { MetricsFiles(scratch.path() / "metrics.jsonl", scratch.path() / "tb", 1).sample(7, "ROMEO:\n", "But\nsoft"); }
  const auto records = records_of(only_file(scratch.path() / "tb"));
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(number_at<std::int64_t>(field(records[2], 2), 0), 7);
  const std::string value = field(field(records[2], 5), 1);
  EXPECT_EQ(field(value, 1), "samples/ROMEO: ");
  EXPECT_EQ(field(field(field(value, 9), 1), 1), "text");
  const std::string tensor = field(value, 8);
  EXPECT_EQ(number_at<std::int64_t>(field(tensor, 1), 0), 7);  // DT_STRING
  EXPECT_EQ(number_at<std::int64_t>(field(field(field(tensor, 2), 2), 1), 0), 1);
  EXPECT_EQ(field(tensor, 8), "    ROMEO:\n    But\n    soft");
}

TEST(EventFile, NeverWritesIntoAnotherRunsFile) {
  const test::ScratchDirectory scratch;
  for (int i = 0; i < 5; ++i) {
    EventFile(scratch.path(), 1);
  }
  std::vector<fs::path> files(fs::directory_iterator(scratch.path()), fs::directory_iterator{});
  EXPECT_EQ(files.size(), 5u);
  for (const fs::path& file : files) {
    EXPECT_EQ(records_of(test::read_file(file)).size(), 2u);
  }
}

}  // namespace
}  // namespace caravan::train
