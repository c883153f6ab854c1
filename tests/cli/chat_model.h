// A small random model that can be chatted with: bytes for tokens, a template, and whatever answers come of it.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "caravan/cli/commands.h"
#include "tests/support/byte_tokenizer.h"
#include "tests/support/scratch.h"

namespace caravan::test {

inline constexpr const char* kChatMl =
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

// The folder of a model of 260 tokens and so many positions below `folder`: 256 bytes, <|im_start|>, <|im_end|>, <s>, </s>.
inline std::string make_chat_model(const std::filesystem::path& folder, std::int64_t positions,
                                   const std::string& chat_template = kChatMl) {
  const nlohmann::ordered_json config = {{"model_type", "llama"},    {"vocab_size", 260},
                                         {"hidden_size", 32},        {"intermediate_size", 48},
                                         {"num_hidden_layers", 2},   {"num_attention_heads", 4},
                                         {"initializer_range", 0.2}, {"max_position_embeddings", positions},
                                         {"eos_token_id", 259}};
  write_file(folder / "chat_config.json", config.dump());
  const std::string model = (folder / "chat_model").string();
  std::ostringstream ignored;
  const std::vector<std::string> arguments = {"init", (folder / "chat_config.json").string(), model};
  EXPECT_EQ(cli::run(arguments, {ignored, ignored}), 0);
  write_file(model + "/tokenizer.json", byte_tokenizer(256, {"<|im_start|>", "<|im_end|>", "<s>", "</s>"}));
  write_file(model + "/tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": "</s>"})");
  if (!chat_template.empty()) {
    write_file(model + "/chat_template.jinja", chat_template);
  }
  return model;
}

}  // namespace caravan::test
