// Models whose matrices stay as they are stored, at every level of instructions: the same model as the dequantised one, the
// same memory as planned, and continuations that the dequantised model finds as likely.
#include <gtest/gtest.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/generate/decoder.h"
#include "caravan/generate/generate.h"
#include "caravan/model/presets.h"
#include "caravan/model_io/convert.h"
#include "caravan/model_io/dump.h"
#include "caravan/model_io/save.h"
#include "tests/generate/tiny_model.h"
#include "tests/support/isa.h"
#include "tests/support/scratch.h"

namespace caravan::generate {
namespace {

using model_io::Dialect;
using model_io::LoadedModel;
using model_io::MatrixForm;
using quant::BlockType;
using test::ScratchDirectory;

// What the rounding of activations to 8 bits makes of logits at most, over the largest of them.  A group's largest
// magnitude a, up to ten deviations behind the gate, gives the noise a / 127 / sqrt(12) on each number: 0.023 of a
// product.  Nine products follow each other, two layers of four and the head: 0.023 * sqrt(9).
constexpr double kActivationNoise = 0.07;
// Two orders of summation in double, each result rounded to f32, through two layers.
constexpr double kSameModel = 1e-5;

class Native : public ::testing::Test {
 protected:
  void SetUp() override {
    CARAVAN_SKIP_WITHOUT_ISA();
    model_io::HfConfig config;
    config.model = model::preset("tiny");
    config.model.vocab_size = 96;
    config.model.hidden_size = 256;
    config.model.intermediate_size = 512;
    config.model.num_hidden_layers = 2;
    config.model.num_attention_heads = 4;
    config.model.num_key_value_heads = 2;
    config.model.head_dim = 64;
    config.model.attention_bias = true;
    config.model.initializer_range = 0.08;
    config.model.tie_word_embeddings = true;
    ops::Context ctx = context_of(ops::Backend::kCpu);
    save_model(model_io::create_model(ctx, config, DType::kF32, 3), directory());
  }

  std::filesystem::path directory() const { return scratch_.path() / "model"; }

  std::filesystem::path file(BlockType type) {
    const auto path = scratch_.path() / (std::string(quant::to_string(type)) + ".gguf");
    if (!std::filesystem::exists(path)) {
      ops::Context ctx = context_of(ops::Backend::kCpu);
      model_io::ConvertOptions options;
      options.to = Dialect::kGguf;
      options.type = type;
      options.verify = false;
      convert_model(ctx, model_io::open_model(directory()), path, options);
    }
    return path;
  }

  static LoadedModel load(ops::Context& ctx, const std::filesystem::path& path, MatrixForm form) {
    model_io::LoadOptions options;
    options.matrices = form;
    return load_model(ctx, path, DType::kF32, options);
  }

  static bool in_blocks(const LoadedModel& model) {
    return std::ranges::any_of(model.weights->parameters(),
                               [](const autograd::Parameter& one) { return one.weight.is_in_blocks(); });
  }

  ScratchDirectory scratch_;
};

TEST_F(Native, IsTheModelThatDequantisingGives) {
  const std::vector<std::int32_t> ids = random_ids(31, 96);
  for (const BlockType type : {BlockType::kQ41, BlockType::kQ40, BlockType::kQ80, BlockType::kQ4K, BlockType::kQ51,
                               BlockType::kQ6K, BlockType::kF16, BlockType::kBF16, BlockType::kF32}) {
    SCOPED_TRACE(quant::facts(type).name);
    ops::Context ref = context_of(ops::Backend::kRef);
    ops::Context cpu = context_of(ops::Backend::kCpu);
    const std::vector<double> numbers = uncached_logits(ref, *load(ref, file(type), MatrixForm::kNumbers).llama, ids);
    EXPECT_LT(relative_error(uncached_logits(ref, *load(ref, file(type), MatrixForm::kAsStored).llama, ids), numbers),
              kSameModel);
    const LoadedModel native = load(cpu, file(type), MatrixForm::kAsStored);
    EXPECT_TRUE(in_blocks(native));
    // Tiles of bf16 make less noise than whole numbers.
    EXPECT_LT(relative_error(uncached_logits(cpu, *native.llama, ids), numbers), kActivationNoise);
    // One id after the other.
    Decoder decoder(cpu, *native.llama, {31});
    std::vector<Tensor> logits;
    for (const std::int32_t id : ids) {
      logits = decoder.extend({{id}});
    }
    EXPECT_LT(relative_error(to_doubles(logits.front()), numbers), kActivationNoise);
  }
}

TEST_F(Native, GreedyIdsAreLikelyOnesOfTheDequantisedModel) {
  ops::Context cpu = context_of(ops::Backend::kCpu);
  ops::Context ref = context_of(ops::Backend::kRef);
  const LoadedModel native = load(cpu, file(BlockType::kQ41), MatrixForm::kAsStored);
  const LoadedModel numbers = load(ref, file(BlockType::kQ41), MatrixForm::kNumbers);
  std::vector<std::int32_t> ids = random_ids(5, 96);
  const std::vector<Result> results = generate(cpu, *native.llama, {{.prompt = ids, .max_new_tokens = 12}});
  ASSERT_EQ(results.front().ids.size(), 12U);
  for (const std::int32_t id : results.front().ids) {
    const std::vector<double> logits = uncached_logits(ref, *numbers.llama, ids);
    const double largest = *std::ranges::max_element(logits);
    const double scale = std::max(largest, -*std::ranges::min_element(logits));
    EXPECT_GE(logits[static_cast<std::size_t>(id)], largest - 2 * kActivationNoise * scale);
    ids.push_back(id);
  }
}

TEST_F(Native, TakesOfMemoryWhatADryRunSaysAndNoneForMatrices) {
  const model_io::IdLists prompts = {random_ids(27, 96), {3}};
  const auto memory = [&](bool dry_run, MatrixForm form, bool loss) {
    ops::Context ctx = context_of(ops::Backend::kCpu, dry_run);
    const LoadedModel model = load(ctx, file(BlockType::kQ4K), form);
    return model_io::dump(ctx, model, prompts, {.logits = true, .loss = loss}, {}).memory;
  };
  for (const bool loss : {false, true}) {
    const MemoryUse planned = memory(true, MatrixForm::kAsStored, loss);
    const MemoryUse used = memory(false, MatrixForm::kAsStored, loss);
    EXPECT_EQ(planned.peak_bytes, used.peak_bytes);
    EXPECT_EQ(planned.high_water, used.high_water);
  }
  const auto weights = [](const MemoryUse& use) {
    return use.segments[static_cast<std::size_t>(Segment::kWeights)].peak_bytes;
  };
  // Norms and biases alone: five norms of 256 numbers; in each block a bias of q, k and v, 512, and of the output, 256.
  EXPECT_EQ(weights(memory(false, MatrixForm::kAsStored, false)), (5 * 256 + 2 * 512 + 2 * 256) * 4);
  EXPECT_GT(weights(memory(false, MatrixForm::kNumbers, false)), 1 << 20);
}

TEST_F(Native, ADirectoryToo) {
  const std::vector<std::int32_t> ids = random_ids(9, 96);
  ops::Context ref = context_of(ops::Backend::kRef);
  const std::vector<double> numbers = uncached_logits(ref, *load(ref, directory(), MatrixForm::kNumbers).llama, ids);
  const LoadedModel native = load(ref, directory(), MatrixForm::kAsStored);
  EXPECT_TRUE(in_blocks(native));
  EXPECT_LT(relative_error(uncached_logits(ref, *native.llama, ids), numbers), kSameModel);
  const auto fused = scratch_.path() / "fused";
  ops::Context cpu = context_of(ops::Backend::kCpu);
  model_io::HfConfig config = model_io::read_model_config(directory());
  config.model.attention_bias = false;
  save_model(model_io::create_model(cpu, config, DType::kF32, 4), scratch_.path() / "unbiased");
  model_io::ConvertOptions options;
  options.to = Dialect::kTransformerEngine;
  convert_model(cpu, model_io::open_model(scratch_.path() / "unbiased"), fused, options);
  EXPECT_LT(relative_error(uncached_logits(ref, *load(ref, fused, MatrixForm::kAsStored).llama, ids),
                           uncached_logits(ref, *load(ref, fused, MatrixForm::kNumbers).llama, ids)),
            kSameModel);
}

TEST_F(Native, AutoKeepsBlocksAndNothingElse) {
  ops::Context ctx = context_of(ops::Backend::kCpu);
  EXPECT_TRUE(in_blocks(load(ctx, file(BlockType::kQ80), MatrixForm::kAuto)));
  EXPECT_FALSE(in_blocks(load(ctx, file(BlockType::kF16), MatrixForm::kAuto)));
  EXPECT_FALSE(in_blocks(load(ctx, directory(), MatrixForm::kAuto)));
}

TEST_F(Native, CannotBeTrained) {
  ops::Context ctx = context_of(ops::Backend::kCpu);
  model_io::LoadOptions options;
  options.matrices = MatrixForm::kAsStored;
  options.training = true;
  const std::string message =
      test::message_of<InputError>([&] { load_model(ctx, file(BlockType::kQ80), DType::kF32, options); });
  EXPECT_NE(message.find("as they are stored"), std::string::npos) << message;
}

}  // namespace
}  // namespace caravan::generate
