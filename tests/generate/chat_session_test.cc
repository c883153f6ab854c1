// A conversation over a cache that lives from turn to turn gives what each turn would give alone.
#include "caravan/generate/chat_session.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "tests/generate/tiny_model.h"
#include "tests/support/byte_tokenizer.h"
#include "tests/support/scratch.h"

namespace caravan::generate {
namespace {

using tokenizer::ChatTemplate;
using tokenizer::Tokenizer;
using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kTurnEnd = 129;
constexpr std::int64_t kVocabulary = 132;

// ASCII and four special tokens: an answer's text encodes to the ids it came from, unless a special token is in it.
Tokenizer words() {
  return Tokenizer::parse(test::byte_tokenizer(128, {"<|im_start|>", "<|im_end|>", "<s>", "</s>"}), "words.json");
}

const char* const kChatMl =
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
// Renders an answer otherwise than it was generated.
const char* const kShouting =
    "{% for m in messages %}{{ m.content if m.role == 'user' else '[' ~ m.content ~ ']' }}<|im_end|>{% endfor %}";
const char* const kNoSystem =
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "{{ m.content }}<|im_end|>{% endfor %}";
const char* const kDeaf =
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}";

model::LlamaConfig config_of(nn::RopeKind kind, std::int64_t positions) {
  model::LlamaConfig config = tiny_config(kind);
  config.vocab_size = kVocabulary;
  if (kind == nn::RopeKind::kDefault) {
    config.rope.max_position_embeddings = positions;
  } else if (kind == nn::RopeKind::kDynamic || kind == nn::RopeKind::kLongRope) {
    // Frequencies change within the conversation.
    config.rope.max_position_embeddings = kind == nn::RopeKind::kDynamic ? 60 : 400;
    config.rope.original_max_position_embeddings = 60;
  }
  return config;
}

class ChatSessions : public testing::Test {
 protected:
  explicit ChatSessions(nn::RopeKind kind = nn::RopeKind::kDefault)
      : model_(tiny_model(ctx_, config_of(kind, 4096), DType::kF64)) {}

  ChatSession session(const char* chat_template = kChatMl, std::int64_t max_new_tokens = 20, std::int64_t context = 0) {
    ChatOptions options;
    options.max_new_tokens = max_new_tokens;
    options.context = context;
    return {ctx_, *model_.llama, words(), ChatTemplate::parse(chat_template, "template"), options};
  }

  // The answer of a session that has computed nothing yet.
  ChatAnswer answer_alone(const char* chat_template, const Json& messages, const std::string& message) {
    ChatSession fresh = session(chat_template);
    fresh.load(messages, "messages");
    return fresh.answer(message);
  }

  ops::Context ctx_ = context_of(ops::Backend::kRef);
  TinyModel model_;
};

std::int64_t size_of(const Ids& ids) {
  return static_cast<std::int64_t>(ids.size());
}

std::int64_t common_of(const Ids& a, const Ids& b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

// What the decoder holds after an answer: the last id was never run.
Ids held_after(const ChatAnswer& answer) {
  Ids ids = answer.prompt;
  ids.insert(ids.end(), answer.ids.begin(), answer.ids.end() - 1);
  return ids;
}

TEST_F(ChatSessions, OnlyTheNewTokensOfATurnAreComputed) {
  ChatSession chat = session();
  ChatAnswer before = chat.answer("Hello there");
  EXPECT_EQ(before.ids_run, size_of(before.prompt) + size_of(before.ids) - 1) << "the first turn is computed whole";
  std::int64_t whole_turns = 0;
  for (const char* message : {"And again", "A longer message than the ones before it was.", "x", "One more"}) {
    const Json messages = chat.messages();
    const ChatAnswer answer = chat.answer(message);
    const Ids held = held_after(before);
    const std::int64_t kept = common_of(held, answer.prompt);
    EXPECT_EQ(answer.ids_run, size_of(answer.prompt) - kept + size_of(answer.ids) - 1) << message;
    // All of the turn before is kept, but for answers with special tokens, whose text has other ids.
    const bool plain = std::ranges::all_of(before.ids, [](std::int32_t id) { return id < 128; });
    if (plain) {
      EXPECT_EQ(kept, size_of(held)) << message;
      ++whole_turns;
    }
    EXPECT_GE(kept, size_of(before.prompt)) << message;
    EXPECT_EQ(answer.ids, answer_alone(kChatMl, messages, message).ids) << message;
    before = answer;
  }
  EXPECT_GE(whole_turns, 1) << "another seed for the model's weights is needed";
}

TEST_F(ChatSessions, TheCacheIsCutBackToWhatTheNewRenderingHasInCommon) {
  ChatSession chat = session(kShouting);
  const ChatAnswer first = chat.answer("Hello");
  const Json messages = chat.messages();
  const ChatAnswer second = chat.answer("Again");
  // The answer stands in brackets now: all from its first character on is computed again.
  EXPECT_EQ(second.ids_run, size_of(second.prompt) - size_of(first.prompt) + size_of(second.ids) - 1);
  EXPECT_EQ(second.ids, answer_alone(kShouting, messages, "Again").ids);
  // Another beginning: nothing is in common but the first token.
  chat.set_system("Be brief");
  const Json changed = chat.messages();
  const ChatAnswer third = chat.answer("And now?");
  EXPECT_GE(third.ids_run, size_of(third.prompt) + size_of(third.ids) - 2);
  EXPECT_EQ(third.ids, answer_alone(kShouting, changed, "And now?").ids);
}

TEST_F(ChatSessions, TheSameQuestionAgainComputesItsLastTokenOnly) {
  ChatSession chat = session();
  const ChatAnswer first = chat.answer("Hello");
  chat.reset();
  const ChatAnswer again = chat.answer("Hello");
  EXPECT_EQ(again.ids, first.ids);
  EXPECT_EQ(again.ids_run, size_of(first.ids)) << "one of the prompt, and the answer's but the last";
}

class EveryRopeChat : public ChatSessions, public testing::WithParamInterface<nn::RopeKind> {
 protected:
  EveryRopeChat() : ChatSessions(GetParam()) {}
};

INSTANTIATE_TEST_SUITE_P(Kinds, EveryRopeChat,
                         testing::Values(nn::RopeKind::kDefault, nn::RopeKind::kDynamic, nn::RopeKind::kLongRope),
                         [](const auto& info) { return nn::to_string(info.param); });

TEST_P(EveryRopeChat, EachTurnEqualsTheTurnAlone) {
  for (const char* chat_template : {kChatMl, kShouting}) {
    ChatSession chat = session(chat_template);
    for (const char* message : {"Hello", "a b c", "What?", "Once more, please"}) {
      const Json messages = chat.messages();
      EXPECT_EQ(chat.answer(message).ids, answer_alone(chat_template, messages, message).ids) << message;
    }
    // Back below the length where frequencies change.
    chat.reset();
    EXPECT_EQ(chat.answer("Hi").ids, answer_alone(chat_template, Json::array(), "Hi").ids);
  }
}

TEST_F(ChatSessions, TheCacheGrowsWithTheConversation) {
  ChatSession chat = session(kChatMl, /*max_new_tokens=*/5);
  const std::string text(400, 'x');
  for (int turn = 0; turn < 4; ++turn) {
    const Json messages = chat.messages();
    ChatSession fresh = session(kChatMl, 5);
    fresh.load(messages, "messages");
    EXPECT_EQ(chat.answer(text).ids, fresh.answer(text).ids) << "turn " << turn;
  }
  EXPECT_GT(chat.tokens(), 1600);
}

TEST_F(ChatSessions, AnAnswerEndsAtTheTokenThatTheTemplateWritesBehindAnswers) {
  // Of sampled answers some meet it.
  int ended = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    ChatOptions options;
    options.max_new_tokens = 300;
    options.sampling = {.do_sample = true, .temperature = 3.0, .top_k = 0, .top_p = 1.0, .seed = seed};
    ChatSession chat(ctx_, *model_.llama, words(), ChatTemplate::parse(kChatMl, "t"), options);
    const ChatAnswer answer = chat.answer("Hello");
    const auto end = std::ranges::find(answer.ids, kTurnEnd);
    EXPECT_TRUE(end == answer.ids.end() || end + 1 == answer.ids.end());
    EXPECT_EQ(answer.reason == FinishReason::kEos, end != answer.ids.end());
    EXPECT_EQ(answer.text.find("<|im_end|>"), std::string::npos);
    ended += answer.reason == FinishReason::kEos ? 1 : 0;
  }
  EXPECT_GT(ended, 0);
}

TEST_F(ChatSessions, AnAnswerEndsAtGivenTokensAndAtItsLength) {
  const ChatAnswer free = session().answer("Hello");
  EXPECT_EQ(free.reason, FinishReason::kLength);
  EXPECT_EQ(size_of(free.ids), 20);
  EXPECT_FALSE(free.context_full);
  ChatOptions options;
  options.max_new_tokens = 20;
  options.eos = {free.ids[3]};
  ChatSession chat(ctx_, *model_.llama, words(), ChatTemplate::parse(kChatMl, "t"), options);
  const ChatAnswer ended = chat.answer("Hello");
  EXPECT_EQ(ended.reason, FinishReason::kEos);
  EXPECT_EQ(ended.ids.back(), free.ids[3]);
  EXPECT_LE(size_of(ended.ids), 4);
}

TEST_F(ChatSessions, StoppingKeepsWhatWasSaidAndTheConversationGoesOn) {
  ChatSession chat = session();
  std::string shown;
  const ChatAnswer stopped = chat.answer("Hello", [&](std::string_view piece) {
    shown += piece;
    return shown.size() < 5;
  });
  EXPECT_EQ(stopped.reason, FinishReason::kStopped);
  EXPECT_EQ(stopped.text, shown);
  EXPECT_EQ(chat.messages().back().at("content"), shown);
  const Json messages = chat.messages();
  EXPECT_EQ(chat.answer("Go on").ids, answer_alone(kChatMl, messages, "Go on").ids);
}

TEST_F(ChatSessions, AnAnswerStoppedBeforeItsFirstWordIsTakenBack) {
  ChatSession chat = session();
  chat.answer("Hello");
  const Json before = chat.messages();
  const ChatAnswer stopped = chat.answer(std::string(1500, 'y'), [](std::string_view) { return false; });
  EXPECT_EQ(stopped.reason, FinishReason::kStopped);
  EXPECT_EQ(stopped.ids_run, 0);
  EXPECT_EQ(chat.messages(), before);
  // Between the parts of a long prompt.
  int calls = 0;
  EXPECT_EQ(chat.answer(std::string(1500, 'y'), [&](std::string_view) { return ++calls < 3; }).ids_run, 1024);
  EXPECT_EQ(chat.messages(), before);
  EXPECT_EQ(chat.answer("Again").ids, answer_alone(kChatMl, before, "Again").ids);
}

TEST_F(ChatSessions, AMessageThatDoesNotFitIsRefusedAndNothingChanges) {
  ChatSession chat = session(kChatMl, 0, /*context=*/100);
  chat.answer("Hi", [](std::string_view piece) { return piece.empty(); });
  const Json before = chat.messages();
  const std::string refusal = test::message_of<InputError>([&] { chat.answer(std::string(100, 'z')); });
  EXPECT_NE(refusal.find("the context 100"), std::string::npos) << refusal;
  EXPECT_NE(refusal.find("/reset"), std::string::npos) << refusal;
  EXPECT_EQ(chat.messages(), before);
  // An answer that fills the context ends there.
  const ChatAnswer answer = chat.answer("Go");
  if (answer.reason != FinishReason::kEos) {
    EXPECT_TRUE(answer.context_full);
    EXPECT_EQ(size_of(answer.prompt) + size_of(answer.ids), 100);
  }
  EXPECT_THROW(chat.answer(std::string(60, 'z')), InputError);
  chat.reset();
  EXPECT_EQ(chat.answer("Hi").prompt.size(), std::string("<\nuser\nHi<\n<assistant\n").size() - 1);
}

TEST_F(ChatSessions, AContextBeyondTheModelsIsRefused) {
  EXPECT_NE(test::message_of<InputError>([&] { session(kChatMl, 0, 4097); }).find("the model takes 4,096 tokens"),
            std::string::npos);
}

TEST_F(ChatSessions, RunningOutOfMemoryLeavesTheConversationAsItWas) {
  // Room for the first cache, not for the next one.
  ops::Context small = ops::make_context(
      {.backend = ops::Backend::kRef, .dry_run = false, .threads = 1, .memory_capacity = std::int64_t{4} << 20});
  const TinyModel model = tiny_model(small, config_of(nn::RopeKind::kDefault, 1 << 20), DType::kF64);
  ChatOptions options;
  options.max_new_tokens = 3;
  ChatSession chat(small, *model.llama, words(), ChatTemplate::parse(kChatMl, "t"), options);
  const ChatAnswer first = chat.answer("Hello");
  const Json before = chat.messages();
  EXPECT_THROW(chat.answer(std::string(60'000, 'x')), OutOfMemoryError);
  EXPECT_EQ(chat.messages(), before);
  chat.reset();
  EXPECT_EQ(chat.answer("Hello").ids, first.ids);
}

TEST_F(ChatSessions, SystemMessagesStandFirstAndSurviveAReset) {
  ChatSession chat = session();
  chat.answer("Hello");
  chat.set_system("Be kind");
  EXPECT_EQ(chat.messages().size(), 3U);
  EXPECT_EQ(chat.messages().front(), (Json{{"role", "system"}, {"content", "Be kind"}}));
  chat.set_system("Be brief");
  EXPECT_EQ(chat.messages().size(), 3U);
  chat.reset();
  EXPECT_EQ(chat.messages(), Json::array({{{"role", "system"}, {"content", "Be brief"}}}));
  chat.set_system("");
  EXPECT_EQ(chat.messages(), Json::array());
}

TEST_F(ChatSessions, ATemplateWithoutAPlaceForASystemMessageSaysSo) {
  ChatSession refusing = session(kNoSystem);
  EXPECT_NE(
      test::message_of<InputError>([&] { refusing.set_system("x"); }).find("the template says: no system messages"),
      std::string::npos);
  EXPECT_TRUE(refusing.messages().empty());
  ChatSession deaf = session(kDeaf);
  EXPECT_NE(test::message_of<InputError>([&] { deaf.set_system("x"); }).find("no place for a system message"),
            std::string::npos);
  EXPECT_TRUE(deaf.messages().empty());
}

TEST_F(ChatSessions, ASavedConversationGoesOnWhereItStood) {
  ChatSession chat = session();
  chat.set_system("s");
  chat.answer("Hello");
  const Json saved = chat.messages();
  const Ids next = chat.answer("More").ids;
  ChatSession other = session();
  other.load(saved, "saved.json");
  EXPECT_EQ(other.answer("More").ids, next);
  for (const char* bad : {"5", "[5]", R"([{"content": "x"}])", R"([{"role": 5, "content": "x"}])"}) {
    EXPECT_TRUE(
        test::message_of<FormatError>([&] { other.load(Json::parse(bad), "bad.json"); }).starts_with("bad.json: "))
        << bad;
  }
  EXPECT_THROW(other.load(Json::parse(R"([{"role": "user"}])"), "bad.json"), InputError) << "no content to render";
  EXPECT_EQ(other.messages().size(), 5U) << "nothing has changed";
}

}  // namespace
}  // namespace caravan::generate
