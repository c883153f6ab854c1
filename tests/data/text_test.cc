// From text to rows with the real tokenizer.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/data/loader.h"
#include "caravan/tokenizer/bpe_trainer.h"
#include "tests/support/scratch.h"

namespace caravan::data {
namespace {

namespace fs = std::filesystem;
using test::message_of;
using test::ScratchDirectory;
using test::write_file;
using tokenizer::Tokenizer;

const std::string kText = "The quick brown fox jumps over the lazy dog. The dog sleeps, the fox jumps again.\n";

Tokenizer trained(std::int64_t vocab_size) {
  tokenizer::TrainOptions options;
  options.vocab_size = vocab_size;
  tokenizer::BpeTrainer trainer(options);
  trainer.add(kText);
  const tokenizer::TrainedTokenizer result = trainer.train();
  return Tokenizer::parse(result.tokenizer_json, "tokenizer.json", result.tokenizer_config_json);
}

std::vector<std::int32_t> list_of(std::span<const std::int32_t> ids) {
  return {ids.begin(), ids.end()};
}

TEST(Text, BecomesRowsThatDecodeToItself) {
  const ScratchDirectory scratch;
  const Tokenizer tokenizer = trained(300);
  fs::create_directory(scratch.path() / "set");
  write_file(scratch.path() / "set/a.txt", kText);
  write_file(scratch.path() / "set/b.txt", "gr\xc3\xbc\xc3\x9f " + kText);
  const PrepareOptions options = {
      .cache = scratch.path() / "cache", .tokenizer = &tokenizer, .vocab_size = tokenizer.vocab_size(), .threads = 2};
  const Documents documents = prepare(scratch.path() / "set", options);
  ASSERT_EQ(documents.size(), 2);
  EXPECT_EQ(list_of(documents[0]), tokenizer.encode_document(kText));
  EXPECT_EQ(documents[0].front(), tokenizer.bos());
  EXPECT_EQ(documents[0].back(), tokenizer.eos());
  EXPECT_EQ(documents.tokenizer(), tokenizer.fingerprint());

  const Rows rows({documents}, {.seq_len = 16, .epochs = 1});
  Loader loader(rows, {.micro_batch_rows = 3});
  std::vector<std::int32_t> ids;
  for (StepBatch step = loader.next(); valid_targets(step.micro_batches) > 0; step = loader.next()) {
    for (const std::int32_t id : step.micro_batches[0].ids) {
      if (id >= 0) {
        ids.push_back(id);
      }
    }
  }
  EXPECT_EQ(tokenizer.decode(ids, /*skip_special=*/true), kText + "gr\xc3\xbc\xc3\x9f " + kText);
}

TEST(Text, BecomesShardsThatKnowTheirTokenizer) {
  const ScratchDirectory scratch;
  const Tokenizer tokenizer = trained(300);
  const Tokenizer other = trained(262);
  write_file(scratch.path() / "a.jsonl", "{\"text\": \"The fox\"}\n{\"text\": \"jumps\"}\n");
  const fs::path shards = scratch.path() / "shards";
  EXPECT_EQ(write_shards(scratch.path() / "a.jsonl", shards, {.tokenizer = &tokenizer}).documents, 2);
  const Documents documents = prepare(shards, {.tokenizer = &tokenizer});
  EXPECT_EQ(list_of(documents[1]), tokenizer.encode_document("jumps"));
  EXPECT_EQ(prepare(shards, {}).tokens(), documents.tokens());
  EXPECT_NE(message_of<InputError>([&] { prepare(shards, {.tokenizer = &other}); }).find("another tokenizer"),
            std::string::npos);
  EXPECT_NE(message_of<InputError>([&] {
              prepare(scratch.path() / "a.jsonl", {.cache = scratch.path() / "cache"});
            }).find("needs a tokenizer"),
            std::string::npos);
}

}  // namespace
}  // namespace caravan::data
