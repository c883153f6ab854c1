// Installs the library into a folder of its own and builds examples/embed against it, as a user would.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "caravan/checkpoint/safetensors.h"
#include "caravan/model_io/dump.h"
#include "tests/support/source_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = test::source_folder();
const fs::path kBuild = CARAVAN_BINARY_DIR;
const std::string kCmake = CARAVAN_CMAKE;

struct Outcome {
  int status;
  std::string text;  // both streams
};

Outcome run(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  Outcome outcome;
  std::array<char, 4096> buffer;
  while (const std::size_t count = fread(buffer.data(), 1, buffer.size(), pipe)) {
    outcome.text.append(buffer.data(), count);
  }
  outcome.status = pclose(pipe);
  return outcome;
}

std::string quoted(const fs::path& path) {
  return "'" + path.string() + "'";
}

class Embedding : public ::testing::Test {
 protected:
  // Once for all tests: it compiles.
  static void SetUpTestSuite() {
    fs::remove_all(folder());
    const Outcome install =
        run(kCmake + " --install " + quoted(kBuild) + " --component library --prefix " + quoted(prefix()));
    ASSERT_EQ(install.status, 0) << install.text;
    const Outcome configure = run(kCmake + " -S " + quoted(kSource / "examples/embed") + " -B " + quoted(build()) +
                                  " -G Ninja -DCMAKE_PREFIX_PATH=" + quoted(prefix()) + " " + CARAVAN_EMBED_FLAGS);
    ASSERT_EQ(configure.status, 0) << configure.text;
    const Outcome compile = run(kCmake + " --build " + quoted(build()) + " -v");
    ASSERT_EQ(compile.status, 0) << compile.text;
    EXPECT_EQ(compile.text.find("-I" + kSource.string()), std::string::npos)
        << "the example looks into Caravan's own tree:\n"
        << compile.text;
  }

  static fs::path folder() { return kBuild / "embed_test"; }
  static fs::path prefix() { return folder() / "prefix"; }
  static fs::path build() { return folder() / "build"; }
  static std::string program() { return quoted(build() / "next_token"); }
};

TEST_F(Embedding, TheExamplePredictsWhatTransformersPredicts) {
  const fs::path model = kSource / "tests/golden/models/mha_default";
  const model_io::IdLists ids = model_io::read_id_lists(model / "ids.json");
  const auto expected = checkpoint::SafetensorsFile::open(model / "expected.safetensors");
  for (std::size_t s = 0; s < ids.size(); ++s) {
    const checkpoint::TensorEntry* entry = expected.find("logits." + std::to_string(s));  // [tokens, vocab] f32
    ASSERT_NE(entry, nullptr);
    const auto vocab = static_cast<std::size_t>(entry->shape.back());
    std::vector<float> last(vocab);  // the mapped bytes need not be aligned
    std::memcpy(last.data(), expected.bytes(*entry).data() + (ids[s].size() - 1) * vocab * sizeof(float),
                vocab * sizeof(float));
    std::string words;
    for (const std::int32_t id : ids[s]) {
      words += " " + std::to_string(id);
    }
    const Outcome outcome = run(program() + " " + quoted(model) + words);
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.text, std::to_string(std::max_element(last.begin(), last.end()) - last.begin()) + "\n")
        << "sequence " << s;
  }
}

TEST_F(Embedding, TheExampleReportsErrorsInOneSentence) {
  const Outcome outcome = run(program() + " " + quoted(folder() / "nothing") + " 1");
  EXPECT_NE(outcome.status, 0);
  EXPECT_TRUE(outcome.text.starts_with("next_token: ")) << outcome.text;
  EXPECT_EQ(std::count(outcome.text.begin(), outcome.text.end(), '\n'), 1) << outcome.text;
}

TEST_F(Embedding, InstalledHeadersAreThePublicOnes) {
  const fs::path headers = prefix() / "include/caravan";
  EXPECT_TRUE(fs::exists(headers / "ops/linear.h"));
  for (const char* inside : {"ops/cpu", "ops/ref", "ops/args.h", "ops/dispatch.h", "ops/host_checks.h", "cli"}) {
    EXPECT_FALSE(fs::exists(headers / inside)) << inside;
  }
  // Every header that an installed one includes is installed too.
  int includes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(headers)) {
    std::ifstream in(entry.path());
    for (std::string line; entry.is_regular_file() && std::getline(in, line);) {
      if (line.starts_with("#include \"")) {
        const std::string name = line.substr(10, line.rfind('"') - 10);
        EXPECT_TRUE(fs::exists(prefix() / "include" / name)) << entry.path() << " includes " << name;
        ++includes;
      }
    }
  }
  EXPECT_GT(includes, 20);
}

}  // namespace
}  // namespace caravan
