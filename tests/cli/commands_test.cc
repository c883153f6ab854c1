// The commands as a user types them: results, exit statuses, and one sentence for every mistake.
#include "caravan/cli/commands.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::cli {
namespace {

using test::ScratchDirectory;
using test::write_file;

const std::string kGolden = test::source_folder().string() + "/tests/golden/models/";

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

Outcome call(const std::vector<std::string>& arguments, const std::string& input = "") {
  std::istringstream in(input);
  std::ostringstream out;
  std::ostringstream err;
  Outcome outcome;
  outcome.status = run(arguments, {out, err, in});
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

std::string refusal(const std::vector<std::string>& arguments, const std::string& input = "") {
  return test::message_of<Error>([&] { call(arguments, input); });
}

Json json_of(const Outcome& outcome) {
  return Json::parse(outcome.out);
}

TEST(Commands, DumpPrintsOneJsonObjectWithTheLoss) {
  const ScratchDirectory scratch;
  const std::string model = kGolden + "gqa_llama3";
  const std::string out = (scratch.path() / "out.safetensors").string();
  const Outcome outcome = call({"dump", "--model", model, "--ids", model + "/ids.json", "--what", "logits,hidden,loss",
                                "--dtype", "f32", "--output", out});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 1);
  const Json expected = Json::parse(test::read_file(model + "/expected.json"));
  EXPECT_NEAR(json_of(outcome).at("loss").get<double>(), expected.at("loss").get<double>(), 1e-4);
  EXPECT_EQ(call({"compare", out, model + "/expected.safetensors", "--tolerance", "1e-4"}).status, 0);
  EXPECT_EQ(call({"compare", out, model + "/expected.safetensors", "--tolerance", "1e-12"}).status, 1);
}

TEST(Commands, CompareWithAModelDumpsItFirst) {
  const ScratchDirectory scratch;
  const std::string model = kGolden + "biases";
  const std::string out = (scratch.path() / "out.safetensors").string();
  // The ids come from beside the file, from the file's metadata, or from --ids.
  EXPECT_EQ(call({"compare", "--model", model, model + "/expected.safetensors"}).status, 0);
  call({"dump", "--model", model, "--ids", model + "/ids.json", "--what", "hidden", "--output", out});
  EXPECT_EQ(call({"compare", "--model", model, out, "--tolerance", "0"}).status, 0);
  const Outcome other = call({"compare", "--model", kGolden + "tied", out, "--json"});
  EXPECT_EQ(other.status, 1);
  EXPECT_FALSE(json_of(other).at("within").get<bool>());
  EXPECT_EQ(json_of(other).at("first_difference"), "hidden.0.0");
}

TEST(Commands, CompareNamesTheFirstDifference) {
  const ScratchDirectory scratch;
  const std::string model = kGolden + "mha_default";
  const std::string ours = (scratch.path() / "f32").string();
  const std::string rough = (scratch.path() / "bf16").string();
  for (const auto& [dtype, path] : {std::pair<std::string, std::string>{"f32", ours}, {"bf16", rough}}) {
    call({"dump", "--model", model, "--ids", model + "/ids.json", "--what", "hidden", "--dtype", dtype, "--output",
          path});
  }
  const Outcome outcome = call({"compare", rough, ours, "--tolerance", "1e-5"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.out.find("first difference: hidden.0.0"), std::string::npos) << outcome.out;
}

TEST(Commands, InspectDescribesAModelAndAFile) {
  const Outcome text = call({"inspect", kGolden + "wide_head_dim"});
  EXPECT_NE(text.out.find("head_dim 24"), std::string::npos) << text.out;
  const Json json = json_of(call({"inspect", kGolden + "tied", "--json"}));
  EXPECT_TRUE(json.at("problems").empty());
  EXPECT_TRUE(json.at("config").at("tie_word_embeddings").get<bool>());
  EXPECT_GT(json.at("forward_memory").at("f32").at("peak").get<std::int64_t>(), 0);
  const Json file = json_of(call({"inspect", kGolden + "tied/model.safetensors", "--json"}));
  EXPECT_GT(file.at("tensors").size(), 10U);
}

TEST(Commands, InspectDescribesACheckpoint) {
  const ScratchDirectory scratch;
  const std::string data = (scratch.path() / "ids.jsonl").string();
  write_file(data, "{\"ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]}\n");
  const std::string folder = (scratch.path() / "run").string();
  call({"train", "--data", data, "--model.flavor", "tiny", "--max_seq_len", "8", "--batch_size", "1", "--steps", "2",
        "--training.backend", "ref", "--output_dir", folder, "--threads", "1"});
  const std::string step = folder + "/checkpoint/step-2";
  const Outcome text = call({"inspect", step});
  EXPECT_TRUE(text.out.starts_with("checkpoint of a training: step 2, 16 tokens seen, weights and optimizer\n"))
      << text.out;
  EXPECT_TRUE(text.out.ends_with("a model of it: caravan convert " + step + " DIR\n")) << text.out;
  const Json json = json_of(call({"inspect", step, "--json"}));
  EXPECT_EQ(json.at("training"), (Json{{"step", 2}, {"n_tokens_seen", 16}, {"optimizer", true}}));
  const Json model = json_of(call({"inspect", folder + "/model", "--json"}));
  for (const char* same : {"parameters", "tensors", "tensor_types", "weight_bytes"}) {
    EXPECT_EQ(json.at(same), model.at(same)) << same;
  }
}

TEST(Commands, ConvertAndBackKeepsEveryByte) {
  const ScratchDirectory scratch;
  const std::string model = kGolden + "odd_widths";  // stored in BF16
  const std::string f32 = (scratch.path() / "f32").string();
  const std::string bf16 = (scratch.path() / "bf16").string();
  EXPECT_EQ(call({"convert", model, f32, "--dtype", "f32", "--max-shard-bytes", "300000"}).status, 0);
  EXPECT_EQ(call({"convert", f32, bf16, "--dtype", "bf16"}).status, 0);
  const Json before = json_of(call({"inspect", model + "/model.safetensors", "--json"}));
  EXPECT_EQ(call({"compare", model + "/model.safetensors", bf16 + "/model.safetensors", "--tolerance", "0"}).status, 0);
  EXPECT_NE(refusal({"convert", f32, bf16}).find("bf16"), std::string::npos);
  EXPECT_EQ(call({"convert", f32, bf16, "--replace"}).status, 0);
}

TEST(Commands, ConvertKeepsEachTensorsOwnType) {
  const ScratchDirectory scratch;
  const std::string mixed = (scratch.path() / "mixed").string();
  const std::string copy = (scratch.path() / "copy").string();
  call({"convert", kGolden + "odd_widths", mixed, "--dtype", "f32", "--max-shard-bytes", "300000"});
  // One shard in BF16 among shards in F32.
  const std::string bf16 = (scratch.path() / "bf16").string();
  call({"convert", mixed, bf16, "--dtype", "bf16", "--max-shard-bytes", "150000"});
  const Json before = Json::parse(test::read_file(mixed + "/model.safetensors.index.json"));
  const Json small = Json::parse(test::read_file(bf16 + "/model.safetensors.index.json"));
  ASSERT_EQ(before.at("weight_map"), small.at("weight_map")) << "the shards are cut alike";
  const std::string shard = before.at("weight_map").at("model.norm.weight").get<std::string>();
  std::filesystem::copy_file(bf16 + "/" + shard, mixed + "/" + shard,
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(call({"convert", mixed, copy, "--max-shard-bytes", "300000"}).status, 0);
  EXPECT_EQ(json_of(call({"inspect", mixed, "--json"})).at("tensor_types"),
            json_of(call({"inspect", copy, "--json"})).at("tensor_types"));
  EXPECT_EQ(json_of(call({"inspect", copy, "--json"})).at("tensor_types").size(), 2U);
}

TEST(Commands, GgufFilesServeWhereDirectoriesDo) {
  const ScratchDirectory scratch;
  const std::string model = kGolden + "gqa_llama3";
  const std::string file = (scratch.path() / "model.gguf").string();
  const std::string out = (scratch.path() / "out.safetensors").string();
  const Outcome converted = call({"convert", model, file});
  EXPECT_EQ(converted.status, 0);
  EXPECT_NE(converted.out.find("checked: all"), std::string::npos) << converted.out;
  EXPECT_EQ(call({"compare", "--model", file, model + "/expected.safetensors"}).status, 0);
  call({"dump", "--model", file, "--ids", model + "/ids.json", "--what", "logits", "--output", out});
  EXPECT_EQ(call({"compare", "--model", model, out, "--tolerance", "0"}).status, 0);
  EXPECT_NE(refusal({"dump", "--model", file, "--ids", model + "/ids.json", "--what", "logits", "--output", file})
                .find("made from"),
            std::string::npos);
  const std::vector<std::string> rest = {"--ids", model + "/ids.json", "--max-new-tokens", "4"};
  std::vector<std::string> a = {"generate", "--model", model};
  std::vector<std::string> b = {"generate", "--model", file};
  a.insert(a.end(), rest.begin(), rest.end());
  b.insert(b.end(), rest.begin(), rest.end());
  EXPECT_EQ(call(a).out, call(b).out);
  EXPECT_NE(refusal({"generate", "--model", file, "--prompt", "x"}).find("tokenizer"), std::string::npos);
}

TEST(Commands, InspectShowsAGgufFilesMetadataTensorsAndMemory) {
  const std::string file = test::source_folder().string() + "/tests/golden/gguf/wide_head_dim.gguf";
  const Outcome text = call({"inspect", file});
  for (const char* words : {"llama.block_count", "blk.0.attn_q.weight", "F32", "head_dim 24", "for a forward pass"}) {
    EXPECT_NE(text.out.find(words), std::string::npos) << text.out;
  }
  const Json json = json_of(call({"inspect", file, "--json"}));
  EXPECT_EQ(json.at("format"), "a GGUF file");
  EXPECT_EQ(json.at("file").at("version"), 3);
  EXPECT_EQ(json.at("file").at("tensors").size(), json.at("tensors").get<std::size_t>());
  EXPECT_GT(json.at("forward_memory").at("f32").at("peak").get<std::int64_t>(), 0);
  // A file that is no Llama is described all the same, before the sentence that says so.
  std::ostringstream out;
  std::ostringstream err;
  const std::vector<std::string> arguments = {"inspect",
                                              test::source_folder().string() + "/tests/golden/gguf/types.gguf"};
  const std::string message = test::message_of<Error>([&] { run(arguments, {out, err}); });
  EXPECT_NE(message.find("\"nothing\" is not supported"), std::string::npos) << message;
  EXPECT_NE(out.str().find("blocks.Q6_K"), std::string::npos) << out.str();
}

TEST(Commands, ConvertTellsFormatsByContentAndSaysWhatItChose) {
  const ScratchDirectory scratch;
  const auto path = [&](const char* name) { return (scratch.path() / name).string(); };
  const std::string model = kGolden + "tied";
  const Outcome blocks = call({"convert", model, path("x"), "--to", "gguf", "--dtype", "q4_k"});
  EXPECT_NE(blocks.err.find("Q5_0 instead of Q4_K"), std::string::npos) << blocks.err;
  EXPECT_NE(blocks.err.find("no tokenizer.json"), std::string::npos) << blocks.err;
  EXPECT_NE(blocks.out.find("logits within"), std::string::npos) << blocks.out;
  const Outcome back = call({"convert", path("x"), path("y")});  // no ".gguf" in its name
  EXPECT_NE(back.out.find("from a GGUF file"), std::string::npos) << back.out;
  EXPECT_EQ(call({"convert", model, path("te"), "--to", "te", "--no-verify"}).out.find("checked"), std::string::npos);
  EXPECT_NE(call({"convert", path("te"), path("hf")}).out.find("TransformerEngine"), std::string::npos);
  EXPECT_EQ(
      call({"compare", model + "/model.safetensors", path("hf") + "/model.safetensors", "--tolerance", "0"}).status, 0);
  EXPECT_NE(refusal({"convert", model, path("x"), "--to", "gguf"}).find("exists already"), std::string::npos);
  EXPECT_NE(refusal({"convert", path("x"), path("x"), "--to", "gguf", "--replace"}).find("holds the source"),
            std::string::npos);
  EXPECT_NE(refusal({"convert", kGolden + "tied/ids.json", path("z")}).find("neither a GGUF file"), std::string::npos);
  EXPECT_NE(refusal({"convert", model, path("z"), "--dtype", "q4_0"}).find("write a GGUF file"), std::string::npos);
}

TEST(Commands, NothingIsReplacedThatIsNoModelOrTheSource) {
  const ScratchDirectory scratch;
  const std::string model = (scratch.path() / "model").string();
  const std::string other = (scratch.path() / "other").string();
  call({"init", "tiny", model});
  std::filesystem::create_directory(other);
  write_file(other + "/thesis.txt", "years of work");
  EXPECT_NE(refusal({"convert", model, other, "--replace"}).find("thesis.txt"), std::string::npos);
  EXPECT_NE(refusal({"init", "tiny", other, "--replace"}).find("thesis.txt"), std::string::npos);
  EXPECT_EQ(test::read_file(other + "/thesis.txt"), "years of work");
  EXPECT_NE(refusal({"convert", model, model, "--replace"}).find("holds the source"), std::string::npos);
  EXPECT_NE(refusal({"convert", model, scratch.path().string(), "--replace"}).find("holds the source"),
            std::string::npos);
  EXPECT_EQ(call({"inspect", model}).status, 0);
}

TEST(Commands, ADumpNeverLandsOnItsInputs) {
  const ScratchDirectory scratch;
  const std::string model = (scratch.path() / "model").string();
  const std::string ids = (scratch.path() / "ids.json").string();
  call({"init", "tiny", model});
  write_file(ids, "[[1, 2, 3]]");
  const std::string weights = test::read_file(model + "/model.safetensors");
  for (const std::string& target : {ids, model + "/model.safetensors", model + "/config.json"}) {
    EXPECT_NE(
        refusal({"dump", "--model", model, "--ids", ids, "--what", "logits", "--output", target}).find("made from"),
        std::string::npos)
        << target;
  }
  EXPECT_EQ(test::read_file(ids), "[[1, 2, 3]]");
  EXPECT_EQ(test::read_file(model + "/model.safetensors"), weights);
}

TEST(Commands, ConvertRefusesToTurnAWeightIntoInfinity) {
  const ScratchDirectory scratch;
  const std::string model = (scratch.path() / "model").string();
  const std::string target = (scratch.path() / "f16").string();
  call({"init", "tiny", model});
  // The last four bytes are the last element of a matrix: 2^20 is beyond f16.
  std::string weights = test::read_file(model + "/model.safetensors");
  const float large = 1048576.0F;
  std::copy_n(reinterpret_cast<const char*>(&large), sizeof large, weights.end() - sizeof large);
  write_file(model + "/model.safetensors", weights);
  EXPECT_NE(refusal({"convert", model, target, "--dtype", "f16"}).find("1048576"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(target));
  EXPECT_EQ(call({"convert", model, target, "--dtype", "bf16"}).status, 0);
}

TEST(Commands, InitMakesTheSameModelFromTheSameSeed) {
  const ScratchDirectory scratch;
  const auto path = [&](const char* name) { return (scratch.path() / name).string(); };
  call({"init", "tiny", path("a"), "--seed", "5"});
  call({"init", "tiny", path("b"), "--seed", "5"});
  call({"init", path("a") + "/config.json", path("c"), "--seed", "6"});
  EXPECT_EQ(test::read_file(path("a") + "/model.safetensors"), test::read_file(path("b") + "/model.safetensors"));
  EXPECT_NE(test::read_file(path("a") + "/model.safetensors"), test::read_file(path("c") + "/model.safetensors"));
  EXPECT_EQ(test::read_file(path("a") + "/config.json"), test::read_file(path("c") + "/config.json"));
}

TEST(Commands, RefuseBadInputInOneSentence) {
  const ScratchDirectory scratch;
  const std::string model = kGolden + "tied";
  const std::string ids = model + "/ids.json";
  const std::string bad_ids = (scratch.path() / "bad.json").string();
  write_file(bad_ids, "[[1, 2, 100000]]");
  struct Case {
    std::vector<std::string> arguments;
    const char* says;
  };
  const std::vector<Case> cases = {
      {{"dmup"}, "dump"},
      {{"dump", "--model", model, "--ids", ids, "--what", "logits"}, "--output"},
      {{"dump", "--model", model, "--ids", ids, "--what", "logit"}, "logits"},
      {{"dump", "--model", model, "--ids", ids, "--dtype", "f8"}, "bf16"},
      {{"dump", "--model", model, "--ids", bad_ids}, "100000"},
      {{"dump", "--model", model, "--ids", "/nonexistent.json"}, "/nonexistent.json"},
      {{"dump", "--model", "/nonexistent", "--ids", ids}, "/nonexistent"},
      {{"dump", "--ids", ids}, "--model"},
      {{"dump", "--model", model, "--ids", ids, "--threads", "0"}, "--threads"},
      {{"dump", "--model", model, "--ids", ids, "--what", "logits", "--output", "/nonexistent/out"}, "/nonexistent"},
      {{"compare", ids, ids}, "ids.json"},
      {{"compare", "/nonexistent", ids}, "/nonexistent"},
      {{"compare", model + "/expected.safetensors"}, "two files"},
      {{"compare", "--model", model, ids, ids}, "one file"},
      {{"compare", model + "/expected.safetensors", model + "/expected.safetensors", "--tolerance", "-1"},
       "--tolerance"},
      {{"compare", "--model", model, model + "/model.safetensors"}, "logits"},
      {{"inspect", "/nonexistent"}, "/nonexistent"},
      {{"inspect", scratch.path().string()}, "config.json"},
      {{"init", "llama3-8", (scratch.path() / "x").string()}, "llama3-8b"},
  };
  for (const Case& one : cases) {
    const std::string message = refusal(one.arguments);
    EXPECT_NE(message.find(one.says), std::string::npos) << one.arguments.front() << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

// Runs the built program; the shell's words are ours.
Outcome shell(const std::string& command) {
  Outcome outcome;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  char buffer[4096];
  for (std::size_t n = 0; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
    outcome.out.append(buffer, n);
  }
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

TEST(Program, PredictsItsPeakFromAnotherProcess) {
  const std::string model = kGolden + "gqa_yarn";
  const ScratchDirectory scratch;
  for (const char* how :
       {"loss --dtype f32", "loss --dtype bf16", "loss --dtype f64", "gradients --dtype f32",
        "gradients --dtype bf16 --checkpointing full", "gradients --dtype bf16 --checkpointing selective"}) {
    const std::string command = std::string(CARAVAN_PROGRAM) + " dump --model " + model + " --ids " + model +
                                "/ids.json --threads 2 --output " + (scratch.path() / "out").string() + " --what " +
                                how;
    const Outcome planned = shell(command + " --dry-run");
    const Outcome real = shell(command);
    ASSERT_EQ(planned.status, 0) << planned.out;
    ASSERT_EQ(real.status, 0) << real.out;
    EXPECT_EQ(json_of(planned).at("memory"), json_of(real).at("memory")) << how;
    EXPECT_FALSE(json_of(planned).contains("loss"));
  }
}

TEST(Program, EndsMistakesWithStatusTwoAndOneLine) {
  const Outcome outcome = shell(std::string(CARAVAN_PROGRAM) + " dump --modle x");
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.out.find("caravan: "), 0U) << outcome.out;
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 1) << outcome.out;
}

TEST(Program, NoticesAFullDiskOnStandardOutput) {
  const Outcome outcome = shell(std::string(CARAVAN_PROGRAM) + " presets > /dev/full");
  EXPECT_EQ(outcome.status, 2);
}

TEST(Program, RefusesAnUnknownInstructionSetInOneSentence) {
  const Outcome outcome = shell("CARAVAN_MAX_ISA=sse9 " + std::string(CARAVAN_PROGRAM) + " presets");
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.out.find("CARAVAN_MAX_ISA"), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace caravan::cli
