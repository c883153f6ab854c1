#include "caravan/ops/trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "caravan/base/error.h"
#include "caravan/ops/linear.h"
#include "tests/support/scratch.h"

namespace caravan::ops {
namespace {

using Json = nlohmann::json;

class TraceTest : public testing::Test {
 protected:
  Json events() const {
    Json result = Json::array();
    for (const Json& one : Json::parse(test::read_file(path_))) {
      if (one.at("ph") == "X") {
        result.push_back(one);
      }
    }
    return result;
  }

  void product() {
    const Tensor x = ctx_.allocate(DType::kF32, {3, 8});
    const Tensor y = ctx_.allocate(DType::kF32, {3, 4});
    linear(ctx_, y, x, Weight(ctx_.allocate(DType::kF32, {4, 8})));
  }

  test::ScratchDirectory scratch_;
  std::filesystem::path path_ = scratch_.path() / "trace.json";
  Context ctx_ = make_context({.backend = Backend::kCpu, .dry_run = false, .threads = 1});
};

TEST_F(TraceTest, HoldsOpsInsideTheRangesAroundThem) {
  ctx_.trace = std::make_shared<Trace>(path_, ctx_);
  {
    const TraceRange range(ctx_, "outer", [] { return std::string("say \"so\""); });
    product();
  }
  ctx_.trace->finish();
  product();  // leaves nothing any more
  const Json found = events();
  ASSERT_EQ(found.size(), 2U);
  const Json& op = found[0];
  const Json& outer = found[1];
  EXPECT_EQ(op.at("name"), "linear");
  const std::string of = op.at("args").at("of");
  EXPECT_EQ(of.find("f32 [3, 4], f32 [3, 8], f32 [4, 8] by "), 0U) << of;
  EXPECT_EQ(outer.at("name"), "outer");
  EXPECT_EQ(outer.at("args").at("of"), "say \"so\"");
  EXPECT_GE(op.at("ts"), outer.at("ts"));
  const auto end = [](const Json& one) { return one.at("ts").get<double>() + one.at("dur").get<double>(); };
  EXPECT_LE(end(op), end(outer) + 0.002) << "rounded to a thousandth each";
  EXPECT_EQ(op.at("tid"), outer.at("tid"));
}

TEST_F(TraceTest, EveryThreadHasATrackAndPausesLeaveNothing) {
  const auto trace = std::make_shared<Trace>(path_, ctx_);
  ctx_.trace = trace;
  product();
  trace->pause(true);
  product();
  trace->pause(false);
  std::thread([&] { product(); }).join();
  trace->finish();
  const Json found = events();
  ASSERT_EQ(found.size(), 2U);
  EXPECT_NE(found[0].at("tid"), found[1].at("tid"));
}

TEST_F(TraceTest, ManyEventsAreWrittenAsTheyCome) {
  constexpr int kMany = 20'000;
  Trace trace(path_, ctx_);
  ctx_.trace = std::shared_ptr<Trace>(&trace, [](Trace*) {});
  for (int i = 0; i < kMany; ++i) {
    const TraceRange range(ctx_, "short");
  }
  EXPECT_GT(std::filesystem::file_size(path_), 500'000U) << "before its end";
  trace.finish();
  EXPECT_EQ(events().size(), static_cast<std::size_t>(kMany));
}

TEST_F(TraceTest, WritesOverTracesAndNothingElse) {
  for (int i = 0; i < 2; ++i) {
    ctx_.trace = std::make_shared<Trace>(path_, ctx_);
    product();
    ctx_.trace.reset();  // finishes
    EXPECT_EQ(events().size(), 1U);
  }
  const std::filesystem::path notes = scratch_.path() / "config.toml";
  test::write_file(notes, "[model]\n");
  EXPECT_NE(test::message_of<FileError>([&] { Trace(notes, ctx_); }).find("no trace"), std::string::npos);
  EXPECT_EQ(test::read_file(notes), "[model]\n");
  EXPECT_THROW(Trace(scratch_.path() / "no" / "such.json", ctx_), FileError);
}

}  // namespace
}  // namespace caravan::ops
