#include "caravan/generate/generate.h"

#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "tests/generate/tiny_model.h"
#include "tests/support/scratch.h"

namespace caravan::generate {
namespace {

class Generate : public testing::Test {
 protected:
  std::vector<Result> run(const std::vector<Request>& requests, const OnToken& on_token = {}) {
    return generate(ctx_, *model_.llama, requests, on_token);
  }
  std::string refusal(const Request& request) {
    return test::message_of<InputError>([&] { run({{.prompt = {1}, .max_new_tokens = 1}, request}); });
  }

  ops::Context ctx_ = context_of(ops::Backend::kRef);
  TinyModel model_ = tiny_model(ctx_, tiny_config(nn::RopeKind::kYarn), DType::kF32);
};

TEST_F(Generate, GreedyTakesTheLargestLogitOfEveryStep) {
  const std::vector<std::int32_t> prompt = random_ids(9, 61);
  const Result result = run({{.prompt = prompt, .max_new_tokens = 20}}).at(0);
  EXPECT_EQ(result.reason, FinishReason::kLength);
  ASSERT_EQ(result.ids.size(), 20U);
  std::vector<std::int32_t> sequence = prompt;
  for (const std::int32_t id : result.ids) {
    const std::vector<double> logits = uncached_logits(ctx_, *model_.llama, sequence);
    EXPECT_EQ(id, std::max_element(logits.begin(), logits.end()) - logits.begin());
    sequence.push_back(id);
  }
}

TEST_F(Generate, StopsAtAnEndTokenAndKeepsIt) {
  const Request request{.prompt = {5, 6, 7}, .max_new_tokens = 10};
  const std::vector<std::int32_t> free = run({request}).at(0).ids;
  Request ended = request;
  ended.eos = {60, free[3]};
  const Result result = run({ended}).at(0);
  const auto end = std::find(free.begin(), free.end(), free[3]) + 1;
  EXPECT_EQ(result.ids, std::vector<std::int32_t>(free.begin(), end));
  EXPECT_EQ(result.reason, FinishReason::kEos);
}

TEST_F(Generate, TheCallerSeesEveryTokenAndMayStop) {
  std::vector<std::pair<std::size_t, std::int32_t>> seen;
  const Request request{.prompt = {5, 6, 7}, .max_new_tokens = 6};
  const std::vector<Result> results = run({request, request}, [&](std::size_t index, std::int32_t id) {
    seen.emplace_back(index, id);
    return index == 1 || seen.size() < 3;
  });
  EXPECT_EQ(results[0].reason, FinishReason::kStopped);
  EXPECT_EQ(results[0].ids.size(), 3U);
  EXPECT_EQ(results[1].reason, FinishReason::kLength);
  EXPECT_EQ(results[1].ids.size(), 6U);
  ASSERT_EQ(seen.size(), 9U);
  EXPECT_EQ(seen[8], (std::pair<std::size_t, std::int32_t>{1, results[1].ids[5]}));
}

TEST_F(Generate, SamplingHangsOnTheSeedAndThePromptsPlaceAlone) {
  const auto request = [](std::uint64_t seed, std::int64_t tokens) {
    return Request{.prompt = {5, 6}, .max_new_tokens = tokens, .sampling = {.do_sample = true, .seed = seed}};
  };
  const std::vector<Result> together = run({request(1, 3), request(1, 12), request(2, 12)});
  EXPECT_EQ(run({request(9, 1), request(1, 12)})[1].ids, together[1].ids);
  EXPECT_EQ(run({request(1, 12)})[0].ids[0], together[0].ids[0]);
  EXPECT_NE(run({request(1, 12)})[0].ids, together[1].ids);
  EXPECT_NE(together[2].ids, together[1].ids);
}

TEST_F(Generate, NoNewTokensIsNoWork) {
  const Result result = run({{.prompt = {5}, .max_new_tokens = 0}}).at(0);
  EXPECT_TRUE(result.ids.empty());
  EXPECT_EQ(result.reason, FinishReason::kLength);
}

TEST_F(Generate, FillsTheModelsLengthAndNotOneMore) {
  EXPECT_EQ(run({{.prompt = random_ids(40, 61), .max_new_tokens = 8}}).at(0).ids.size(), 8U);
  EXPECT_EQ(refusal({.prompt = random_ids(40, 61), .max_new_tokens = 9}),
            "prompt 1 has 40 tokens and 9 new ones are asked for, 1 more than the 48 the model takes; ask for at most "
            "8 or shorten the prompt");
  EXPECT_EQ(refusal({.prompt = random_ids(51, 61), .max_new_tokens = 1}),
            "prompt 1 has 51 tokens, the model takes at most 48; shorten it by 3");
}

TEST_F(Generate, RefusesBadRequestsBeforeItRunsOne) {
  int seen = 0;
  const auto count = [&](std::size_t, std::int32_t) { return ++seen > 0; };
  for (const Request& bad :
       {Request{}, Request{.prompt = {1, -1}}, Request{.prompt = {61}}, Request{.prompt = {1}, .max_new_tokens = -1}}) {
    EXPECT_THROW(run({{.prompt = {1}, .max_new_tokens = 1}, bad}, count), InputError);
  }
  EXPECT_THROW(run({{.prompt = {1}, .max_new_tokens = 1, .sampling = {.do_sample = true, .temperature = 0.0}}}),
               ConfigError);
  EXPECT_EQ(seen, 0);
  EXPECT_EQ(refusal({.prompt = {3, 61}}), "prompt 1, place 1: token id 61 is outside the vocabulary of 61 (0 to 60)");
}

TEST_F(Generate, GivesBackEverythingItTook) {
  const std::int64_t before = ctx_.allocator->use().live_bytes;
  run({{.prompt = random_ids(9, 61), .max_new_tokens = 5}});
  EXPECT_EQ(ctx_.allocator->use().live_bytes, before);
}

}  // namespace
}  // namespace caravan::generate
