// A configuration whose step takes milliseconds, as `caravan bench` would be given it.
#pragma once

#include "caravan/train/config.h"

namespace caravan::bench::test {

inline train::Config tiny_step() {
  train::Config config;
  config.model.vocab_size = 130;
  config.model.hidden_size = 32;
  config.model.intermediate_size = 48;
  config.model.num_hidden_layers = 2;
  config.model.num_attention_heads = 4;
  config.model.num_key_value_heads = 2;
  config.training.local_batch_size = 3;
  config.training.global_batch_size = 6;  // two micro-batches
  config.training.seq_len = 20;
  config.training.threads = 2;
  return config;
}

}  // namespace caravan::bench::test
