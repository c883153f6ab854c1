#include "caravan/model_io/generation_config.h"

#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan::model_io {
namespace {

TEST(GenerationConfig, ReadsWhatModelsComeWith) {
  const GenerationConfig config = parse_generation_config(
      R"({"bos_token_id": 128000, "do_sample": true, "eos_token_id": [128001, 128009], "temperature": 0.6,
          "top_p": 0.9, "top_k": 40, "max_new_tokens": 256, "pad_token_id": null, "max_length": 4096,
          "transformers_version": "4.40.0.dev0"})",
      "file");
  GenerationConfig expected;
  expected.do_sample = true;
  expected.temperature = 0.6;
  expected.top_k = 40;
  expected.top_p = 0.9;
  expected.max_new_tokens = 256;
  expected.bos_token_id = 128000;
  expected.eos_token_ids = {128001, 128009};
  EXPECT_EQ(config, expected);
}

TEST(GenerationConfig, AbsentAndNullAreTheSame) {
  EXPECT_EQ(parse_generation_config("{}", "file"), GenerationConfig{});
  EXPECT_EQ(parse_generation_config(R"({"temperature": null, "eos_token_id": null, "num_beams": null})", "file"),
            GenerationConfig{});
  EXPECT_EQ(parse_generation_config(R"({"eos_token_id": 7})", "file").eos_token_ids, std::vector<std::int64_t>{7});
  const test::ScratchDirectory scratch;
  EXPECT_EQ(read_generation_config(scratch.path()), GenerationConfig{});
}

TEST(GenerationConfig, RefusesWrongTypesNamingTheField) {
  for (const char* text : {R"({"do_sample": 1})", R"({"temperature": "1"})", R"({"top_k": 1.5})", R"({"top_p": []})",
                           R"({"eos_token_id": "2"})", R"({"eos_token_id": [2, null]})", R"({"eos_token_id": 2.0})",
                           R"({"eos_token_id": [18446744073709551615]})", R"({"num_beams": true})"}) {
    const std::string message = test::message_of<FormatError>([&] { parse_generation_config(text, "file"); });
    EXPECT_TRUE(message.starts_with("file: field \"")) << text << ": " << message;
  }
  EXPECT_THROW(parse_generation_config("[]", "file"), FormatError);
  EXPECT_THROW(parse_generation_config("{", "file"), FormatError);
}

TEST(GenerationConfig, NamesWhatWouldChangeTheTokens) {
  const GenerationConfig config =
      parse_generation_config(R"({"repetition_penalty": 1.2, "num_beams": 1, "min_p": 0.05})", "file");
  EXPECT_EQ(config.warnings,
            (std::vector<std::string>{"file: repetition_penalty 1.2 is ignored", "file: min_p 0.05 is ignored"}));
}

}  // namespace
}  // namespace caravan::model_io
