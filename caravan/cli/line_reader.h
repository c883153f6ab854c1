// Lines from a person at a terminal, with editing and history, or from a stream.
#pragma once

#include <atomic>
#include <filesystem>
#include <istream>
#include <memory>
#include <string>

namespace caravan::cli {

struct ReadLine {
  enum class Kind {
    kLine,         // text: the line without its end
    kEnd,          // nothing follows
    kInterrupted,  // Ctrl-C; what was typed is gone, text: what it was
  };
  Kind kind = Kind::kEnd;
  std::string text;
};

class LineReader {
 public:
  virtual ~LineReader() = default;
  // `prompt` stands in front of the line on a terminal.
  virtual ReadLine read(const std::string& prompt) = 0;
};

// Lines of a stream as they are; no prompt is shown.
std::unique_ptr<LineReader> stream_reader(std::istream& in);

// Lines from standard input, which must be a terminal, as standard output must be.  Keys are those of Emacs unless ~/.editrc
// says otherwise; earlier lines come back with the arrows and Ctrl-R.  `interrupts` counts SIGINT: the handler should let
// system calls be taken up again, since a stream that is being written knows no other failure than a lasting one.
// `history`: where lines are read from and written to when the object goes; empty:
// they are kept in memory alone.  Throws InputError when the file is no history.
std::unique_ptr<LineReader> terminal_reader(const std::atomic<int>& interrupts, const std::filesystem::path& history);

}  // namespace caravan::cli
