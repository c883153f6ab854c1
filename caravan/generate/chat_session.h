// A conversation with a model: messages in, answers out, and a cache that lives from turn to turn.
//
// Each answer starts from the whole conversation as the model's chat template renders it.  The cache keeps what the new
// ids have in common with those of the turn before, so that usually only the new message is computed.  Where a template
// renders earlier turns in another way than they were generated (it trims answers, leaves reasoning out, writes the date),
// the cache is cut back to the common beginning.
//
// Nothing is printed here, and nothing waits: whoever holds the session does both.
#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/base/json.h"
#include "caravan/generate/decoder.h"
#include "caravan/generate/generate.h"
#include "caravan/generate/sampler.h"
#include "caravan/model/llama.h"
#include "caravan/tokenizer/chat_template.h"
#include "caravan/tokenizer/tokenizer.h"

namespace caravan::generate {

struct ChatOptions {
  SamplingOptions sampling = {};
  std::int64_t max_new_tokens = 0;  // of an answer; 0: until it ends or the context is full
  std::int64_t context = 0;         // tokens of the conversation at most; 0: what the model takes
  std::vector<std::int32_t> eos =
      {};  // ids that end an answer, besides the one that the template writes behind answers
  std::optional<std::tm> now = std::nullopt;  // for templates that write the date
};

struct ChatAnswer {
  std::string text;                          // of the answer, special tokens left out
  std::vector<std::int32_t> prompt;          // what it answered: ids of the rendered conversation
  std::vector<std::int32_t> ids;             // of the answer, the one that ended it included
  FinishReason reason = FinishReason::kEos;  // kLength: max_new_tokens or the context's end; kStopped: on_text said so
  bool context_full = false;                 // kLength because of the context
  std::int64_t ids_run = 0;                  // that went through the model for it
};

class ChatSession {
 public:
  // The model must outlive the session.  Throws ConfigError for its sampling, InputError for a context beyond the model's.
  ChatSession(ops::Context& ctx, const model::Llama& model, tokenizer::Tokenizer tokenizer,
              tokenizer::ChatTemplate chat_template, ChatOptions options);

  // Adds the user's message and answers it.  `on_text` gets the answer's text as it comes, whole characters only; it is
  // also called, with an empty text, between parts of a long prompt.  When it returns false the answer ends (kStopped).
  // What was said until then stays; an answer without a word is taken back with its question.
  // Throws InputError when the conversation does not fit the context (by how much, and what to do) or the template
  // refuses it, OutOfMemoryError when the cache cannot grow: the conversation is then as it was before.
  ChatAnswer answer(const std::string& message, const std::function<bool(std::string_view piece)>& on_text = {});

  // A list of {"role": ..., "content": ...}, the system message first if there is one.
  const Json& messages() const { return messages_; }
  // Puts a system message in place of the one there is; without text there is none.  Throws InputError when the template
  // has no place for it; nothing has changed then.
  void set_system(const std::string& text);
  // Forgets everything but the system message.
  void reset();
  // Puts a saved conversation in place of this one.  Throws FormatError when it is none, InputError when the template
  // refuses it; nothing has changed then.
  void load(const Json& messages, const std::string& source);

  std::int64_t context() const { return context_; }
  // Tokens of the conversation at the last answer, that one included.
  std::int64_t tokens() const { return tokens_; }

 private:
  tokenizer::ChatRequest request(const Json& messages, bool prompt) const;
  void require_rendering(Json messages) const;
  std::vector<Tensor> run_prompt(const std::vector<std::int32_t>& ids, const std::function<bool()>& go_on);
  void make_room(std::int64_t ids);
  void generate(ChatAnswer& answer, std::vector<Tensor> logits, const std::function<bool(std::string_view)>& on_text);
  bool ends(std::int32_t id) const;

  ops::Context* ctx_;
  const model::Llama* model_;
  tokenizer::Tokenizer tokenizer_;
  tokenizer::ChatTemplate template_;
  ChatOptions options_;
  std::int64_t context_ = 0;
  std::int64_t tokens_ = 0;
  std::int64_t room_ = 0;  // ids that the decoder's cache holds
  Json messages_ = Json::array();
  std::optional<Decoder> decoder_;  // none before the first answer and after it ran out of memory
};

}  // namespace caravan::generate
