#include "caravan/model_io/dump.h"

#include <gtest/gtest.h>

#include <cmath>

#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/model/presets.h"
#include "caravan/model_io/compare.h"
#include "tests/support/device.h"
#include "tests/support/scratch.h"

namespace caravan::model_io {
namespace {

using test::message_of;
using test::ScratchDirectory;
using test::write_file;

HfConfig tiny() {
  HfConfig config;
  config.model = model::preset("tiny");
  config.model.initializer_range = 0.2;
  return config;
}

std::string refused(const std::string& text) {
  const ScratchDirectory scratch;
  write_file(scratch.path() / "ids.json", text);
  return message_of<Error>([&] { read_id_lists(scratch.path() / "ids.json"); });
}

TEST(ReadIdLists, ReadsListsOfIds) {
  const ScratchDirectory scratch;
  write_file(scratch.path() / "ids.json", " [[1, 2, 3], [4], [130, 0]]\n");
  EXPECT_EQ(read_id_lists(scratch.path() / "ids.json"), (IdLists{{1, 2, 3}, {4}, {130, 0}}));
}

TEST(ReadIdLists, SaysWhatIsWrongWithAnythingElse) {
  EXPECT_NE(refused("{}").find("list of lists"), std::string::npos);
  EXPECT_NE(refused("[]").find("no sequence"), std::string::npos);
  EXPECT_NE(refused("[[1], []]").find("sequence 1 is empty"), std::string::npos);
  EXPECT_NE(refused("[[1], 5]").find("element 1"), std::string::npos);
  EXPECT_NE(refused("[[1, 2.5]]").find("sequence 0, place 1"), std::string::npos);
  EXPECT_NE(refused("[[1, \"2\"]]").find("sequence 0, place 1"), std::string::npos);
  EXPECT_NE(refused("[[9223372036854775807]]").find("below 2^31"), std::string::npos);
  EXPECT_NE(refused("[[18446744073709551615]]").find("below 2^31"), std::string::npos);
  EXPECT_NE(refused("[[1, 2]").find("ids.json"), std::string::npos);
  EXPECT_THROW(read_id_lists("/nonexistent/ids.json"), FileError);
}

TEST(CheckIds, NamesSequencePlaceAndBound) {
  const model::LlamaConfig config = model::preset("tiny");
  const auto refusal = [&](const IdLists& ids) { return message_of<InputError>([&] { check_ids(ids, config); }); };
  EXPECT_EQ(refusal({{0, 130}}), "");
  EXPECT_NE(refusal({{0}, {1, 131}}).find("sequence 1, place 1: token id 131"), std::string::npos);
  EXPECT_NE(refusal({{-1}}).find("token id -1"), std::string::npos);
  const std::string too_long = refusal({std::vector<std::int32_t>(260, 1)});
  EXPECT_NE(too_long.find("260"), std::string::npos) << too_long;
  EXPECT_NE(too_long.find("256"), std::string::npos) << too_long;
  EXPECT_NE(too_long.find("by 4"), std::string::npos) << too_long;
}

TEST(Dump, LossIsTheMeanOverAllTargetsOfItsOwnLogits) {
  const ScratchDirectory scratch;
  ops::Context ctx = ops::make_context({.backend = ops::Backend::kRef, .dry_run = false, .threads = 1});
  const LoadedModel model = create_model(ctx, tiny(), DType::kF64, 3);
  const IdLists ids = {{5, 9, 100, 3, 77}, {42}, {1, 2}};
  const auto path = scratch.path() / "out.safetensors";
  const DumpResult result = dump(ctx, model, ids, {.logits = true, .hidden = true, .loss = true}, path);
  EXPECT_EQ(result.targets, 5);

  const checkpoint::SafetensorsFile file = checkpoint::SafetensorsFile::open(path);
  double sum = 0.0;
  for (std::size_t s = 0; s < ids.size(); ++s) {
    const checkpoint::TensorEntry* entry = file.find("logits." + std::to_string(s));
    ASSERT_NE(entry, nullptr);
    ASSERT_EQ(entry->shape, (std::vector<std::int64_t>{static_cast<std::int64_t>(ids[s].size()), 131}));
    ASSERT_EQ(entry->dtype, DType::kF64);
    const auto* logits = reinterpret_cast<const double*>(file.bytes(*entry).data());
    for (std::size_t t = 0; t + 1 < ids[s].size(); ++t) {
      double denominator = 0.0;
      for (std::size_t v = 0; v < 131; ++v) {
        denominator += std::exp(logits[t * 131 + v]);
      }
      sum += std::log(denominator) - logits[t * 131 + static_cast<std::size_t>(ids[s][t + 1])];
    }
  }
  EXPECT_NEAR(result.loss, sum / 5.0, 1e-12);
  EXPECT_EQ(file.header().entries.size(), 3U * 3U + 3U);
  EXPECT_NE(file.find("hidden.2.2"), nullptr);
  EXPECT_EQ(file.find("hidden.2.3"), nullptr);
}

TEST(Dump, WritesF32FromSmallFloatsAndAgreesAcrossBackends) {
  const ScratchDirectory scratch;
  const IdLists ids = {{5, 9, 100, 3, 77}, {42, 17, 8}};
  const auto run = [&](ops::Backend backend, DType dtype, const char* name) {
    ops::Context ctx = ops::make_context(
        {.backend = backend, .dry_run = false, .threads = 2, .memory_capacity = test::memory_capacity()});
    const LoadedModel model = create_model(ctx, tiny(), dtype, 3);
    dump(ctx, model, ids, {.logits = true, .hidden = true, .loss = true}, scratch.path() / name);
    return scratch.path() / name;
  };
  const auto exact = run(ops::Backend::kRef, DType::kF64, "f64");
  const auto f32 = run(test::fast_backend(), DType::kF32, "f32");
  const auto bf16 = run(test::fast_backend(), DType::kBF16, "bf16");
  EXPECT_EQ(compare(f32, exact, 1e-5).first_difference, -1);
  EXPECT_EQ(compare(bf16, exact, 2e-2).first_difference, -1);
  EXPECT_GE(compare(bf16, exact, 1e-5).first_difference, 0);
  EXPECT_EQ(checkpoint::SafetensorsFile::open(bf16).find("logits.0")->dtype, DType::kF32);
}

TEST(Dump, HasNoLossWithoutATarget) {
  ops::Context ctx = ops::make_context({.backend = ops::Backend::kRef, .dry_run = false, .threads = 1});
  const LoadedModel model = create_model(ctx, tiny(), DType::kF32, 3);
  const DumpResult result = dump(ctx, model, {{4}}, {.logits = false, .hidden = false, .loss = true}, {});
  EXPECT_EQ(result.targets, 0);
  EXPECT_TRUE(std::isnan(result.loss));
}

TEST(Dump, LeavesAnEarlierFileWhenTheIdsAreBad) {
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "out.safetensors";
  write_file(path, "precious");
  ops::Context ctx = ops::make_context({.backend = ops::Backend::kRef, .dry_run = false, .threads = 1});
  const LoadedModel model = create_model(ctx, tiny(), DType::kF32, 3);
  EXPECT_THROW(dump(ctx, model, {{1000}}, {.logits = true, .hidden = false, .loss = false}, path), InputError);
  EXPECT_EQ(test::read_file(path), "precious");
}

}  // namespace
}  // namespace caravan::model_io
