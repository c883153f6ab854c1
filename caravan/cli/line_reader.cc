#include "caravan/cli/line_reader.h"

#include <fmt/format.h>
#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstring>

#include "caravan/base/error.h"

namespace caravan::cli {

namespace {

constexpr int kHistoryLines = 1000;
constexpr unsigned char kControlD = 0x04;
// How soon a signal is seen that came just before the wait for a key, or that another thread took.
constexpr int kWaitMilliseconds = 100;

class StreamReader final : public LineReader {
 public:
  explicit StreamReader(std::istream& in) : in_(in) {}

  ReadLine read(const std::string&) override {
    ReadLine result;
    if (std::getline(in_, result.text)) {
      result.kind = ReadLine::Kind::kLine;
    } else if (in_.bad()) {
      throw FileError("standard input cannot be read");
    }
    return result;
  }

 private:
  std::istream& in_;
};

// How many bytes the character has that begins so; 0: none begins so.
int length_of_character(unsigned char first) {
  return first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
}

// libedit, which writes characters as the locale says.
class TerminalReader final : public LineReader {
 public:
  TerminalReader(const std::atomic<int>& interrupts, std::filesystem::path history)
      : interrupts_(interrupts), history_file_(std::move(history)) {
    // The program's texts are UTF-8, whatever the environment says or leaves out.
    if (std::setlocale(LC_CTYPE, "") == nullptr || std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) {
      std::setlocale(LC_CTYPE, "C.UTF-8");
    }
    history_ = history_init();
    editor_ = el_init("caravan", stdin, stdout, stderr);
    if (history_ == nullptr || editor_ == nullptr) {
      throw FileError("the terminal cannot be used for editing lines");
    }
    HistEvent event{};
    ::history(history_, &event, H_SETSIZE, kHistoryLines);
    ::history(history_, &event, H_SETUNIQUE, 1);
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(editor_, EL_PROMPT, prompt_of);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_HIST, ::history, history_);
    el_set(editor_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_set(editor_, EL_GETCFN, next_character);
    el_source(editor_, nullptr);
    load();
  }

  ~TerminalReader() override {
    if (!history_file_.empty()) {
      HistEvent event{};
      ::history(history_, &event, H_SAVE, history_file_.c_str());
    }
    el_end(editor_);
    history_end(history_);
  }

  ReadLine read(const std::string& prompt) override {
    prompt_ = prompt;
    interrupts_seen_ = interrupts_.load();
    el_resize(editor_);  // the window may have changed while nobody was typing
    int count = 0;
    errno = 0;
    const char* line = el_gets(editor_, &count);
    if (interrupts_.load() > interrupts_seen_) {
      const LineInfo* left = el_line(editor_);
      std::string typed(left->buffer, left->lastchar);
      std::fputs("\n", stdout);
      std::fflush(stdout);
      el_reset(editor_);
      return {ReadLine::Kind::kInterrupted, std::move(typed)};
    }
    if (line == nullptr || count <= 0) {
      std::fputs("\n", stdout);
      std::fflush(stdout);
      return {};
    }
    std::string text(line, static_cast<std::size_t>(count));
    if (text.find_first_not_of(" \t\r\n") != std::string::npos) {
      HistEvent event{};
      ::history(history_, &event, H_ENTER, text.c_str());
    }
    while (text.ends_with('\n') || text.ends_with('\r')) {
      text.pop_back();
    }
    return {ReadLine::Kind::kLine, std::move(text)};
  }

 private:
  static TerminalReader& self_of(EditLine* editor) {
    void* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return *static_cast<TerminalReader*>(self);
  }

  static char* prompt_of(EditLine* editor) { return self_of(editor).prompt_.data(); }

  // libedit's own reader would go on after a signal; this one gives up the line.
  static int next_character(EditLine* editor, wchar_t* character) {
    TerminalReader& self = self_of(editor);
    unsigned char bytes[4];
    int length = 1;
    for (int have = 0; have < length;) {
      if (self.interrupts_.load() > self.interrupts_seen_) {
        errno = EINTR;
        return -1;
      }
      // A read would be taken up again after the signal; this wait is not.
      struct pollfd keys = {STDIN_FILENO, POLLIN, 0};
      const int ready = ::poll(&keys, 1, kWaitMilliseconds);
      if (ready == 0 || (ready < 0 && errno == EINTR)) {
        continue;
      }
      const ssize_t got = ready < 0 ? -1 : ::read(STDIN_FILENO, bytes + have, 1);
      if (got == 0) {
        return 0;
      }
      if (got < 0 && errno != EINTR) {
        return -1;
      }
      if (got > 0) {
        // Ctrl-D that was typed while no line was being read stands in the terminal's queue as this.
        if (have == 0 && bytes[0] == 0) {
          bytes[0] = kControlD;
        }
        length = have == 0 ? length_of_character(bytes[0]) : length;
        ++have;
      }
    }
    *character = length == 0 ? L'?' : decoded(bytes, length);
    return 1;
  }

  static wchar_t decoded(const unsigned char* bytes, int length) {
    constexpr unsigned char kFirstBits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    auto value = static_cast<wchar_t>(bytes[0] & kFirstBits[length]);
    for (int i = 1; i < length; ++i) {
      if ((bytes[i] & 0xC0) != 0x80) {
        return L'?';
      }
      value = value << 6 | (bytes[i] & 0x3F);
    }
    return value;
  }

  void load() {
    std::error_code ignored;
    if (history_file_.empty() || !std::filesystem::exists(history_file_, ignored)) {
      return;
    }
    HistEvent event{};
    if (::history(history_, &event, H_LOAD, history_file_.c_str()) == -1) {
      const std::string name = history_file_.string();
      history_file_.clear();  // it is somebody else's: nothing is written over it
      throw InputError(fmt::format("{}: is not a history of lines that this program wrote", name));
    }
  }

  const std::atomic<int>& interrupts_;
  std::filesystem::path history_file_;
  std::string prompt_;
  int interrupts_seen_ = 0;
  History* history_ = nullptr;
  EditLine* editor_ = nullptr;
};

}  // namespace

std::unique_ptr<LineReader> stream_reader(std::istream& in) {
  return std::make_unique<StreamReader>(in);
}

std::unique_ptr<LineReader> terminal_reader(const std::atomic<int>& interrupts, const std::filesystem::path& history) {
  return std::make_unique<TerminalReader>(interrupts, history);
}

}  // namespace caravan::cli
