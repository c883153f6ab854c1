// caravan chat, fed with lines: what it answers, what its commands do, and one sentence for every mistake.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/cli/commands.h"
#include "tests/cli/chat_model.h"

namespace caravan::cli {
namespace {

using test::ScratchDirectory;
using test::write_file;
using Words = std::vector<std::string>;

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

class ChatCommand : public testing::Test {
 protected:
  Outcome chat(const std::string& lines, const Words& more = {}, const std::string& model = {}) {
    Words arguments = {"--threads", "1", "chat", "--model", model.empty() ? model_ : model};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::istringstream in(lines);
    std::ostringstream out;
    std::ostringstream err;
    Outcome outcome;
    outcome.status = run(arguments, {out, err, in});
    outcome.out = out.str();
    outcome.err = err.str();
    return outcome;
  }

  std::vector<Json> answers(const std::string& lines, Words more = {}) {
    more.emplace_back("--json");
    std::vector<Json> result;
    std::istringstream text(chat(lines, more).out);
    for (std::string line; std::getline(text, line);) {
      result.push_back(Json::parse(line));
    }
    return result;
  }

  std::string file(const std::string& name) const { return (scratch_.path() / name).string(); }

  ScratchDirectory scratch_;
  const std::string model_ = test::make_chat_model(scratch_.path(), 600);
  const Words kShort = {"--max-new-tokens", "12", "--greedy"};
};

TEST_F(ChatCommand, AnswersEveryLineInTheLightOfTheOnesBefore) {
  const std::vector<Json> both = answers("Hello\nAnd then?\n", kShort);
  ASSERT_EQ(both.size(), 2U);
  EXPECT_EQ(both[0].at("ids"), answers("Hello\n", kShort).at(0).at("ids"));
  EXPECT_NE(both[1].at("ids"), answers("And then?\n", kShort).at(0).at("ids"));
  // The prompt of the first: <|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n
  Json expected = Json::array({256});
  for (const char c : std::string("user\nHello")) {
    expected.push_back(c);
  }
  expected.push_back(257);
  expected.push_back('\n');
  expected.push_back(256);
  for (const char c : std::string("assistant\n")) {
    expected.push_back(c);
  }
  EXPECT_EQ(both[0].at("prompt_ids"), expected);
  // And of the second, only what is new was computed.
  EXPECT_LT(both[1].at("ids_run").get<std::size_t>(), both[1].at("prompt_ids").size());
}

// What a command prints, given lines on standard input.
std::string output(const Words& arguments, const std::string& lines = {}) {
  std::istringstream in(lines);
  std::ostringstream out;
  std::ostringstream err;
  EXPECT_EQ(run(arguments, {out, err, in}), 0) << err.str();
  return out.str();
}

TEST_F(ChatCommand, AGgufFileAnswersAsTheDirectoryThatItWasMadeOf) {
  const std::string gguf = file("model.gguf");
  output({"convert", model_, gguf});
  const std::string lines = "Hello\nAnd then?\n";
  EXPECT_EQ(chat(lines, kShort, gguf).out, chat(lines, kShort).out);
  write_file(file("messages.json"), R"([{"role": "user", "content": "Hello"}])");
  for (const Words& how : {Words{}, {"--text"}}) {
    const auto rendered = [&](const std::string& model) {
      Words arguments = {"tokenize", "--tokenizer", model, "--chat", file("messages.json")};
      arguments.insert(arguments.end(), how.begin(), how.end());
      return output(arguments);
    };
    EXPECT_EQ(rendered(gguf), rendered(model_));
    EXPECT_NE(rendered(gguf), "");
  }
  const auto continued = [&](const std::string& model) {
    return output({"generate", "--model", model, "--prompt", "Once", "--max-new-tokens", "8", "--json"});
  };
  EXPECT_EQ(continued(gguf), continued(model_));
  EXPECT_EQ(output({"tokenize", "--tokenizer", gguf}, "Hi"), "[72,105]\n");
}

TEST_F(ChatCommand, PrintsTheTextOfItsAnswers) {
  const std::vector<Json> json = answers("Hello\n\n  \nAnd then?\n", kShort);
  std::string expected;
  for (const Json& one : json) {
    expected += one.at("text").get<std::string>() + "\n";
  }
  const Outcome plain = chat("Hello\n\n  \nAnd then?", kShort);
  EXPECT_EQ(plain.status, 0);
  EXPECT_EQ(plain.out, expected) << "empty lines are no messages; the last line needs no end";
  EXPECT_EQ(plain.err, "");
}

TEST_F(ChatCommand, TheSameSeedGivesTheSameConversation) {
  const Words sampled = {"--max-new-tokens", "12", "--temperature", "1.5", "--seed", "4"};
  const std::string once = chat("Hello\nAnd then?\n", sampled).out;
  EXPECT_EQ(chat("Hello\nAnd then?\n", sampled).out, once);
  EXPECT_NE(chat("Hello\nAnd then?\n", {"--max-new-tokens", "12", "--temperature", "1.5", "--seed", "5"}).out, once);
}

TEST_F(ChatCommand, SystemMessagesComeFromTheOptionAndTheCommand) {
  const std::vector<Json> by_option = answers("Hello\n", {"--system", "Be kind", "--max-new-tokens", "3"});
  const std::vector<Json> by_command = answers("/system   Be kind  \nHello\n", {"--max-new-tokens", "3"});
  EXPECT_EQ(by_option.at(0), by_command.at(0));
  EXPECT_NE(by_option.at(0).at("prompt_ids"), answers("Hello\n", {"--max-new-tokens", "3"}).at(0).at("prompt_ids"));
  EXPECT_EQ(answers("/system Be kind\n/system\nHello\n", {"--max-new-tokens", "3"}).at(0).at("prompt_ids"),
            answers("Hello\n", {"--max-new-tokens", "3"}).at(0).at("prompt_ids"));
}

TEST_F(ChatCommand, ResetForgetsWhatWasSaid) {
  const std::vector<Json> two = answers("Hello\n/reset\nHello\n", kShort);
  EXPECT_EQ(two.at(0).at("prompt_ids"), two.at(1).at("prompt_ids"));
  EXPECT_EQ(two.at(0).at("ids"), two.at(1).at("ids"));
}

TEST_F(ChatCommand, SavesAndLoadsConversations) {
  const std::string saved = file("talk.json");
  const std::vector<Json> whole = answers("Hello\n/save " + saved + "\nMore\n", kShort);
  const Json talk = Json::parse(test::read_file(saved));
  EXPECT_EQ(talk.at("messages").size(), 2U);
  EXPECT_EQ(talk.at("messages")[0], (Json{{"role", "user"}, {"content", "Hello"}}));
  EXPECT_EQ(answers("/load " + saved + "\nMore\n", kShort).at(0).at("ids"), whole.at(1).at("ids"));
  // What is saved is what tokenize --chat reads.
  std::ostringstream out;
  EXPECT_EQ(run(Words{"tokenize", "--tokenizer", model_, "--chat", saved, "--text"}, {out, out}), 0);
  EXPECT_TRUE(out.str().starts_with("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")) << out.str();
  // An empty conversation too.
  EXPECT_EQ(chat("/save " + saved + "\n/load " + saved + "\n").status, 0);
}

TEST_F(ChatCommand, MessagesMayHaveSeveralLinesAndBeginWithASlash) {
  const auto prompt = [&](const std::string& lines) {
    return answers(lines, {"--max-new-tokens", "1"}).at(0).at("prompt_ids");
  };
  const Json two_lines = prompt("\"\"\"\nfirst\n  second\n\"\"\"\n");
  std::string text;
  for (const Json& id : two_lines) {
    text += id.get<int>() < 256 ? static_cast<char>(id.get<int>()) : '#';
  }
  EXPECT_EQ(text, "#user\nfirst\n  second#\n#assistant\n");
  EXPECT_EQ(prompt("\"\"\"\nfirst\n  second"), two_lines) << "the end of the input ends it";
  EXPECT_EQ(prompt("//etc is a folder\n").size(), prompt("/etc is a folder\n//etc is a folder\n").size());
}

TEST_F(ChatCommand, MistakesInAScriptAreSaidAndTheRestGoesOn) {
  const std::pair<std::string, std::string> kCases[] = {
      {"/rest", "did you mean /reset?"},
      {"/", "there is no command /"},
      {"/save", "the name of a file"},
      {"/load", "the name of a file"},
      {"/load " + file("none.json"), "none.json"},
      {"/save /nonexistent/x.json", "/nonexistent"},
      {"/reset now", "takes nothing behind it"},
      {"bad \xFF byte", "UTF-8"},
      {std::string(700, 'x'), "leaves no room"},
  };
  for (const auto& [line, says] : kCases) {
    const Outcome outcome = chat(line + "\nHello\n", {"--max-new-tokens", "3"});
    EXPECT_EQ(outcome.status, 1) << line;
    EXPECT_TRUE(outcome.err.starts_with("caravan: ")) << outcome.err;
    EXPECT_NE(outcome.err.find(says), std::string::npos) << line << ": " << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_NE(outcome.out, "") << "the next line is answered";
  }
  write_file(file("bad.json"), "[{\"role\": \"user\"}]");
  EXPECT_NE(chat("/load " + file("bad.json") + "\n").err.find("no attribute 'content'"), std::string::npos);
}

TEST_F(ChatCommand, AFullContextIsOneSentenceThatSaysWhatToDo) {
  const Outcome outcome = chat("Hello\nHello\n", {"--context", "40", "--greedy"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("the context of 40 tokens is full"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("/reset"), std::string::npos) << outcome.err;
}

TEST_F(ChatCommand, HelpListsTheCommandsAndExitLeaves) {
  const Outcome outcome = chat("/help\n/exit\nHello\n");
  EXPECT_EQ(outcome.status, 0);
  for (const char* command : {"/help", "/reset", "/system TEXT", "/save FILE", "/load FILE", "/exit", "Ctrl-C"}) {
    EXPECT_NE(outcome.err.find(command), std::string::npos) << command;
  }
  EXPECT_EQ(outcome.out, "") << "no answer, and nothing but answers goes there";
}

TEST_F(ChatCommand, AnswersEndAtTheIdsOfGenerationConfig) {
  const Json ids = answers("Hello\n", kShort).at(0).at("ids");
  write_file(model_ + "/generation_config.json", Json{{"eos_token_id", {5, ids[2]}}, {"max_new_tokens", 7}}.dump());
  const Json ended = answers("Hello\n", {"--greedy"}).at(0);
  EXPECT_EQ(ended.at("finish_reason"), "eos");
  EXPECT_EQ(ended.at("ids").back(), ids[2]);
  write_file(model_ + "/generation_config.json", Json{{"max_new_tokens", 7}}.dump());
  EXPECT_EQ(answers("Hello\n", {"--greedy"}).at(0).at("ids").size(), 7U);
}

TEST_F(ChatCommand, ModelsThatCannotChatAreToldApart) {
  const auto refusal = [&] { return test::message_of<Error>([&] { chat("Hello\n"); }); };
  write_file(model_ + "/chat_template.jinja", "{% include 'x' %}");
  EXPECT_NE(refusal().find("chat_template.jinja, line 1: the statement \"include\""), std::string::npos) << refusal();
  std::filesystem::remove(model_ + "/chat_template.jinja");
  EXPECT_NE(refusal().find("it is a base model"), std::string::npos) << refusal();
  EXPECT_NE(refusal().find("caravan generate --model " + model_), std::string::npos) << refusal();
  write_file(model_ + "/chat_template.jinja",
             "{% for m in messages %}{% if m.role == 'system' %}"
             "{{ raise_exception('no system') }}{% endif %}{{ m.content }}{% endfor %}");
  EXPECT_NE(test::message_of<Error>([&] {
              chat("", {"--system", "x"});
            }).find("the template says: no system"),
            std::string::npos);
  std::filesystem::remove(model_ + "/tokenizer.json");
  EXPECT_NE(refusal().find("tokenizer.json"), std::string::npos) << refusal();
}

TEST_F(ChatCommand, TheDateOfTemplatesIsTodayOrTheOneThatIsGiven) {
  write_file(model_ + "/chat_template.jinja", "{{ strftime_now('%Y-%m-%d') }}{{ messages[0].content }}");
  const auto prompt = [&](const Words& more) {
    Words arguments = {"--max-new-tokens", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::string text;
    const Json answer = answers("x\n", arguments).at(0);
    for (const Json& id : answer.at("prompt_ids")) {
      text += static_cast<char>(id.get<int>());
    }
    return text;
  };
  EXPECT_EQ(prompt({"--date", "2024-02-29"}), "2024-02-29x");
  EXPECT_TRUE(prompt({}).starts_with("20")) << "the clock's";
  for (const char* bad : {"2023-02-29", "2024-2-9", "today", "2024-13-01", "2024-00-10", "20240229aa", ""}) {
    EXPECT_NE(test::message_of<InputError>([&] { prompt({"--date", bad}); }).find("--date"), std::string::npos) << bad;
  }
}

TEST_F(ChatCommand, RefusesBadOptionsInOneSentence) {
  const std::pair<Words, const char*> kCases[] = {
      {{"--greedy", "--top-k", "3"}, "--greedy"},           {{"--temperature", "0"}, "temperature must be"},
      {{"--context", "601"}, "the model takes 600 tokens"}, {{"--context", "1"}, "--context"},
      {{"--max-new-tokens", "0"}, "--max-new-tokens"},      {{"--date", "x"}, "--date"},
  };
  for (const auto& [arguments, says] : kCases) {
    const std::string message = test::message_of<Error>([&] { chat("Hello\n", arguments); });
    EXPECT_NE(message.find(says), std::string::npos) << says << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace caravan::cli
