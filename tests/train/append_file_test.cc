#include "caravan/train/append_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan::train {
namespace {

TEST(AppendFile, GoesOnWhereTheFileEnds) {
  const test::ScratchDirectory scratch;
  const auto path = scratch.path() / "log";
  AppendFile(path).append("one\n");
  AppendFile(path).append("two\n");
  EXPECT_EQ(test::read_file(path), "one\ntwo\n");
  EXPECT_THROW(AppendFile(path, /*fresh=*/true), FileError);
  EXPECT_THROW(AppendFile(scratch.path() / "no" / "log"), FileError);
}

TEST(AppendFile, LeavesNoPieceOfARecordThatDidNotFitAndWritesItLater) {
  const test::ScratchDirectory scratch;
  const auto path = scratch.path() / "log";
  AppendFile file(path);
  file.append("12345678\n");
  // As a full disk does: of the next record only 3 bytes fit.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 12;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = test::message_of<FileError>([&] { file.append("abcdefgh\n"); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("took 3 of 9 bytes"), std::string::npos) << message;
  EXPECT_EQ(test::read_file(path), "12345678\n");
  file.append("next\n");
  EXPECT_EQ(test::read_file(path), "12345678\nabcdefgh\nnext\n") << "kept until there is room";
}

}  // namespace
}  // namespace caravan::train
