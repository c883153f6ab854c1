// Times training steps of a Llama of given sizes: tokens per second and the share of the machine's product peak.
//
//   train_step HIDDEN LAYERS HEADS KV_HEADS INTERMEDIATE VOCAB SEQ_LEN ROWS STEPS f32|bf16 [tied]
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <string>

#include "caravan/train/peak.h"
#include "caravan/train/trainer.h"

namespace {

using namespace caravan;

std::int64_t number(char** argv, int index) {
  return std::strtoll(argv[index], nullptr, 10);
}

std::vector<MicroBatch> batch_of(std::int64_t rows, std::int64_t seq_len, std::int64_t vocab) {
  MicroBatch batch{pack(std::vector<std::int64_t>(static_cast<std::size_t>(rows), seq_len)), {}, {}};
  for (std::int64_t i = 0; i < rows * seq_len; ++i) {
    batch.ids.push_back(static_cast<std::int32_t>(i * 7919 % vocab));
    batch.targets.push_back(static_cast<std::int32_t>((i + 1) * 7919 % vocab));
  }
  return {batch};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 11) {
    fmt::print(stderr,
               "train_step: HIDDEN LAYERS HEADS KV_HEADS INTERMEDIATE VOCAB SEQ_LEN ROWS STEPS f32|bf16 [tied]\n");
    return 2;
  }
  model_io::HfConfig config;
  config.model.hidden_size = number(argv, 1);
  config.model.num_hidden_layers = number(argv, 2);
  config.model.num_attention_heads = number(argv, 3);
  config.model.num_key_value_heads = number(argv, 4);
  config.model.intermediate_size = number(argv, 5);
  config.model.vocab_size = number(argv, 6);
  config.model.head_dim = config.model.hidden_size / config.model.num_attention_heads;
  config.model.tie_word_embeddings = argc > 11;
  const std::int64_t seq_len = number(argv, 7);
  const std::int64_t rows = number(argv, 8);
  const std::int64_t steps = number(argv, 9);
  const DType dtype = std::string(argv[10]) == "bf16" ? DType::kBF16 : DType::kF32;

  usable_isa();
  ops::Context ctx = ops::make_context();
  const auto ranks = comm::make_self();
  train::TrainerOptions options;
  train::Trainer trainer(ctx, model_io::create_model(ctx, config, dtype, 1, /*training=*/true), options, *ranks);
  const std::vector<MicroBatch> batches = batch_of(rows, seq_len, config.model.vocab_size);
  train::PeakMeter meter(ctx, dtype);
  meter.measure(0.25);
  trainer.step(batches);
  const auto begin = std::chrono::steady_clock::now();
  double loss = 0.0;
  for (std::int64_t step = 0; step < steps; ++step) {
    loss = trainer.step(batches).loss;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double rate = static_cast<double>(rows * seq_len * steps) / seconds;
  const double peak = meter.measure(0.25);
  fmt::print("{:.0f} tokens/s, peak product {:.0f} GFLOP/s, share {:.1f} %, loss {:.3f}, memory {:.2f} GiB\n", rate,
             peak / 1e9, 100.0 * rate * train::flops_per_token(config.model, seq_len) / peak, loss,
             static_cast<double>(ctx.allocator->use().high_water) / (1 << 30));
  return 0;
}
