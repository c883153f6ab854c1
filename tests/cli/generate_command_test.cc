// caravan generate: what it prints, what it takes as a default, and one sentence for every mistake.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/cli/commands.h"
#include "tests/support/byte_tokenizer.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::cli {
namespace {

using test::ScratchDirectory;
using test::write_file;
using Words = std::vector<std::string>;

const std::string kGolden = test::source_folder().string() + "/tests/golden/models/";

class GenerateCommand : public testing::Test {
 protected:
  // A copy of a golden model, to put files beside it.
  std::string model(const std::string& name) {
    const std::filesystem::path target = scratch_.path() / name;
    std::filesystem::create_directory(target);
    for (const auto& file : std::filesystem::directory_iterator(kGolden + name)) {
      const std::string file_name = file.path().filename().string();
      if (file_name.starts_with("model") || file_name.ends_with("config.json")) {
        std::filesystem::copy_file(file.path(), target / file_name, std::filesystem::copy_options::skip_existing);
      }
    }
    return target.string();
  }

  std::string ids(const std::string& text) {
    const std::string path = (scratch_.path() / ("ids" + std::to_string(++files_) + ".json")).string();
    write_file(path, text);
    return path;
  }

  static std::string call(Words arguments, std::string* warnings = nullptr) {
    std::ostringstream out;
    std::ostringstream err;
    arguments.insert(arguments.begin(), {"--threads", "1", "generate"});  // hundreds of tiny steps
    EXPECT_EQ(run(arguments, {out, err}), 0);
    if (warnings != nullptr) {
      *warnings = err.str();
    } else {
      EXPECT_EQ(err.str(), "");
    }
    return out.str();
  }

  static std::vector<Json> lines_of(const std::string& text) {
    std::vector<Json> result;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      result.push_back(Json::parse(line));
    }
    return result;
  }

  ScratchDirectory scratch_;
  int files_ = 0;
};

TEST_F(GenerateCommand, GivesTransformersIdsFromTheCommandLine) {
  for (const std::string name : {"gqa_llama3", "gqa_dynamic", "gqa_longrope", "tied"}) {
    const Json expected = Json::parse(test::read_file(kGolden + name + "/generate.json"));
    Json prompts = Json::array();
    for (const Json& one : expected) {
      prompts.push_back(one.at("prompt"));
    }
    const Words arguments = {"--model",          kGolden + name, "--ids",       ids(prompts.dump()),
                             "--max-new-tokens", "24",           "--ignore-eos"};
    const std::vector<Json> plain = lines_of(call(arguments));
    Words with_json = arguments;
    with_json.emplace_back("--json");
    const std::vector<Json> objects = lines_of(call(with_json));
    ASSERT_EQ(plain.size(), expected.size());
    ASSERT_EQ(objects.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(plain[i], expected[i].at("ids")) << name;
      EXPECT_EQ(objects[i], (Json{{"prompt_index", i},
                                  {"prompt_ids", expected[i].at("prompt")},
                                  {"ids", expected[i].at("ids")},
                                  {"text", nullptr},
                                  {"finish_reason", "length"}}))
          << name;
    }
  }
}

TEST_F(GenerateCommand, EndTokensComeFromGenerationConfigElseFromConfig) {
  const std::string folder = model("gqa_llama3");
  const Json free = Json::parse(test::read_file(kGolden + "gqa_llama3/generate.json"))[0];
  const Json third = free.at("ids")[2];
  const Words arguments = {"--model",          folder, "--ids", ids(Json::array({free.at("prompt")}).dump()),
                           "--max-new-tokens", "24",   "--json"};
  write_file(folder + "/generation_config.json", Json{{"eos_token_id", {1, third}}}.dump());
  const Json stopped = lines_of(call(arguments)).at(0);
  EXPECT_EQ(stopped.at("finish_reason"), "eos");
  EXPECT_EQ(stopped.at("ids").back(), third);
  EXPECT_LE(stopped.at("ids").size(), 3U);

  std::filesystem::remove(folder + "/generation_config.json");
  Json config = Json::parse(test::read_file(folder + "/config.json"));
  config["eos_token_id"] = third;
  write_file(folder + "/config.json", config.dump());
  EXPECT_EQ(lines_of(call(arguments)).at(0), stopped);
  Words on = arguments;
  on.emplace_back("--ignore-eos");
  EXPECT_EQ(lines_of(call(on)).at(0).at("ids"), free.at("ids"));
}

// gqa_llama3's generation_config.json asks for sampling.
TEST_F(GenerateCommand, IdsAreGreedyUntilSamplingIsAskedFor) {
  const auto with = [&](const Words& more) {
    Words arguments = {"--model", kGolden + "gqa_llama3", "--ids", ids("[[5, 6, 7]]"), "--max-new-tokens",
                       "20",      "--ignore-eos"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return call(arguments);
  };
  const std::string greedy = with({});
  EXPECT_EQ(with({"--greedy"}), greedy);
  EXPECT_EQ(with({"--seed", "5"}), greedy);
  EXPECT_EQ(with({"--top-k", "1"}), greedy);
  EXPECT_EQ(with({"--temperature", "0.001"}), greedy);
  const std::string sampled = with({"--temperature", "1.5"});
  EXPECT_NE(sampled, greedy);
  EXPECT_EQ(with({"--temperature", "1.5", "--seed", "0"}), sampled);
  EXPECT_NE(with({"--temperature", "1.5", "--seed", "1"}), sampled);
  // The file's top_p of 0.9 holds until another is given.
  EXPECT_EQ(with({"--temperature", "1.5", "--top-p", "0.9"}), sampled);
  EXPECT_NE(with({"--temperature", "1.5", "--top-p", "1"}), sampled);
}

TEST_F(GenerateCommand, WithoutANumberItTakesWhatRoomThereIs) {
  const std::string prompt = ids(Json::array({std::vector<int>(100, 3), std::vector<int>(128, 3)}).dump());
  const std::vector<Json> lines = lines_of(call({"--model", kGolden + "odd_widths", "--ids", prompt, "--ignore-eos"}));
  EXPECT_EQ(lines.at(0).size(), 28U);
  EXPECT_EQ(lines.at(1).size(), 0U);
  const std::vector<Json> none =
      lines_of(call({"--model", kGolden + "odd_widths", "--ids", prompt, "--max-new-tokens", "0"}));
  EXPECT_EQ(none.at(0).size(), 0U);
}

TEST_F(GenerateCommand, RefusesBadInputInOneSentence) {
  const std::string folder = kGolden + "odd_widths";  // 499 tokens, 128 positions, no tokenizer
  const std::string good = ids("[[1, 2]]");
  const std::string too_long = ids(Json::array({std::vector<int>(131, 3)}).dump());
  const std::string broken = model("tied");
  write_file(broken + "/generation_config.json", R"({"temperature": "hot"})");
  const std::string cold = model("biases");
  write_file(cold + "/generation_config.json", R"({"top_p": 3})");
  struct Case {
    Words arguments;
    const char* says;
  };
  const std::vector<Case> cases = {
      {{"--model", folder}, "--prompt TEXT, --prompt-file FILE or --ids"},
      {{"--model", folder, "--ids", good, "--prompt", "x"}, "both given"},
      {{"--ids", good}, "--model"},
      {{"--model", folder, "--prompt", "x"}, "no tokenizer.json"},
      {{"--model", folder, "--prompt-file", "/nonexistent.txt", "--prompt", "x"},
       "--prompt and --prompt-file are both"},
      {{"--model", folder, "--ids", good, "--stop", "x"}, "no tokenizer.json"},
      {{"--model", folder, "--ids", good, "--stop", ""}, "a stop string is empty"},
      {{"--model", "/nonexistent", "--ids", good}, "/nonexistent"},
      {{"--model", folder, "--ids", "/nonexistent.json"}, "/nonexistent.json"},
      {{"--model", folder, "--ids", ids("[]")}, "no sequence"},
      {{"--model", folder, "--ids", ids("[[1], []]")}, "sequence 1 is empty"},
      {{"--model", folder, "--ids", ids("[[1], [2.5]]")}, "sequence 1, place 0"},
      {{"--model", folder, "--ids", ids("[[1], [2, 499]]")}, "prompt 1, place 1: token id 499"},
      {{"--model", folder, "--ids", ids("[[-1]]")}, "token id -1"},
      {{"--model", folder, "--ids", too_long}, "shorten it by 3"},
      {{"--model", folder, "--ids", too_long, "--max-new-tokens", "0"}, "shorten it by 3"},
      {{"--model", folder, "--ids", good, "--max-new-tokens", "127"}, "1 more than the 128"},
      {{"--model", folder, "--ids", good, "--max-new-tokens", "9223372036854775807"}, "more than the 128"},
      {{"--model", kGolden + "gqa_dynamic", "--ids", good, "--max-new-tokens", "9223372036854775807"}, "at most"},
      {{"--model", folder, "--ids", good, "--max-new-tokens", "-1"}, "--max-new-tokens"},
      {{"--model", folder, "--ids", good, "--temperature", "-1"}, "temperature must be"},
      {{"--model", folder, "--ids", good, "--temperature", "0"}, "temperature must be"},
      {{"--model", folder, "--ids", good, "--temperature", "nan"}, "--temperature"},
      {{"--model", folder, "--ids", good, "--top-k", "-1"}, "--top-k"},
      {{"--model", folder, "--ids", good, "--top-p", "1.01"}, "top_p must be"},
      {{"--model", folder, "--ids", good, "--greedy", "--top-k", "3"}, "--greedy"},
      {{"--model", folder, "--ids", good, "--seed", "-1"}, "--seed"},
      {{"--model", folder, "--ids", good, "--dtype", "f8"}, "bf16"},
      {{"--model", broken, "--ids", good}, "generation_config.json: field \"temperature\" must be a number"},
      {{"--model", cold, "--ids", good, "--top-k", "2"}, "top_p must be"},
  };
  for (const Case& one : cases) {
    const std::string message = test::message_of<Error>([&] { call(one.arguments); });
    EXPECT_NE(message.find(one.says), std::string::npos) << one.says << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST_F(GenerateCommand, SaysWhatItIgnoresInGenerationConfig) {
  const std::string folder = model("tied");
  write_file(folder + "/generation_config.json", R"({"num_beams": 4, "repetition_penalty": 1.0})");
  std::string warnings;
  call({"--model", folder, "--ids", ids("[[1, 2]]"), "--max-new-tokens", "1"}, &warnings);
  EXPECT_NE(warnings.find("num_beams 4 is ignored"), std::string::npos) << warnings;
  EXPECT_EQ(warnings.find("repetition_penalty"), std::string::npos) << warnings;
}

// Whole characters only.
bool is_utf8(const std::string& text) {
  try {
    return Json(text).dump() != "";
  } catch (const Json::exception&) {
    return false;
  }
}

// Keeps what was written up to each flush.
class FlushRecorder : public std::stringbuf {
 public:
  std::vector<std::string> seen;

 protected:
  int sync() override {
    seen.push_back(str());
    return std::stringbuf::sync();
  }
};

class GeneratePrompt : public GenerateCommand {
 protected:
  // A random model with four tokens more than its tokenizer has.
  void SetUp() override {
    Json config = {{"model_type", "llama"},    {"vocab_size", 260},
                   {"hidden_size", 32},        {"intermediate_size", 48},
                   {"num_hidden_layers", 2},   {"num_attention_heads", 4},
                   {"initializer_range", 0.2}, {"max_position_embeddings", 600},
                   {"eos_token_id", 259}};
    write_file(scratch_.path() / "config.json", config.dump());
    folder_ = (scratch_.path() / "model").string();
    std::ostringstream ignored;
    ASSERT_EQ(run(Words{"init", (scratch_.path() / "config.json").string(), folder_}, {ignored, ignored}), 0);
    write_file(folder_ + "/tokenizer.json", test::byte_tokenizer());
  }

  Words with(const Words& more) const {
    Words arguments = {"--model", folder_, "--prompt", "H\xC3\xA9, you", "--max-new-tokens", "300", "--ignore-eos"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  std::string folder_;
};

TEST_F(GeneratePrompt, PromptAndTextGoThroughTheTokenizer) {
  const Json result = lines_of(call(with({"--json", "--top-k", "0"}))).at(0);
  EXPECT_EQ(result.at("prompt_ids"), (std::vector<int>{'H', 0xC3, 0xA9, ',', ' ', 'y', 'o', 'u'}));
  EXPECT_EQ(result.at("ids").size(), 300U);
  // The same prompt by ids gives the same tokens and text.
  Words by_ids = {"--model",          folder_, "--ids",        ids(Json::array({result.at("prompt_ids")}).dump()),
                  "--max-new-tokens", "300",   "--ignore-eos", "--json",
                  "--top-k",          "0"};
  EXPECT_EQ(lines_of(call(by_ids)).at(0), result);
}

TEST_F(GeneratePrompt, StreamsTheTextOfTheJsonAndNeverHalfACharacter) {
  for (const char* seed : {"1", "2", "3"}) {
    // Every byte is about as likely as another: all kinds of broken characters.
    const Words sampling = {"--temperature", "3", "--top-k", "0", "--seed", seed};
    Words with_json = sampling;
    with_json.emplace_back("--json");
    const std::string text = lines_of(call(with(with_json))).at(0).at("text").get<std::string>();
    FlushRecorder recorder;
    std::ostream out(&recorder);
    std::ostringstream err;
    Words arguments = with(sampling);
    arguments.insert(arguments.begin(), {"--threads", "1", "generate"});
    EXPECT_EQ(run(arguments, {out, err}), 0);
    EXPECT_EQ(recorder.str(), text + "\n");
    EXPECT_GT(recorder.seen.size(), 200U) << "as it comes";
    for (const std::string& part : recorder.seen) {
      EXPECT_TRUE(is_utf8(part));
      EXPECT_TRUE((text + "\n").starts_with(part));
    }
  }
}

TEST_F(GeneratePrompt, SamplesAsGenerationConfigSays) {
  const std::string greedy = call(with({"--greedy"}));
  std::filesystem::remove(folder_ + "/generation_config.json");
  EXPECT_EQ(call(with({})), greedy) << "transformers' do_sample is false";
  write_file(folder_ + "/generation_config.json", R"({"do_sample": true, "temperature": 2.0})");
  const std::string sampled = call(with({}));
  EXPECT_NE(sampled, greedy);
  EXPECT_EQ(call(with({"--temperature", "2", "--top-k", "50", "--seed", "0"})), sampled);
  EXPECT_EQ(call(with({"--top-k", "1"})), greedy);
  EXPECT_EQ(call(with({"--greedy"})), greedy);
}

TEST_F(GeneratePrompt, AStopTextEndsItAndIsNotPrinted) {
  const Words sampling = {"--temperature", "3", "--top-k", "0", "--json"};
  const Json whole = lines_of(call(with(sampling))).at(0);
  const std::string text = whole.at("text").get<std::string>();
  const std::size_t letter = text.find_first_of("abcdefghijklmnopqrstuvwxyz", 40);
  ASSERT_NE(letter, std::string::npos) << text;
  const std::string stop = text.substr(letter, 1);
  const std::string expected = text.substr(0, text.find(stop));
  Words stopping = {"--temperature", "3", "--top-k", "0", "--stop", "no such text", "--stop", stop};
  EXPECT_EQ(call(with(stopping)), expected + "\n");
  stopping.emplace_back("--json");
  const Json stopped = lines_of(call(with(stopping))).at(0);
  EXPECT_EQ(stopped.at("text"), expected);
  EXPECT_EQ(stopped.at("finish_reason"), "stopped");
  const auto count = static_cast<std::ptrdiff_t>(stopped.at("ids").size());
  ASSERT_LT(count, 300);
  EXPECT_TRUE(std::equal(stopped.at("ids").begin(), stopped.at("ids").end(), whole.at("ids").begin()));
  // Every prompt of a list has its own text to look through.
  const Json prompt = whole.at("prompt_ids");
  Words by_ids = {"--model",          folder_, "--ids",       ids(Json::array({prompt, prompt}).dump()),
                  "--max-new-tokens", "300",   "--ignore-eos"};
  by_ids.insert(by_ids.end(), stopping.begin(), stopping.end());
  const std::vector<Json> both = lines_of(call(by_ids));
  EXPECT_EQ(both.at(0), stopped);
  EXPECT_EQ(both.at(1).at("finish_reason"), "stopped");
}

TEST_F(GeneratePrompt, ComesOutOfAFileOrStandardInputToo) {
  const std::string expected = call(with({"--greedy"}));
  const std::string file = (scratch_.path() / "a prompt.txt").string();
  write_file(file, "H\xC3\xA9, you\n");
  for (const std::string& name : {file, std::string("-")}) {
    std::istringstream in("H\xC3\xA9, you");
    std::ostringstream out;
    std::ostringstream err;
    const Words arguments = {"generate", "--threads",        "1",   "--model",      folder_,   "--prompt-file",
                             name,       "--max-new-tokens", "300", "--ignore-eos", "--greedy"};
    EXPECT_EQ(run(arguments, {out, err, in}), 0);
    EXPECT_EQ(out.str(), expected);
  }
}

TEST_F(GeneratePrompt, RefusesTextThatIsNone) {
  const auto refusal = [&](const std::string& prompt) {
    return test::message_of<Error>([&] { call({"--model", folder_, "--prompt", prompt}); });
  };
  EXPECT_NE(refusal("").find("empty"), std::string::npos) << refusal("");
  EXPECT_NE(refusal("a\xFF"), "");
  EXPECT_NE(refusal(std::string(601, 'x')).find("shorten it by 1"), std::string::npos);
  write_file(folder_ + "/tokenizer.json", "{");
  EXPECT_NE(refusal("x").find("tokenizer.json"), std::string::npos) << refusal("x");
}

}  // namespace
}  // namespace caravan::cli
