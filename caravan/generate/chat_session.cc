#include "caravan/generate/chat_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/generate/device_sampling.h"

namespace caravan::generate {

namespace {

constexpr std::int64_t kFirstRoom = 512;   // ids that the cache has room for at first; it doubles
constexpr std::int64_t kPromptPart = 512;  // ids of a prompt that run at once: between parts an answer can be stopped

Json message_of(const char* role, const std::string& text) {
  return Json{{"role", role}, {"content", text}};
}

bool has_system(const Json& messages) {
  return !messages.empty() && messages.front().value("role", Json()) == "system";
}

std::size_t common_prefix(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  return static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

ChatSession::ChatSession(ops::Context& ctx, const model::Llama& model, tokenizer::Tokenizer tokenizer,
                         tokenizer::ChatTemplate chat_template, ChatOptions options)
    : ctx_(&ctx),
      model_(&model),
      tokenizer_(std::move(tokenizer)),
      template_(std::move(chat_template)),
      options_(std::move(options)) {
  validate(options_.sampling);
  const std::int64_t longest = std::min<std::int64_t>(nn::max_sequence_length(model.config().rope), INT32_MAX);
  if (options_.context > longest) {
    throw InputError(fmt::format("the model takes {} tokens, a context of {} is too long", grouped(longest),
                                 grouped(options_.context)));
  }
  context_ = options_.context > 0 ? options_.context : longest;
  if (const std::optional<std::int32_t> end = template_.end_of_turn(tokenizer_)) {
    options_.eos.push_back(*end);
  }
}

tokenizer::ChatRequest ChatSession::request(const Json& messages, bool prompt) const {
  tokenizer::ChatRequest result;
  result.messages = messages;
  result.add_generation_prompt = prompt;
  result.now = options_.now;
  return result;
}

bool ChatSession::ends(std::int32_t id) const {
  return std::ranges::find(options_.eos, id) != options_.eos.end();
}

ChatAnswer ChatSession::answer(const std::string& message, const std::function<bool(std::string_view piece)>& on_text) {
  Json messages = messages_;
  messages.push_back(message_of("user", message));
  ChatAnswer answer;
  answer.prompt = template_.encode(tokenizer_, request(messages, /*prompt=*/true));
  const auto length = static_cast<std::int64_t>(answer.prompt.size());
  if (length >= context_) {
    throw InputError(fmt::format(
        "the conversation has {} tokens and the context {}, which leaves no room for an answer; shorten the "
        "message or begin anew with /reset",
        grouped(length), grouped(context_)));
  }
  if (length == 0) {
    throw InputError("the model's chat template makes nothing of the conversation");
  }
  for (const std::int32_t id : answer.prompt) {
    if (id >= model_->config().vocab_size) {
      throw InputError(fmt::format("the tokenizer gives the id {}, the model has {}; they do not belong together",
                                   grouped(id), grouped(model_->config().vocab_size)));
    }
  }
  const std::int64_t run_before = decoder_ ? decoder_->ids_run() : 0;
  try {
    const auto go_on = [&] { return !on_text || on_text({}); };
    std::vector<Tensor> logits = run_prompt(answer.prompt, go_on);
    if (logits.empty()) {
      answer.reason = FinishReason::kStopped;
    } else {
      generate(answer, std::move(logits), on_text);
    }
  } catch (const Error&) {
    decoder_.reset();
    throw;
  }
  answer.ids_run = decoder_->ids_run() - run_before;
  tokens_ = length + static_cast<std::int64_t>(answer.ids.size());
  if (answer.reason != FinishReason::kStopped || !answer.text.empty()) {
    messages.push_back(message_of("assistant", answer.text));
    messages_ = std::move(messages);
  }
  return answer;
}

void ChatSession::make_room(std::int64_t ids) {
  if (ids <= room_ && decoder_) {
    return;
  }
  const std::int64_t room = std::min(context_, std::max({kFirstRoom, 2 * room_, ids}));
  if (decoder_) {
    decoder_->reserve({room});
  } else {
    decoder_.emplace(*ctx_, *model_, std::vector<std::int64_t>{room});
  }
  room_ = room;
}

// The logits behind the prompt, what the cache knows of it not computed again; none when go_on() said no.
std::vector<Tensor> ChatSession::run_prompt(const std::vector<std::int32_t>& ids, const std::function<bool()>& go_on) {
  const auto length = static_cast<std::int64_t>(ids.size());
  make_room(length);
  // The last id is always run: its logits are wanted.
  auto done = static_cast<std::int64_t>(common_prefix(decoder_->sequence(0), ids));
  done = std::min(done, length - 1);
  decoder_->keep(0, done);
  // Where frequencies depend on the length, every part would run all of the sequence again.
  const model::LlamaConfig& config = model_->config();
  const bool in_parts = nn::same_frequencies(config.rope, config.head_dim, 1, length);
  std::vector<Tensor> logits;
  while (done < length) {
    if (!go_on()) {
      return {};
    }
    const std::int64_t end = in_parts ? std::min(length, done + kPromptPart) : length;
    logits = decoder_->extend({{ids.begin() + done, ids.begin() + end}});
    done = end;
  }
  return logits;
}

void ChatSession::generate(ChatAnswer& answer, std::vector<Tensor> logits,
                           const std::function<bool(std::string_view)>& on_text) {
  const std::uint64_t turn = messages_.size();
  const auto length = static_cast<std::int64_t>(answer.prompt.size());
  tokenizer::StreamDecoder words(tokenizer_);
  bool go_on = true;
  const auto say = [&](const std::string& piece) {
    answer.text += piece;
    go_on = !on_text || on_text(piece);
  };
  answer.reason = FinishReason::kLength;
  while (true) {
    const auto position = static_cast<std::int64_t>(answer.ids.size());
    const std::int32_t id = sample_row(*ctx_, logits.front(), options_.sampling, turn, position);
    answer.ids.push_back(id);
    if (ends(id)) {
      answer.reason = FinishReason::kEos;
      break;
    }
    // A model's vocabulary may be larger than its tokenizer's: those ids have no text.
    say(id < tokenizer_.vocab_size() ? words.push(id) : "");
    if (!go_on) {
      answer.reason = FinishReason::kStopped;
      break;
    }
    if (position + 1 == options_.max_new_tokens) {
      break;
    }
    if (length + position + 1 >= context_) {
      answer.context_full = true;
      break;
    }
    make_room(length + position + 1);
    logits = decoder_->extend({{id}});
  }
  if (const std::string rest = words.finish(); !rest.empty()) {
    say(rest);
  }
}

void ChatSession::require_rendering(Json messages) const {
  if (messages.empty() || messages.back().value("role", Json()) != "user") {
    messages.push_back(message_of("user", "Hello"));
  }
  template_.render(request(messages, /*prompt=*/true));
}

void ChatSession::set_system(const std::string& text) {
  Json messages = Json::array();
  if (!text.empty()) {
    messages.push_back(message_of("system", text));
  }
  for (std::size_t i = has_system(messages_) ? 1 : 0; i < messages_.size(); ++i) {
    messages.push_back(messages_[i]);
  }
  require_rendering(messages);
  if (!text.empty()) {
    // A template without a place for it may pass it over in silence.
    const Json with = Json::array({messages.front(), message_of("user", "Hello")});
    const Json without = Json::array({message_of("user", "Hello")});
    if (template_.render(request(with, false)) == template_.render(request(without, false))) {
      throw InputError("the model's chat template has no place for a system message; put it into your first message");
    }
  }
  messages_ = std::move(messages);
}

void ChatSession::reset() {
  messages_ = has_system(messages_) ? Json::array({messages_.front()}) : Json::array();
  tokens_ = 0;
}

void ChatSession::load(const Json& messages, const std::string& source) {
  tokenizer::check_messages(messages, source);
  for (const Json& message : messages) {
    if (!message.value("role", Json()).is_string()) {
      throw FormatError(fmt::format("{}: a message has no role", source));
    }
  }
  require_rendering(messages);
  messages_ = messages;
  tokens_ = 0;
}

}  // namespace caravan::generate
