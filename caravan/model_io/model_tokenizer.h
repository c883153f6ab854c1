// The tokenizer and the chat template of a model, wherever it keeps them: beside its weights, or in its GGUF file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "caravan/tokenizer/chat_template.h"
#include "caravan/tokenizer/tokenizer.h"

namespace caravan::model_io {

// The tokenizer of a directory (as Tokenizer::load reads it) or of a GGUF file: the tokenizer.json that the file kept,
// else what Tokenizer::assemble makes of its vectors.  Nothing when the directory or the file has none.
// Throws what these throw, and what reading a GGUF file's header throws.
std::optional<tokenizer::Tokenizer> find_tokenizer(const std::filesystem::path& model);

// The same, and a tokenizer's own file, as tokenizer.json, is read too.  Throws FileError when there is none.
tokenizer::Tokenizer load_tokenizer(const std::filesystem::path& path);

// The chat template of a directory, of the directory that a tokenizer's file lies in (both as ChatTemplate::load finds
// it), or of a GGUF file ("tokenizer.chat_template", with the special tokens that the file names).  Nothing when there
// is none.  `name` and `with_tools` as ChatTemplate::load takes them; a GGUF file's only one is "default".
std::optional<tokenizer::ChatTemplate> load_chat_template(const std::filesystem::path& path,
                                                          const std::string& name = {}, bool with_tools = false);

}  // namespace caravan::model_io
