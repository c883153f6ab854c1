// A model's chat template: messages in, the text and the ids that the model was trained on out.
//
// Text and ids are those of transformers' apply_chat_template: special tokens written in the rendered text are read as
// such, and none is added around it.  BOS therefore stands where the template writes it, once or not at all, whatever the
// tokenizer adds to other texts.
//
// The language of templates is caravan/jinja; dates come from the caller alone.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/base/json.h"
#include "caravan/jinja/template.h"
#include "caravan/tokenizer/tokenizer.h"

namespace caravan::tokenizer {

// What a template is given besides the special tokens.  JSON values have the types that transformers wants; the members are
// null where a request does not have them.
struct ChatRequest {
  Json messages;                              // a list of objects
  Json tools;                                 // a list of objects, or null
  Json documents;                             // a list of objects, or null
  bool add_generation_prompt = false;         // end with the beginning of an answer
  std::string template_name = {};             // of several; empty: "tool_use" where there are tools, else "default"
  Json variables;                             // further variables of the template: an object, or null
  std::optional<std::tm> now = std::nullopt;  // for templates that write the date; without it they write their own
};

// A request from JSON: a list of messages, or an object with "messages" and any of "tools", "documents",
// "add_generation_prompt", "chat_template" (a name) and "chat_template_kwargs" (further variables).
// Throws FormatError, naming the place, for another form and for every other key; a variable must not have the name of
// something that the request already says.
ChatRequest parse_chat_request(const Json& json, const std::string& source);

// The messages of a conversation.  Throws FormatError unless they are a list of objects.
void check_messages(const Json& messages, const std::string& source);

class ChatTemplate {
 public:
  // `tokens`: special tokens by the names that templates know them by, as {"bos_token", "<s>"}.
  // Throws what jinja::Template::parse throws.
  static ChatTemplate parse(std::string_view text, const std::string& source,
                            std::map<std::string, std::string> tokens = {});

  // The template of a Hugging Face directory, or nothing when it has none (a base model has none).  As in transformers
  // chat_template.jinja and additional_chat_templates/NAME.jinja win over tokenizer_config.json's "chat_template" (a text, or a
  // list of named ones); chat_template.json comes last.  Special tokens are those of tokenizer_config.json, else of
  // special_tokens_map.json.  Of several templates `name` is taken, or without a name the one that ChatRequest says.
  // Throws FileError, FormatError and UnsupportedError for files, InputError for a name that is not there.
  static std::optional<ChatTemplate> load(const std::filesystem::path& directory, const std::string& name = {},
                                          bool with_tools = false);

  // Throws InputError with the template's own words when it refuses the messages, and what jinja::Template::render throws.
  std::string render(const ChatRequest& request) const;
  // The ids of what render gives.  Throws as render and Tokenizer::encode.
  std::vector<std::int32_t> encode(const Tokenizer& tokenizer, const ChatRequest& request) const;

  // The special token that ends what the assistant says, if the template writes one behind it.
  std::optional<std::int32_t> end_of_turn(const Tokenizer& tokenizer) const;

 private:
  ChatTemplate(jinja::Template text, std::map<std::string, std::string> tokens)
      : template_(std::move(text)), tokens_(std::move(tokens)) {}

  jinja::Template template_;
  std::map<std::string, std::string> tokens_;
};

}  // namespace caravan::tokenizer
