#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/train/metrics.h"
#include "tests/support/scratch.h"

namespace caravan::train {
namespace {

namespace fs = std::filesystem;

std::vector<Json> lines_of(const fs::path& path) {
  std::istringstream text(test::read_file(path));
  std::vector<Json> lines;
  for (std::string line; std::getline(text, line);) {
    lines.push_back(parse_json(line, "metrics.jsonl"));
  }
  return lines;
}

std::vector<std::int64_t> steps_of(const fs::path& path) {
  std::vector<std::int64_t> steps;
  for (const Json& line : lines_of(path)) {
    steps.push_back(line.at("step").get<std::int64_t>());
  }
  return steps;
}

void write_steps(const fs::path& path, std::int64_t first, std::int64_t last) {
  MetricsFiles files(path, {}, first);
  for (std::int64_t step = first; step <= last; ++step) {
    files.step({.step = step, .loss = 0.1 * static_cast<double>(step)});
  }
}

TEST(MetricsFiles, WriteALineForEveryStep) {
  const test::ScratchDirectory scratch;
  const fs::path path = scratch.path() / "metrics.jsonl";
  {
    MetricsFiles files(path, {}, 1);
    files.step({.step = 1,
                .loss = 4.1,
                .grad_norm = 0.1,
                .lr = 1e-4,
                .tokens_per_second = 100.5,
                .mfu = 0.25,
                .memory_gib = 1.5,
                .n_tokens_seen = 4096,
                .epoch = 0.125,
                .seconds = 0.5,
                .data_seconds = 0.0625});
    files.validation({.step = 1, .loss = 3.5, .bits_per_byte = 2.5, .targets = 77, .seconds = 1.5});
    files.validation({.step = 2, .loss = 3.25, .bits_per_byte = {}, .targets = 77, .seconds = 1.5});
    files.sample(2, "To \"be\"", "\nor\x01");
    files.flush();
  }
  EXPECT_EQ(test::read_file(path),
            R"({"step":1,"loss":4.1,"grad_norm":0.1,"lr":0.0001,"tokens_per_second":100.5,"mfu":0.25,"memory_gib":1.5,)"
            R"("n_tokens_seen":4096,"epoch":0.125,"seconds":0.5,"data_seconds":0.0625})"
            "\n"
            R"({"step":1,"validation_loss":3.5,"validation_bits_per_byte":2.5,"validation_targets":77,)"
            R"("validation_seconds":1.5})"
            "\n"
            R"({"step":2,"validation_loss":3.25,"validation_targets":77,"validation_seconds":1.5})"
            "\n"
            R"({"step":2,"sample":{"prompt":"To \"be\"","text":"\nor\u0001"}})"
            "\n");
}

TEST(MetricsFiles, StayValidJsonWithNumbersThatAreNoneAndTextThatIsCut) {
  const test::ScratchDirectory scratch;
  const fs::path path = scratch.path() / "metrics.jsonl";
  MetricsFiles files(path, scratch.path() / "tb", 1);
  files.step({.step = 1,
              .loss = std::numeric_limits<double>::quiet_NaN(),
              .grad_norm = std::numeric_limits<double>::infinity()});
  files.sample(1, "caf\xc3", "\xa9\xff");
  const std::vector<Json> lines = lines_of(path);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_TRUE(lines[0].at("loss").is_null());
  EXPECT_TRUE(lines[0].at("grad_norm").is_null());
  EXPECT_EQ(lines[1].at("sample").at("prompt"), "caf\xef\xbf\xbd");
}

TEST(MetricsFiles, CutWhatAResumedRunRepeats) {
  const test::ScratchDirectory scratch;
  const fs::path path = scratch.path() / "metrics.jsonl";
  write_steps(path, 1, 10);
  const std::string whole = test::read_file(path);
  {
    MetricsFiles files(path, {}, 7);
    EXPECT_EQ(steps_of(path), (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6}));
  }
  write_steps(path, 7, 10);
  EXPECT_EQ(test::read_file(path), whole);
  write_steps(path, 11, 12);
  EXPECT_EQ(steps_of(path).size(), 12u);
  write_steps(path, 1, 2);
  EXPECT_EQ(steps_of(path), (std::vector<std::int64_t>{1, 2}));
}

TEST(MetricsFiles, DropWhatACrashLeftUnfinished) {
  const test::ScratchDirectory scratch;
  const fs::path path = scratch.path() / "metrics.jsonl";
  write_steps(path, 1, 3);
  const std::string whole = test::read_file(path);
  for (const std::string& rest : {std::string("{\"step\":4,\"lo"), std::string("{\"step\":2}"), std::string(5, '\0'),
                                  std::string("{\"step\":4,\"lo\n"), std::string("[1]\n"), std::string("{}\n\n")}) {
    test::write_file(path, whole + rest);
    MetricsFiles files(path, {}, 9);
    EXPECT_EQ(test::read_file(path), whole) << rest;
  }
}

TEST(MetricsFiles, SayWhereTheyCannotWrite) {
  const test::ScratchDirectory scratch;
  const std::string message =
      test::message_of<FileError>([&] { MetricsFiles files(scratch.path() / "no" / "metrics.jsonl", {}, 1); });
  EXPECT_NE(message.find("metrics.jsonl"), std::string::npos) << message;
  test::write_file(scratch.path() / "file", "");
  EXPECT_THROW(MetricsFiles(scratch.path() / "metrics.jsonl", scratch.path() / "file" / "tb", 1), FileError);
}

}  // namespace
}  // namespace caravan::train
