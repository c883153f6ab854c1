#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/base/progress.h"
#include "caravan/base/text.h"
#include "caravan/base/threads.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/date_option.h"
#include "caravan/cli/shared_options.h"
#include "caravan/data/documents.h"
#include "caravan/model_io/model_tokenizer.h"
#include "caravan/tokenizer/bpe_trainer.h"
#include "caravan/tokenizer/chat_template.h"
#include "caravan/tokenizer/tokenizer.h"

namespace caravan::cli {

namespace {

using tokenizer::BpeTrainer;
using tokenizer::EncodeOptions;
using tokenizer::SplitPattern;
using tokenizer::Tokenizer;

using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kMaxChatBytes = std::int64_t{64} << 20;

Json utf8_json(std::string_view text, const std::string& source) {
  return parse_json(text, source, {.max_bytes = std::int64_t{1} << 30, .max_depth = 4, .max_values = 500'000'000});
}

Ids ids_of(const Json& json, const std::string& source) {
  const auto is_id = [](const Json& one) {
    return one.is_number_integer() && one <= std::numeric_limits<std::int32_t>::max() &&
           one >= std::numeric_limits<std::int32_t>::min();
  };
  if (!json.is_array() || !std::all_of(json.begin(), json.end(), is_id)) {
    throw InputError(fmt::format("{}: expected a JSON list of ids, as [1, 2, 3]", source));
  }
  return json.get<Ids>();
}

struct HowToTokenize {
  EncodeOptions encode;
  bool decode = false;
  bool ranges = false;
};

// A list of ids, or of [id, begin, end].
std::string encoded(const Tokenizer& tokenizer, const HowToTokenize& how, std::string_view text) {
  if (!how.ranges) {
    return Json(tokenizer.encode(text, how.encode)).dump();
  }
  const tokenizer::Encoding found = tokenizer.encode_with_ranges(text, how.encode);
  Json list = Json::array();
  for (std::size_t i = 0; i < found.ids.size(); ++i) {
    list.push_back({found.ids[i], found.ranges[i].begin, found.ranges[i].end});
  }
  return list.dump();
}

// One line of --jsonl, without its end.
std::string convert_line(const Tokenizer& tokenizer, const HowToTokenize& how, const std::string& line,
                         const std::string& source) {
  const Json json = utf8_json(line, source);
  if (how.decode) {
    // In ASCII: U+2028 ends a line for some readers of lines.
    return Json(tokenizer.decode(ids_of(json, source))).dump(-1, ' ', /*ensure_ascii=*/true);
  }
  if (!json.is_string()) {
    throw InputError(fmt::format("{}: expected a JSON string", source));
  }
  return encoded(tokenizer, how, json.get_ref<const std::string&>());
}

void convert_lines(const Tokenizer& tokenizer, const HowToTokenize& how, Streams streams) {
  std::string line;
  for (std::int64_t number = 1; std::getline(streams.in, line); ++number) {
    const std::string source = fmt::format("standard input, line {}", grouped(number));
    try {
      streams.out << convert_line(tokenizer, how, line, source) << "\n";
    } catch (const InputError& error) {
      const std::string what = error.what();
      throw InputError(what.starts_with(source) ? what : source + ": " + what);
    }
  }
}

// A data set as token shards, which training maps instead of tokenising again.
int write_token_shards(const ParsedOptions& options, Streams streams) {
  for (const char* other : {"--jsonl", "--decode", "--plain", "--no-add-special", "--ranges"}) {
    if (options.has(other)) {
      throw InputError(fmt::format("tokenize: {} is for standard input; --to-shards reads --data", other));
    }
  }
  std::optional<Tokenizer> tokenizer;
  data::PrepareOptions how;
  if (options.has("--tokenizer")) {
    tokenizer = model_io::load_tokenizer(options.path("--tokenizer"));
    how.tokenizer = &*tokenizer;
    how.vocab_size = tokenizer->vocab_size();
  }
  how.shard_tokens = options.integer("--shard-tokens").value();
  how.threads = static_cast<int>(options.integer("--threads").value_or(usable_cores()));
  std::optional<ProgressBar> bar;
  how.progress = [&](std::int64_t done, std::int64_t total) {
    if (!bar) {
      bar.emplace(streams.err, /*terminal=*/false, "reading", total);
    }
    bar->update(done);
  };
  const data::ShardSummary summary = data::write_shards(options.path("--data"), options.path("--to-shards"), how);
  streams.out << fmt::format("{}: {} tokens of {} documents in {} shard{}\n", options.text("--to-shards"),
                             grouped(summary.tokens), grouped(summary.documents), grouped(summary.shards),
                             summary.shards == 1 ? "" : "s");
  streams.out << fmt::format("next: caravan train CONFIG.toml --training.dataset_path {}\n",
                             options.text("--to-shards"));
  return 0;
}

// Messages through the chat template that stands beside the tokenizer.
int tokenize_chat(const ParsedOptions& options, Streams streams) {
  for (const char* other :
       {"--jsonl", "--decode", "--plain", "--no-add-special", "--ranges", "--to-shards", "--data"}) {
    if (options.has(other)) {
      throw InputError(fmt::format("tokenize: {} does not go with --chat", other));
    }
  }
  const std::string file = options.text("--chat");
  const std::string source = file == "-" ? "standard input" : file;
  const std::string text = text_of_input(file, streams, kMaxChatBytes);
  tokenizer::ChatRequest request =
      tokenizer::parse_chat_request(parse_json(text, source, {.max_bytes = kMaxChatBytes}), source);
  if (request.messages.empty()) {
    throw InputError(fmt::format("{}: there are no messages", source));
  }
  request.now = date_of(options);
  const std::filesystem::path path = options.path("--tokenizer");
  const std::optional<tokenizer::ChatTemplate> chat_template =
      model_io::load_chat_template(path, request.template_name, !request.tools.is_null());
  if (!chat_template) {
    throw InputError(
        fmt::format("{}: there is no chat template beside the tokenizer: neither chat_template.jinja nor "
                    "\"chat_template\" in tokenizer_config.json, nor in a GGUF file",
                    path.string()));
  }
  if (options.has("--text")) {
    streams.out << chat_template->render(request);
  } else {
    streams.out << Json(chat_template->encode(model_io::load_tokenizer(path), request)).dump() << "\n";
  }
  return 0;
}

int run_tokenize(const ParsedOptions& options, Streams streams) {
  if (options.has("--to-shards") != options.has("--data")) {
    throw InputError("tokenize: --to-shards DIR and --data PATH belong together");
  }
  if (options.has("--to-shards")) {
    return write_token_shards(options, streams);
  }
  if (options.has("--text") && !options.has("--chat")) {
    throw InputError("tokenize: --text shows what the template makes of --chat FILE.json; give both");
  }
  if (!options.has("--tokenizer")) {
    throw InputError("tokenize: option --tokenizer PATH is missing; caravan tokenize --help shows the usage");
  }
  if (options.has("--chat")) {
    return tokenize_chat(options, streams);
  }
  const Tokenizer tokenizer = model_io::load_tokenizer(options.path("--tokenizer"));
  const HowToTokenize how = {
      .encode = {.add_special = !options.has("--no-add-special"), .plain = options.has("--plain")},
      .decode = options.has("--decode"),
      .ranges = options.has("--ranges")};
  if (how.decode && how.ranges) {
    throw InputError("tokenize: --ranges shows where ids stand in a text; --decode has none");
  }
  if (options.has("--jsonl")) {
    convert_lines(tokenizer, how, streams);
  } else {
    const std::string input{std::istreambuf_iterator<char>(streams.in), std::istreambuf_iterator<char>()};
    if (how.decode) {
      streams.out << tokenizer.decode(ids_of(utf8_json(input, "standard input"), "standard input"));
    } else {
      streams.out << encoded(tokenizer, how, input) << "\n";
    }
  }
  if (streams.in.bad()) {
    throw FileError("standard input cannot be read");
  }
  return 0;
}

// The files themselves and every regular file below the directories, sorted.
std::vector<std::filesystem::path> text_files(const std::vector<std::string>& paths) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (const fs::path path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    std::vector<fs::path> below;
    fs::recursive_directory_iterator entry(path, error);
    for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
      if (entry->is_regular_file(error) && !error) {
        below.push_back(entry->path());
      }
    }
    if (error) {
      throw FileError(fmt::format("{}: the directory cannot be read: {}", path.string(), error.message()));
    }
    std::sort(below.begin(), below.end());
    files.insert(files.end(), below.begin(), below.end());
  }
  return files;
}

// Counts the words of every file; the bytes of them all.
std::int64_t read_files(const std::vector<std::filesystem::path>& files, BpeTrainer& trainer) {
  std::int64_t bytes = 0;
  for (const std::filesystem::path& path : files) {
    const MappedFile file = MappedFile::open(path);
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    try {
      trainer.add(text);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", path.string(), error.what()));
    }
    bytes += static_cast<std::int64_t>(text.size());
  }
  return bytes;
}

int run_tokenizer_train(const ParsedOptions& options, Streams streams) {
  const std::filesystem::path output = options.path("--output");
  tokenizer::TrainOptions how;
  how.vocab_size = options.integer("--vocab-size").value();
  how.min_frequency = options.integer("--min-frequency").value();
  how.pattern = options.text("--pattern") == "gpt2" ? SplitPattern::kGpt2 : SplitPattern::kLlama3;
  how.threads = static_cast<int>(options.integer("--threads").value_or(usable_cores()));
  std::int64_t tenths = 0;
  how.progress = [&](std::int64_t done, std::int64_t total) {
    if (done * 10 / total > tenths) {
      tenths = done * 10 / total;
      streams.err << fmt::format("caravan: {} of {} entries\n", grouped(done), grouped(total)) << std::flush;
    }
  };
  BpeTrainer trainer(how);
  // Refuses a target that exists before the work, not after it.
  AtomicDirectory directory(output, options.has("--replace"), 0);
  const std::vector<std::filesystem::path> files = text_files(options.values("FILES"));
  streams.err << fmt::format("caravan: counting the words of {} file{}\n", files.size(), files.size() == 1 ? "" : "s")
              << std::flush;
  const std::int64_t bytes = read_files(files, trainer);
  const tokenizer::TrainedTokenizer trained = trainer.train();
  write_text_file(directory.path() / "tokenizer.json", trained.tokenizer_json);
  write_text_file(directory.path() / "tokenizer_config.json", trained.tokenizer_config_json);
  directory.commit();
  streams.out << fmt::format("{}: {} entries learned from {} of text\n", output.string(), grouped(trained.vocab_size),
                             human_bytes(bytes));
  if (trained.vocab_size < how.vocab_size) {
    streams.out << fmt::format("the text has no more pairs that occur {} times; more text gives more entries\n",
                               how.min_frequency);
  }
  streams.out << fmt::format("next: caravan tokenize --tokenizer {} < FILE\n", output.string());
  return 0;
}

OptionSpec flag(const char* name, const char* help) {
  return {.name = name, .value_name = "", .kind = OptionKind::kFlag, .help = help};
}

}  // namespace

Command tokenize_command() {
  CommandSpec spec;
  spec.name = "tokenize";
  spec.summary = "turn text into token ids and back";
  spec.description =
      "Reads text from standard input and prints the list of its ids as JSON. Ids are those of Hugging Face's "
      "tokenizers for a tokenizer.json, of sentencepiece and of tiktoken for their tokenizer.model; the content of the "
      "file says which it is. With --chat it takes messages through the model's chat template, as transformers' "
      "apply_chat_template does: special tokens of the rendered text are read as such and none is added, so that BOS "
      "stands where the template writes it and not twice. With --to-shards it turns a whole data set into files of ids "
      "that training maps.";
  spec.options = {
      {.name = "--tokenizer",
       .value_name = "PATH",
       .kind = OptionKind::kFile,
       .help = "tokenizer.json, tokenizer.model or their directory, or a GGUF file (not needed for --data with ids)"},
      flag("--no-add-special", "no BOS, no EOS: the ids of the text alone"),
      flag("--plain", "special tokens written in the text are ordinary text"),
      flag("--ranges", "a list of [id, begin, end]: the bytes of the text that each id stands for"),
      flag("--jsonl", "a JSON string a line in, a list of ids a line out"),
      flag("--decode", "the other way: ids in, text out, as it is and without a newline added"),
      {.name = "--chat",
       .value_name = "FILE.json",
       .kind = OptionKind::kFile,
       .help = "a list of {role, content}, or an object with messages, tools, documents, add_generation_prompt, "
               "chat_template, chat_template_kwargs; - for standard input"},
      flag("--text", "print the text that the template makes of --chat, not its ids"),
      date_option(),
      {.name = "--to-shards",
       .value_name = "DIR",
       .kind = OptionKind::kDirectory,
       .help = "write the documents of --data as token shards into this new directory"},
      {.name = "--data",
       .value_name = "PATH",
       .kind = OptionKind::kFile,
       .help = "text, JSONL or a directory of them, as training.dataset_path takes it"},
      {.name = "--shard-tokens",
       .value_name = "N",
       .kind = OptionKind::kInteger,
       .help = "ids in one shard at most, unless a document is longer",
       .default_value = "67108864",
       .minimum = 1}};
  spec.examples = {"caravan tokenize --tokenizer DIR < play.txt",
                   "echo '[72, 105]' | caravan tokenize --tokenizer DIR/tokenizer.model --decode",
                   "caravan tokenize --tokenizer DIR --chat conversation.json --text",
                   "caravan tokenize --tokenizer DIR --data texts/ --to-shards shards"};
  return {spec, run_tokenize};
}

Command tokenizer_train_command() {
  CommandSpec spec;
  spec.name = "tokenizer train";
  spec.summary = "learn a byte-level BPE vocabulary from text";
  spec.description =
      "Writes tokenizer.json and tokenizer_config.json, which transformers and tokenizers load. Any text can be "
      "written "
      "in the vocabulary: it begins with <|begin_of_text|>, <|end_of_text|> and the 256 bytes.";
  spec.options = {{.name = "FILES",
                   .value_name = "",
                   .kind = OptionKind::kFile,
                   .help = "text files in UTF-8, or directories: every file below them is read",
                   .required = true,
                   .positional = true,
                   .variadic = true},
                  {.name = "--vocab-size",
                   .value_name = "N",
                   .kind = OptionKind::kInteger,
                   .help = "entries of the vocabulary",
                   .required = true,
                   .minimum = 1},
                  {.name = "--output",
                   .value_name = "DIR",
                   .kind = OptionKind::kDirectory,
                   .help = "the directory to make",
                   .required = true},
                  {.name = "--pattern",
                   .value_name = "NAME",
                   .kind = OptionKind::kChoice,
                   .help = "how text is cut into words before bytes are merged",
                   .default_value = "llama3",
                   .choices = {"llama3", "gpt2"}},
                  {.name = "--min-frequency",
                   .value_name = "N",
                   .kind = OptionKind::kInteger,
                   .help = "a pair that occurs less often is not merged",
                   .default_value = "2",
                   .minimum = 1},
                  flag("--replace", "replace DIR if it exists")};
  spec.examples = {"caravan tokenizer train texts/ --vocab-size 4096 --output tokenizer"};
  return {spec, run_tokenizer_train};
}

}  // namespace caravan::cli
