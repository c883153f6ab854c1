#include "caravan/tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "tests/support/byte_tokenizer.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::tokenizer {
namespace {

using test::ScratchDirectory;
using test::write_file;
using Ids = std::vector<std::int32_t>;

const std::string kFolder = test::source_folder().string() + "/tests/golden/chat/";
const std::map<std::string, std::string> kTokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};

const char* const kChatMl =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

Json golden(const std::string& name) {
  return parse_json(test::read_file(kFolder + name), name);
}

ChatRequest messages(const Json& list, bool prompt = false) {
  ChatRequest request;
  request.messages = list;
  request.add_generation_prompt = prompt;
  return request;
}

const Json kHello = Json::array({{{"role", "user"}, {"content", "Hello"}}});

// 26 July 2024, 15:04:05.
std::tm golden_time() {
  std::tm time{};
  time.tm_year = 124;
  time.tm_mon = 6;
  time.tm_mday = 26;
  time.tm_hour = 15;
  time.tm_min = 4;
  time.tm_sec = 5;
  time.tm_wday = 5;
  time.tm_yday = 207;
  return time;
}

class GoldenChat : public testing::TestWithParam<std::string> {};

TEST_P(GoldenChat, RendersEveryConversationAsTransformers) {
  const ChatTemplate chat =
      ChatTemplate::parse(test::read_file(kFolder + "templates/" + GetParam() + ".jinja"), GetParam(), kTokens);
  const Json all = golden("expected.json");
  const Json& expected = all.at(GetParam());
  int texts = 0;
  for (const Json& conversation : golden("conversations.json")) {
    const std::string name = conversation.at("name").get<std::string>();
    ChatRequest request = messages(conversation.at("messages"), conversation.value("add_generation_prompt", false));
    request.tools = conversation.value("tools", Json());
    request.variables = conversation;
    for (const char* own : {"name", "messages", "tools", "add_generation_prompt"}) {
      request.variables.erase(own);
    }
    request.now = golden_time();
    const Json& wanted = expected.at(name);
    if (wanted.contains("text")) {
      std::string text;
      EXPECT_NO_THROW(text = chat.render(request)) << name;
      EXPECT_EQ(text, wanted.at("text").get<std::string>()) << name;
      ++texts;
      continue;
    }
    const std::string message = test::message_of<Error>([&] { chat.render(request); });
    EXPECT_TRUE(message.starts_with(GetParam() + ", line ")) << name << ": " << message;
    if (wanted.contains("refused")) {
      EXPECT_NE(message.find("the template says: " + wanted.at("refused").get<std::string>()), std::string::npos)
          << name << ": " << message;
    }
  }
  EXPECT_GT(texts, 10);
}

INSTANTIATE_TEST_SUITE_P(Templates, GoldenChat, testing::ValuesIn([] {
                           std::vector<std::string> names;
                           const Json all = golden("expected.json");  // items() refers to it
                           for (const auto& [name, ignored] : all.items()) {
                             names.push_back(name);
                           }
                           return names;
                         }()),
                         [](const auto& info) { return info.param; });

TEST(ChatTemplate, GivesTransformersIdsOverATokenizerThatAddsBos) {
  const Json file = golden("ids.json");
  Json json = parse_json(test::read_file(test::source_folder().string() + "/tests/golden/tokenizers/llama3.json"), "x");
  json["post_processor"] = file.at("tokenizer");
  const std::string bos = file.at("bos_token").get<std::string>();
  const std::string eos = file.at("eos_token").get<std::string>();
  const Tokenizer words = Tokenizer::parse(json.dump(), "x", Json{{"bos_token", bos}, {"eos_token", eos}}.dump());
  ASSERT_EQ(words.encode("a").front(), words.bos());
  std::map<std::string, Json> conversations;
  for (const Json& one : golden("conversations.json")) {
    conversations[one.at("name").get<std::string>()] = one;
  }
  int compared = 0;
  for (const auto& [name, cases] : file.at("ids").items()) {
    const ChatTemplate chat = ChatTemplate::parse(test::read_file(kFolder + "templates/" + name + ".jinja"), name,
                                                  {{"bos_token", bos}, {"eos_token", eos}});
    for (const auto& [title, ids] : cases.items()) {
      const Json& conversation = conversations.at(title);
      const ChatRequest request =
          messages(conversation.at("messages"), conversation.value("add_generation_prompt", false));
      EXPECT_EQ(chat.encode(words, request), ids.get<Ids>()) << name << " " << title;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 18);
}

// llama.cpp #7062 and ollama #6823: a template that writes BOS and a tokenizer that adds it gave two.
TEST(ChatTemplate, BosStandsWhereTheTemplateWritesItAndOnlyThere) {
  Json json = Json::parse(test::byte_tokenizer(256, {"<s>", "</s>"}));
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", Json::array()},
      {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {256}}, {"tokens", {"<s>"}}}}}}};
  const Tokenizer words = Tokenizer::parse(json.dump(), "x.json", R"({"bos_token": "<s>", "add_bos_token": true})");
  ASSERT_EQ(words.encode("a"), (Ids{256, 'a'})) << "this tokenizer adds BOS";
  const ChatTemplate with =
      ChatTemplate::parse("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "t", kTokens);
  EXPECT_EQ(with.encode(words, messages(kHello)), (Ids{256, 'H', 'e', 'l', 'l', 'o', 257}));
  const ChatTemplate without = ChatTemplate::parse("{{ messages[0].content }}", "t", kTokens);
  EXPECT_EQ(without.encode(words, messages(kHello)), (Ids{'H', 'e', 'l', 'l', 'o'}));
}

TEST(ChatTemplate, FindsTheTokenThatEndsATurn) {
  const Tokenizer words = Tokenizer::parse(test::byte_tokenizer(256, {"<|im_start|>", "<|im_end|>", "</s>"}), "x.json");
  const auto end = [&](const std::string& text) { return ChatTemplate::parse(text, "t", kTokens).end_of_turn(words); };
  EXPECT_EQ(end(kChatMl), 257);
  EXPECT_EQ(end("{% for m in messages %}{{ m.content | trim }} {{ eos_token }}{% endfor %}"), 258);
  EXPECT_EQ(end("{% for m in messages %}{{ m.content }}\n{% endfor %}"), std::nullopt) << "no special token";
  EXPECT_EQ(end("{{ messages[0].content }}</s>"), std::nullopt) << "answers are not rendered";
  EXPECT_EQ(end("{{ raise_exception('no') }}"), std::nullopt);
}

class ChatTemplateFiles : public testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((scratch_.path() / name).parent_path());
    write_file(scratch_.path() / name, text);
  }
  std::string rendered(const std::string& name = {}, bool tools = false) const {
    return ChatTemplate::load(scratch_.path(), name, tools)->render(messages(kHello));
  }

  ScratchDirectory scratch_;
};

TEST_F(ChatTemplateFiles, ABaseModelHasNone) {
  EXPECT_EQ(ChatTemplate::load(scratch_.path()), std::nullopt);
  put("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": null})");
  EXPECT_EQ(ChatTemplate::load(scratch_.path()), std::nullopt);
}

TEST_F(ChatTemplateFiles, FilesWinOverTheConfigurationAsInTransformers) {
  put("chat_template.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(rendered(), "processor");
  put("tokenizer_config.json", R"({"chat_template": "config {{ messages[0].content }}"})");
  EXPECT_EQ(rendered(), "config Hello");
  put("chat_template.jinja", "file {{ messages[0].content }}\n");
  EXPECT_EQ(rendered(), "file Hello");
  put("additional_chat_templates/tool_use.jinja", "tools");
  EXPECT_EQ(rendered(), "file Hello");
  EXPECT_EQ(rendered({}, /*tools=*/true), "tools");
  EXPECT_EQ(rendered("tool_use"), "tools");
}

TEST_F(ChatTemplateFiles, OfNamedTemplatesTheFittingOneIsTaken) {
  put("tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"},
          {"name": "rag", "template": "r"}]})");
  EXPECT_EQ(rendered(), "d");
  EXPECT_EQ(rendered({}, /*tools=*/true), "t");
  EXPECT_EQ(rendered("rag", /*tools=*/true), "r");
  EXPECT_NE(test::message_of<InputError>([&] {
              rendered("rga");
            }).find("has no chat template \"rga\"; there are \"default\", \"tool_use\", \"rag\""),
            std::string::npos);
  put("tokenizer_config.json",
      R"({"chat_template": [{"name": "a", "template": "1"}, {"name": "b", "template": "2"}]})");
  EXPECT_NE(test::message_of<InputError>([&] { rendered(); }).find("name one"), std::string::npos);
  EXPECT_EQ(rendered("b"), "2");
}

TEST_F(ChatTemplateFiles, SpecialTokensComeFromTheConfigurationInBothForms) {
  put("chat_template.jinja",
      "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ image_token }}|{{ unk_token is defined }}");
  put("tokenizer_config.json",
      R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "image_token": "<i>", "unk_token": null})");
  put("special_tokens_map.json", R"({"bos_token": "other", "pad_token": {"content": "<p>"}})");
  EXPECT_EQ(rendered(), "<s></s><p><i>|False");
}

TEST_F(ChatTemplateFiles, DamagedFilesAreRefusedInOneSentence) {
  const auto refusal = [&] { return test::message_of<Error>([&] { rendered(); }); };
  for (const char* config :
       {"{", R"({"chat_template": 5})", R"({"chat_template": []})", R"({"chat_template": {"name": "x"}})",
        R"({"chat_template": [{"name": "x"}]})", R"({"chat_template": [{"name": 1, "template": "x"}]})",
        R"({"chat_template": "x", "bos_token": {"id": 5}})", R"({"chat_template": "{% if %}"})",
        R"({"chat_template": "{% include 'x' %}"})"}) {
    put("tokenizer_config.json", config);
    EXPECT_NE(refusal().find("tokenizer_config.json"), std::string::npos) << config << ": " << refusal();
    EXPECT_EQ(refusal().find('\n'), std::string::npos);
  }
  put("chat_template.jinja", "\n{% unknown %}");
  EXPECT_NE(refusal().find("chat_template.jinja, line 2: "), std::string::npos) << refusal();
}

TEST(ChatRequest, IsAListOfMessagesOrAnObject) {
  const auto read = [](const char* text) { return parse_chat_request(Json::parse(text), "chat.json"); };
  const ChatRequest list = read(R"([{"role": "user", "content": "x"}])");
  EXPECT_EQ(list.messages.size(), 1U);
  EXPECT_FALSE(list.add_generation_prompt);
  const ChatRequest object = read(
      R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"a": 1}], "documents": null,
          "add_generation_prompt": true, "chat_template": "rag", "chat_template_kwargs": {"date_string": "today"}})");
  EXPECT_EQ(object.tools, Json::parse(R"([{"a": 1}])"));
  EXPECT_TRUE(object.add_generation_prompt);
  EXPECT_EQ(object.template_name, "rag");
  EXPECT_EQ(object.variables, Json::parse(R"({"date_string": "today"})"));
  const std::pair<const char*, const char*> kBad[] = {
      {"5", "messages must be a list"},
      {"[5]", "messages must be a list of objects"},
      {R"({"messages": "x"})", "messages must be a list"},
      {R"({"tools": []})", "messages must be a list"},
      {R"({"messages": [{}], "tools": {}})", "tools must be a list"},
      {R"({"messages": [{}], "documents": ["x"]})", "documents must be a list"},
      {R"({"messages": [{}], "add_generation_prompt": 1})", "true or false"},
      {R"({"messages": [{}], "chat_template": 1})", "the name of a template"},
      {R"({"messages": [{}], "mesages": [{}]})", "\"mesages\" is none of"},
      {R"({"messages": [{}], "chat_template_kwargs": []})", "must be an object"},
  };
  for (const auto& [text, says] : kBad) {
    const std::string message = test::message_of<FormatError>([&] { read(text); });
    EXPECT_TRUE(message.starts_with("chat.json: ")) << text;
    EXPECT_NE(message.find(says), std::string::npos) << text << ": " << message;
  }
}

// CVE-2025-62426: arguments for the template took the place of the request's own.
TEST(ChatRequest, VariablesOfTheTemplateCannotReplaceTheRequestsOwn) {
  for (const char* own : {"messages", "tools", "documents", "add_generation_prompt"}) {
    const Json json = {{"messages", kHello}, {"chat_template_kwargs", {{own, nullptr}}}};
    EXPECT_NE(test::message_of<FormatError>([&] { parse_chat_request(json, "x"); }).find(own), std::string::npos);
  }
  // Nor when somebody sets them by hand.
  ChatRequest request = messages(kHello);
  request.variables = {{"messages", "stolen"}, {"bos_token", "<b>"}};
  EXPECT_EQ(ChatTemplate::parse("{{ bos_token }}{{ messages[0].content }}", "t", kTokens).render(request), "<b>Hello")
      << "a special token may be another one, as in transformers";
}

}  // namespace
}  // namespace caravan::tokenizer
