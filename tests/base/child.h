// Code that runs in a child process, for tests that lower limits which cannot be raised again.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>
#include <string>

namespace caravan::test {

// What `body` returned in a child process, or "threw: ..." with its exception's message.
template <typename Body>
std::string in_child(const Body& body) {
  int ends[2] = {-1, -1};
  if (pipe(ends) != 0) {
    return "no pipe";
  }
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    std::string answer;
    try {
      answer = body();
    } catch (const std::exception& error) {
      answer = std::string("threw: ") + error.what();
    }
    [[maybe_unused]] const ssize_t written = write(ends[1], answer.data(), answer.size());
    _exit(0);
  }
  close(ends[1]);
  std::string answer;
  char buffer[4096];
  for (ssize_t count = 0; (count = read(ends[0], buffer, sizeof buffer)) > 0;) {
    answer.append(buffer, static_cast<std::size_t>(count));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status)) << "the child ended with wait status " << status;
  return answer;
}

}  // namespace caravan::test
