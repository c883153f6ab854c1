#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/progress.h"
#include "caravan/base/text.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/date_option.h"
#include "caravan/cli/line_reader.h"
#include "caravan/cli/sampling_options.h"
#include "caravan/cli/shared_options.h"
#include "caravan/generate/chat_session.h"
#include "caravan/model_io/generation_config.h"
#include "caravan/model_io/model_files.h"
#include "caravan/model_io/model_tokenizer.h"
#include "caravan/tokenizer/chat_template.h"
#include "caravan/tokenizer/tokenizer.h"

namespace caravan::cli {

namespace {

using generate::ChatAnswer;
using generate::ChatSession;
using generate::FinishReason;

constexpr std::int64_t kMaxConversationBytes = std::int64_t{64} << 20;
constexpr const char* kFence = "\"\"\"";

constexpr const char* kHelp =
    "/help          show this\n"
    "/reset         begin a new conversation; the system message stays\n"
    "/system TEXT   tell the model how to behave; without TEXT: nothing any more\n"
    "/save FILE     write the conversation as JSON\n"
    "/load FILE     go on with a conversation that was saved\n"
    "/exit          leave, as Ctrl-D does\n"
    "A message of several lines stands between two lines of \"\"\".  A message that begins with / is written with //.\n"
    "Ctrl-C stops an answer; at the prompt, a second one leaves.\n";

// Signal handlers reach nothing but globals; this one is set by the handler below.
std::atomic<int> interrupts{0};

extern "C" void on_interrupt(int) {
  interrupts.fetch_add(1);
}

// SIGINT is counted as long as the object lives.  Writing goes on after it: what was said must not end in an error.
class Interrupts {
 public:
  Interrupts() {
    interrupts = 0;
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &former_);
  }
  ~Interrupts() { sigaction(SIGINT, &former_, nullptr); }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

 private:
  struct sigaction former_ {};
};

// The loop of lines and answers.
class Chat {
 public:
  Chat(ChatSession& session, LineReader& reader, Streams streams, bool terminal, bool json)
      : session_(session), reader_(reader), streams_(streams), terminal_(terminal), json_(json) {}

  // 0, or 1 when a line of a script went wrong.
  int run() {
    while (!done_) {
      const ReadLine line = reader_.read("> ");
      if (line.kind == ReadLine::Kind::kEnd) {
        break;
      }
      if (line.kind == ReadLine::Kind::kInterrupted) {
        interrupted_at_prompt(line.text);
        continue;
      }
      interrupted_ = false;
      try {
        take(line.text);
      } catch (const OutOfMemoryError& error) {
        complain(fmt::format("{}; begin anew with /reset, or end and start with a smaller --context", error.what()));
      } catch (const Error& error) {
        complain(error.what());
      }
      if (!streams_.out) {
        break;  // nobody reads any more
      }
    }
    return failed_ && !terminal_ ? 1 : 0;
  }

 private:
  void complain(const std::string& sentence) {
    failed_ = true;
    streams_.out << std::flush;
    streams_.err << "caravan: " << sentence << "\n" << std::flush;
  }

  // Words of the program: what reads the output of a script finds answers there and nothing else.
  void say(const std::string& text) { (terminal_ && !json_ ? streams_.out : streams_.err) << text << std::flush; }

  void interrupted_at_prompt(const std::string& typed) {
    if (interrupted_ && typed.empty()) {
      done_ = true;
      return;
    }
    interrupted_ = true;
    say("Ctrl-C once more leaves, as /exit does\n");
  }

  void take(const std::string& line) {
    const std::size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos) {
      return;
    }
    if (line.compare(begin, std::string::npos, kFence) == 0) {
      if (const std::optional<std::string> text = fenced()) {
        answer(*text);
      }
    } else if (line.compare(begin, 2, "//") == 0) {
      answer(line.substr(begin + 1));
    } else if (line[begin] == '/') {
      command(line.substr(begin));
    } else {
      answer(line);
    }
  }

  // The lines up to the next fence; nothing when they were interrupted.
  std::optional<std::string> fenced() {
    std::string text;
    for (bool first = true;; first = false) {
      const ReadLine line = reader_.read("... ");
      if (line.kind == ReadLine::Kind::kInterrupted) {
        return std::nullopt;
      }
      if (line.kind == ReadLine::Kind::kEnd || line.text == kFence) {
        return text;
      }
      text += (first ? "" : "\n") + line.text;
    }
  }

  void answer(const std::string& message) {
    const int before = interrupts.load();
    const ChatAnswer answer = session_.answer(message, [&](std::string_view piece) {
      if (!json_ && !piece.empty()) {
        streams_.out << (terminal_ ? terminal_text(std::string(piece)) : std::string(piece)) << std::flush;
      }
      return static_cast<bool>(streams_.out) && interrupts.load() == before;
    });
    interrupted_ = answer.reason == FinishReason::kStopped;
    if (json_) {
      print_json(answer);
    } else {
      streams_.out << "\n" << std::flush;
    }
    if (answer.context_full) {
      complain(fmt::format("the context of {} tokens is full and the answer ends here; begin anew with /reset",
                           grouped(session_.context())));
    }
  }

  void print_json(const ChatAnswer& answer) {
    Json json = Json::object();
    json["prompt_ids"] = answer.prompt;
    json["ids"] = answer.ids;
    json["text"] = answer.text;
    json["finish_reason"] = generate::to_string(answer.reason);
    json["ids_run"] = answer.ids_run;
    streams_.out << json.dump() << "\n" << std::flush;
  }

  void command(const std::string& line) {
    const std::size_t space = std::min(line.find_first_of(" \t"), line.size());
    const std::string name = line.substr(0, space);
    const std::size_t begin = line.find_first_not_of(" \t", space);
    std::string rest = begin == std::string::npos ? "" : line.substr(begin);
    rest.erase(rest.find_last_not_of(" \t\r") + 1);
    const bool plain = name == "/help" || name == "/reset" || name == "/exit";
    if (plain && !rest.empty()) {
      throw InputError(fmt::format("{} takes nothing behind it, found \"{}\"", name, printable(rest, 60)));
    }
    if (name == "/help") {
      say(kHelp);
    } else if (name == "/reset") {
      session_.reset();
      say("a new conversation\n");
    } else if (name == "/exit") {
      done_ = true;
    } else if (name == "/system") {
      session_.set_system(rest);
      say(rest.empty() ? "no system message any more\n" : "the system message is set\n");
    } else if (name == "/save") {
      save(rest);
    } else if (name == "/load") {
      load(rest);
    } else {
      unknown(name);
    }
  }

  [[noreturn]] static void unknown(const std::string& name) {
    const std::vector<std::string> names = {"/help", "/reset", "/system", "/save", "/load", "/exit"};
    const std::optional<std::string> near = nearest_word(name, names);
    throw InputError(
        fmt::format("there is no command {}{}; /help lists them, and a message that begins with / is "
                    "written with //",
                    printable(name, 60), near ? ", did you mean " + *near + "?" : ""));
  }

  void save(const std::string& file) {
    if (file.empty()) {
      throw InputError("/save needs the name of a file behind it");
    }
    write_text_file(file, Json{{"messages", session_.messages()}}.dump(2) + "\n");
    say(fmt::format("{} messages saved in {}\n", session_.messages().size(), file));
  }

  void load(const std::string& file) {
    if (file.empty()) {
      throw InputError("/load needs the name of a file behind it");
    }
    const Json json = parse_json(read_text_file(file, kMaxConversationBytes), file);
    session_.load(tokenizer::parse_chat_request(json, file).messages, file);
    say(fmt::format("{} messages loaded from {}\n", session_.messages().size(), file));
  }

  ChatSession& session_;
  LineReader& reader_;
  Streams streams_;
  bool terminal_;
  bool json_;
  bool done_ = false;
  bool failed_ = false;
  bool interrupted_ = false;  // the last thing that the user did was Ctrl-C
};

// What a conversation cannot do without, told apart in one sentence each.
tokenizer::ChatTemplate template_of(const ParsedOptions& options) {
  const std::string shown = options.text("--model");
  std::optional<tokenizer::ChatTemplate> found = model_io::load_chat_template(options.path("--model"));
  if (!found) {
    throw InputError(
        fmt::format("{}: has no chat template: it is a base model, which continues a text and does not answer; use: "
                    "caravan generate --model {} --prompt TEXT",
                    shown, shell_word(shown)));
  }
  return *found;
}

int run_chat(const ParsedOptions& options, Streams streams) {
  const model_io::HfConfig config = model_io::read_model_config(options.path("--model"));
  const tokenizer::ChatTemplate chat_template = template_of(options);
  const model_io::GenerationConfig generation = generation_of(options);
  const tokenizer::Tokenizer words = model_io::load_tokenizer(options.path("--model"));
  generate::ChatOptions how;
  how.sampling = sampling_of(options, generation, /*as_suggested=*/true);
  how.max_new_tokens = options.integer("--max-new-tokens").value_or(generation.max_new_tokens.value_or(0));
  how.context = options.integer("--context").value_or(0);
  how.eos = eos_of(generation, config);
  how.now = date_of(options);

  ops::Context ctx = context_for(options, /*dry_run=*/false);
  const model_io::LoadedModel model =
      model_io::load_model(ctx, options.path("--model"), compute_dtype_of(options), load_options(options));
  print_warnings(streams, generation.warnings);
  print_warnings(streams, model.warnings);
  ChatSession session(ctx, *model.llama, words, chat_template, how);
  if (options.has("--system")) {
    session.set_system(options.text("--system"));
  }

  const bool terminal =
      &streams.in == &std::cin && &streams.out == &std::cout && isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0;
  if (!terminal) {
    const std::unique_ptr<LineReader> reader = stream_reader(streams.in);
    return Chat(session, *reader, streams, terminal, options.has("--json")).run();
  }
  const Interrupts signals;
  const std::unique_ptr<LineReader> reader = terminal_reader(interrupts, options.path("--history"));
  streams.out << fmt::format("{}, context of {} tokens; /help lists the commands\n", options.text("--model"),
                             grouped(session.context()))
              << std::flush;
  return Chat(session, *reader, streams, terminal, options.has("--json")).run();
}

}  // namespace

Command chat_command() {
  CommandSpec spec;
  spec.name = "chat";
  spec.summary = "hold a conversation with a model";
  spec.description =
      "Answers messages, one a line, through the model's chat template, and prints answers as they come. Earlier turns "
      "stay in the cache, so that only what is new is computed. /help lists the commands; Ctrl-C stops an answer. "
      "Lines "
      "from a file or a pipe are answered as well. A model without a template (a base model) is for caravan generate.";
  spec.options = {
      model_option(),
      {.name = "--system", .value_name = "TEXT", .kind = OptionKind::kText, .help = "how the model is to behave"},
      {.name = "--max-new-tokens",
       .value_name = "N",
       .kind = OptionKind::kInteger,
       .help = "how many tokens an answer has at most",
       .default_note = "generation_config.json's, else what room there is",
       .minimum = 1},
      {.name = "--context",
       .value_name = "N",
       .kind = OptionKind::kInteger,
       .help = "how many tokens the conversation has at most; the cache grows up to them",
       .default_note = "what the model takes",
       .minimum = 2},
  };
  for (OptionSpec& option : sampling_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.options.push_back(date_option());
  spec.options.push_back({.name = "--history",
                          .value_name = "FILE",
                          .kind = OptionKind::kFile,
                          .help = "keep the lines that were typed in this file for the next time"});
  spec.options.push_back({.name = "--json",
                          .value_name = "",
                          .kind = OptionKind::kFlag,
                          .help = "print one JSON object an answer: prompt_ids, ids, text, finish_reason, ids_run"});
  spec.options.push_back(compute_dtype_option("auto"));
  for (OptionSpec& option : numerics_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.examples = {"caravan chat --model FILE.gguf",
                   "caravan chat --model DIR --system \"Answer in one sentence.\" --temperature 0.7",
                   "printf 'Hello\\nAnd now in French\\n' | caravan chat --model DIR --greedy"};
  return {spec, run_chat};
}

}  // namespace caravan::cli
