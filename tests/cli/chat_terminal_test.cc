// caravan chat at a terminal: keys that edit, Ctrl-C that stops an answer and not the program.
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include "tests/cli/chat_model.h"

namespace caravan::cli {
namespace {

using Words = std::vector<std::string>;

constexpr int kWaitSeconds = 60;  // for anything to appear; other programs may use the machine

// The program on a pseudo terminal.
class Terminal {
 public:
  explicit Terminal(const Words& arguments) {
    struct winsize size {};
    size.ws_row = 24;
    size.ws_col = 80;
    child_ = forkpty(&terminal_, nullptr, nullptr, &size);
    if (child_ == 0) {
      setenv("TERM", "vt100", 1);
      setenv("LC_ALL", "C.UTF-8", 1);
      setenv("HOME", "/nonexistent", 1);
      std::vector<char*> words;
      for (const std::string& one : arguments) {
        words.push_back(const_cast<char*>(one.c_str()));
      }
      words.push_back(nullptr);
      execv(words[0], words.data());
      _exit(127);
    }
  }
  ~Terminal() {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
    close(terminal_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void type(const std::string& keys) {
    EXPECT_EQ(write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }

  // Reads until `text` has appeared since the last call; what came until then.
  std::string wait_for(const std::string& text) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(kWaitSeconds);
    while (std::chrono::steady_clock::now() < end) {
      if (const std::size_t found = seen_.find(text); found != std::string::npos) {
        std::string until = seen_.substr(0, found + text.size());
        seen_.erase(0, found + text.size());
        return until;
      }
      if (!read_more()) {
        break;
      }
    }
    ADD_FAILURE() << "\"" << text << "\" did not appear after: " << seen_;
    return seen_;
  }

  // Reads until so many bytes have come since the last call: whoever is that far into an answer is speaking.
  void wait_for_bytes(std::size_t count) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(kWaitSeconds);
    while (seen_.size() < count && read_more()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "nothing was said but: " << seen_;
    }
    seen_.clear();
  }

  // The exit status, or -1 when it does not end or was killed.
  int status() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(kWaitSeconds);
    while (std::chrono::steady_clock::now() < end) {
      int status = 0;
      if (waitpid(child_, &status, WNOHANG) == child_) {
        child_ = 0;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      }
      read_more();
    }
    return -1;
  }

 private:
  bool read_more() {
    struct pollfd ready = {terminal_, POLLIN, 0};
    if (poll(&ready, 1, 100) <= 0) {
      return true;
    }
    char buffer[4096];
    const ssize_t count = read(terminal_, buffer, sizeof(buffer));
    if (count <= 0) {
      return false;
    }
    seen_.append(buffer, static_cast<std::size_t>(count));
    return true;
  }

  pid_t child_ = 0;
  int terminal_ = -1;
  std::string seen_;
};

class ChatTerminal : public testing::Test {
 protected:
  Words command(const Words& more = {}) const {
    Words words = {CARAVAN_PROGRAM, "chat", "--threads", "1", "--greedy", "--model", model_};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  std::string file(const std::string& name) const { return (scratch_.path() / name).string(); }
  // The messages that /save wrote.
  nlohmann::ordered_json saved(const std::string& name) const {
    return nlohmann::ordered_json::parse(test::read_file(file(name))).at("messages");
  }

  test::ScratchDirectory scratch_;
  // A million positions: an answer that nobody stops goes on for hours.
  const std::string model_ = test::make_chat_model(scratch_.path(), 1'000'000);
};

TEST_F(ChatTerminal, KeysEditTheLineAndBringEarlierOnesBack) {
  Terminal terminal(command({"--max-new-tokens", "3"}));
  EXPECT_NE(terminal.wait_for("> ").find("context of 1,000,000 tokens"), std::string::npos);
  // "hélo", one to the left, another l, to the beginning, an o and one of it taken back.
  terminal.type("h\xC3\xA9lo\x1b[Dl\x01oH\x08\x08\r");
  terminal.wait_for("> ");
  terminal.type("\x1b[A there\r");  // the line before, and more
  terminal.wait_for("> ");
  terminal.type("/save " + file("talk.json") + "\r");
  terminal.wait_for("4 messages saved");
  terminal.type("\x04");  // Ctrl-D
  EXPECT_EQ(terminal.status(), 0);
  EXPECT_EQ(saved("talk.json")[0].at("content"), "h\xC3\xA9llo");
  EXPECT_EQ(saved("talk.json")[2].at("content"), "h\xC3\xA9llo there");
}

TEST_F(ChatTerminal, CtrlCStopsAnAnswerAndASecondOneLeaves) {
  Terminal terminal(command());
  terminal.wait_for("> ");
  terminal.type("Hello\r");
  terminal.wait_for_bytes(200);  // more than the echo of a line
  terminal.type("\x03");
  terminal.wait_for("> ");
  terminal.type("/save " + file("talk.json") + "\r");
  terminal.wait_for("2 messages saved");
  terminal.wait_for("> ");
  EXPECT_NE(saved("talk.json")[1].at("content"), "") << "what was said stays";
  // The conversation goes on after it.
  terminal.type("More\r");
  terminal.wait_for_bytes(200);
  terminal.type("\x03");
  terminal.wait_for("> ");
  terminal.type("\x03");
  EXPECT_EQ(terminal.status(), 0) << "the second one leaves";
}

TEST_F(ChatTerminal, CtrlDDuringAnAnswerLeavesBehindIt) {
  Terminal terminal(command({"--max-new-tokens", "2000"}));
  terminal.wait_for("> ");
  terminal.type("Hello\r");
  terminal.wait_for_bytes(200);
  terminal.type("\x04");
  EXPECT_EQ(terminal.status(), 0);
}

TEST_F(ChatTerminal, CtrlCAtThePromptTakesTheLineBackFirst) {
  Terminal terminal(command({"--max-new-tokens", "3"}));
  terminal.wait_for("> ");
  terminal.type("half a mess\x03");
  terminal.wait_for("Ctrl-C once more leaves");
  terminal.wait_for("> ");
  terminal.type("Hello\r");
  terminal.wait_for("> ");
  terminal.type("/save " + file("talk.json") + "\r");
  terminal.wait_for("2 messages saved");
  EXPECT_EQ(saved("talk.json")[0].at("content"), "Hello") << "the half one is gone";
  terminal.wait_for("> ");
  terminal.type("\x03");
  terminal.wait_for("> ");
  terminal.type("\x03");
  EXPECT_EQ(terminal.status(), 0);
}

TEST_F(ChatTerminal, KeepsTypedLinesInAFileOnlyWhenAsked) {
  {
    Terminal terminal(command({"--max-new-tokens", "3", "--history", file("lines")}));
    terminal.wait_for("> ");
    terminal.type("remember me\r");
    terminal.wait_for("> ");
    terminal.type("/exit\r");
    EXPECT_EQ(terminal.status(), 0);
  }
  EXPECT_NE(test::read_file(file("lines")).find("remember"), std::string::npos);
  {
    Terminal terminal(command({"--max-new-tokens", "3", "--history", file("lines")}));
    terminal.wait_for("> ");
    terminal.type("\x1b[A\x1b[A\r");  // /exit, and the line before it
    terminal.wait_for("> ");
    terminal.type("/save " + file("talk.json") + "\r");
    terminal.wait_for("2 messages saved");
    terminal.type("\x04");
    EXPECT_EQ(terminal.status(), 0);
  }
  EXPECT_EQ(saved("talk.json")[0].at("content"), "remember me");
  test::write_file(file("other"), "not a history\n");
  Terminal terminal(command({"--history", file("other")}));
  terminal.wait_for("is not a history");
  EXPECT_EQ(terminal.status(), 2);
  EXPECT_EQ(test::read_file(file("other")), "not a history\n");
}

}  // namespace
}  // namespace caravan::cli
