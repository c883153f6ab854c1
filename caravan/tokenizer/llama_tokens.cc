#include "caravan/tokenizer/llama_tokens.h"

#include <fmt/core.h>

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kLlama3Count = 256;
constexpr std::size_t kLlama4Count = 2048;

// Appends <|{family}reserved_special_token_{i}|> for i from `first` on.
void reserve(std::vector<std::string>& names, const char* family, int first, int count) {
  for (int i = first; i < first + count; ++i) {
    names.push_back(fmt::format("<|{}reserved_special_token_{}|>", family, i));
  }
}

void name(std::vector<std::string>& names, std::initializer_list<const char*> words) {
  for (const char* word : words) {
    names.push_back(fmt::format("<|{}|>", word));
  }
}

}  // namespace

std::vector<std::string> llama3_special_tokens() {
  std::vector<std::string> names;
  name(names, {"begin_of_text", "end_of_text"});
  reserve(names, "", 0, 2);
  name(names, {"finetune_right_pad_id", "step_id", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag",
               "image"});
  reserve(names, "", 2, static_cast<int>(kLlama3Count - names.size()));
  return names;
}

std::vector<std::string> llama4_special_tokens() {
  std::vector<std::string> names;
  name(names, {"begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix"});
  name(names, {"header_start", "header_end", "eom", "eot", "step"});
  reserve(names, "text_post_train_", 0, 6);
  name(names, {"python_start", "python_end", "finetune_right_pad"});
  reserve(names, "text_post_train_", 8, 61);
  name(names, {"image_start", "image_end"});
  reserve(names, "vision_", 0, 2);
  name(names, {"tile_x_separator", "tile_y_separator"});
  reserve(names, "vision_", 2, 4);
  name(names, {"image"});
  reserve(names, "vision_", 6, 1);
  name(names, {"patch"});
  reserve(names, "vision_", 7, 1041);
  reserve(names, "reasoning_", 0, 8);
  name(names, {"reasoning_thinking_start", "reasoning_thinking_end"});
  reserve(names, "", 0, static_cast<int>(kLlama4Count - names.size()));
  return names;
}

}  // namespace caravan::tokenizer
