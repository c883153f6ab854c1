#include "caravan/base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <set>

#include "caravan/base/error.h"
#include "tests/base/child.h"
#include "tests/support/scratch.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using test::in_child;
using test::message_of;
using test::read_file;
using test::write_file;

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

using Names = std::set<std::string>;

void expect_contains(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" expected in: " << message;
}

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

class MappedFileTest : public testing::Test {
 protected:
  test::ScratchDirectory scratch_;
};

TEST_F(MappedFileTest, ShowsTheBytesOfTheFile) {
  const fs::path path = scratch_.path() / "a";
  write_file(path, std::string("ab\0c", 4));
  const MappedFile file = MappedFile::open(path);
  EXPECT_EQ(text_of(file), std::string("ab\0c", 4));
  EXPECT_EQ(file.path(), path);
}

TEST_F(MappedFileTest, TheOwnerKeepsTheMappingAlive) {
  const fs::path path = scratch_.path() / "a";
  write_file(path, "bytes");
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
  {
    const MappedFile file = MappedFile::open(path);
    owner = file.owner();
    bytes = file.bytes();
  }
  fs::remove(path);
  EXPECT_EQ(bytes[4], std::byte{'s'});
}

TEST_F(MappedFileTest, AnEmptyFileHasNoBytes) {
  write_file(scratch_.path() / "a", "");
  EXPECT_TRUE(MappedFile::open(scratch_.path() / "a").bytes().empty());
}

TEST_F(MappedFileTest, RefusesWhatIsNoRegularFile) {
  const fs::path missing = scratch_.path() / "missing";
  const std::string message = message_of<FileError>([&] { MappedFile::open(missing); });
  expect_contains(message, missing.string());
  expect_contains(message, "No such file or directory");
  expect_contains(message_of<FileError>([&] { MappedFile::open(scratch_.path()); }), "is a directory");
  const fs::path pipe = scratch_.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  expect_contains(message_of<FileError>([&] { MappedFile::open(pipe); }), "a device or pipe");
}

TEST_F(MappedFileTest, NoDescriptorStaysOpen) {
  write_file(scratch_.path() / "a", "bytes");
  const std::size_t before = names_in("/proc/self/fd").size();
  const MappedFile file = MappedFile::open(scratch_.path() / "a");
  EXPECT_EQ(names_in("/proc/self/fd").size(), before);
}

TEST_F(MappedFileTest, ReadTextFileReadsUpToItsLimit) {
  const fs::path path = scratch_.path() / "a";
  const std::string text(200000, 'x');
  write_file(path, text);
  EXPECT_EQ(read_text_file(path, 200000), text);
  expect_contains(message_of<FormatError>([&] { read_text_file(path, 199999); }), "longer than the 199,999 bytes");
  write_file(path, "");
  EXPECT_EQ(read_text_file(path, 0), "");
  EXPECT_FALSE(read_text_file("/proc/self/status", 1 << 20).empty());  // a file whose size is given as zero
  expect_contains(message_of<FileError>([&] { read_text_file(scratch_.path() / "missing", 9); }), "No such file");
  expect_contains(message_of<FileError>([&] { read_text_file(scratch_.path(), 9); }), "Is a directory");
}

class AtomicFileTest : public testing::Test {
 protected:
  test::ScratchDirectory scratch_;
  fs::path target_ = scratch_.path() / "target";
};

TEST_F(AtomicFileTest, AppearsOnlyWithCommit) {
  AtomicFile file(target_);
  file.write("one ");
  file.write("two");
  EXPECT_EQ(file.bytes_written(), 7);
  EXPECT_FALSE(fs::exists(target_));
  for (const std::string& name : names_in(scratch_.path())) {
    EXPECT_EQ(name[0], '.') << "the neighbour must be hidden";
  }
  file.commit();
  EXPECT_EQ(read_file(target_), "one two");
  EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
}

TEST_F(AtomicFileTest, WithoutCommitEverythingIsAsItWas) {
  write_file(target_, "before");
  {
    AtomicFile file(target_);
    file.write("after");
  }
  EXPECT_EQ(read_file(target_), "before");
  EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
}

TEST_F(AtomicFileTest, ReplacesAFileAndKeepsItsPermissions) {
  write_file(target_, "before");
  fs::permissions(target_, fs::perms::owner_read | fs::perms::owner_write);
  write_text_file(target_, "after");
  EXPECT_EQ(read_file(target_), "after");
  EXPECT_EQ(fs::status(target_).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(AtomicFileTest, AReaderOfTheOldFileKeepsIt) {
  write_file(target_, "before");
  const MappedFile old = MappedFile::open(target_);
  write_text_file(target_, "after!");
  EXPECT_EQ(text_of(old), "before");
}

TEST_F(AtomicFileTest, WritesThroughASymbolicLink) {
  write_file(target_, "before");
  fs::create_symlink("target", scratch_.path() / "link");
  write_text_file(scratch_.path() / "link", "after");
  EXPECT_TRUE(fs::is_symlink(scratch_.path() / "link"));
  EXPECT_EQ(read_file(target_), "after");
  fs::create_symlink("nowhere", scratch_.path() / "dangling");
  expect_contains(message_of<FileError>([&] { AtomicFile(scratch_.path() / "dangling"); }), "leads nowhere");
}

TEST_F(AtomicFileTest, TwoWritersOfOneTargetDoNotMix) {
  AtomicFile first(target_);
  AtomicFile second(target_);
  first.write("first");
  second.write("second");
  second.commit();
  first.commit();
  EXPECT_EQ(read_file(target_), "first");
}

TEST_F(AtomicFileTest, ExpectingMoreThanIsWrittenLeavesNoExcess) {
  AtomicFile file(target_, 1 << 20);
  file.write("short");
  file.commit();
  struct stat status {};
  ASSERT_EQ(stat(target_.c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 5);
  EXPECT_LT(status.st_blocks * 512, 1 << 20);
}

TEST_F(AtomicFileTest, LongNamesWork) {
  const fs::path path = scratch_.path() / std::string(255, 'n');
  write_text_file(path, "text");
  EXPECT_EQ(read_file(path), "text");
}

TEST_F(AtomicFileTest, ARelativeNameMeansTheCurrentDirectory) {
  const fs::path before = fs::current_path();
  fs::current_path(scratch_.path());
  write_text_file("plain", "text");
  fs::current_path(before);
  EXPECT_EQ(read_file(scratch_.path() / "plain"), "text");
}

TEST_F(AtomicFileTest, RefusesTargetsThatCannotBeWritten) {
  const fs::path inside_nothing = scratch_.path() / "no" / "such" / "target";
  const std::string message = message_of<FileError>([&] { AtomicFile{inside_nothing}; });
  expect_contains(message, inside_nothing.string());
  expect_contains(message, "No such file or directory");
  EXPECT_NE(message_of<FileError>([] { AtomicFile("/proc/caravan"); }), "");
  write_file(scratch_.path() / "file", "");
  expect_contains(message_of<FileError>([&] { AtomicFile(scratch_.path() / "file" / "x"); }), "Not a directory");
  expect_contains(message_of<FileError>([&] { AtomicFile{scratch_.path()}; }), "is a directory");
  expect_contains(message_of<FileError>([] { AtomicFile("/dev/null"); }), "a device or pipe");
  for (const char* name : {"", ".", "..", "/", "a/.."}) {
    expect_contains(message_of<FileError>([&] { AtomicFile{fs::path(name)}; }), "names no file");
  }
}

TEST_F(AtomicFileTest, AsksForSpaceBeforeTheFirstByte) {
  write_file(target_, "before");
  const std::string message = message_of<FileError>([&] { AtomicFile(target_, std::int64_t{1} << 60); });
  expect_contains(message, "needs 1,152,921,504,606,846,976 bytes");
  expect_contains(message, "nothing was written");
  EXPECT_EQ(read_file(target_), "before");
  EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
}

// From now on this system call fails with `code` in this process, as it may on other kernels and file systems.
bool refuse_system_call(int number, int code) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(code)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{4, program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

void limit_file_size(rlim_t bytes) {
  const rlimit limit{bytes, bytes};
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, SIG_IGN);
}

TEST_F(AtomicFileTest, AShortWriteIsAnErrorThatNamesTheOffset) {
  write_file(target_, "before");
  const std::string message = in_child([&] {
    limit_file_size(10000);
    AtomicFile file(target_);
    file.write(std::string(8000, 'x'));
    try {
      file.write(std::string(8000, 'y'));  // 2,000 bytes go in, the rest is refused
    } catch (const FileError& error) {
      const std::string left = message_of<FileError>([&] { file.commit(); });
      return std::string(error.what()) + "|" + left;
    }
    return std::string("no error");
  });
  expect_contains(message, target_.string() + ": writing stopped at byte 10,000");
  expect_contains(message, "File too large");
  expect_contains(message, ": no longer open");
  EXPECT_EQ(read_file(target_), "before");
  EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
}

TEST_F(AtomicFileTest, ASpaceThatIsRefusedLeavesNothing) {
  const std::string message = in_child([&] {
    if (!refuse_system_call(SYS_fallocate, ENOSPC)) {
      return std::string("no filter");
    }
    AtomicFile file(target_, 20000);
    return std::string("no error");
  });
  if (message == "no filter") {
    GTEST_SKIP() << "this system allows no seccomp filters";
  }
  expect_contains(message, target_.string() + ": needs 20,000 bytes, nothing was written: No space left on device");
  EXPECT_TRUE(names_in(scratch_.path()).empty());
}

TEST_F(AtomicFileTest, AFileSystemThatCannotPromiseBlocksIsWrittenAllTheSame) {
  const std::string message = in_child([&] {
    if (!refuse_system_call(SYS_fallocate, EOPNOTSUPP)) {
      return std::string("no filter");
    }
    write_text_file(target_, "text");
    return std::string("done");
  });
  if (message == "no filter") {
    GTEST_SKIP() << "this system allows no seccomp filters";
  }
  EXPECT_EQ(message, "done");
  EXPECT_EQ(read_file(target_), "text");
}

TEST_F(AtomicFileTest, AnFsyncThatFailsKeepsTheFormerFile) {
  write_file(target_, "before");
  const std::string message = in_child([&] {
    if (!refuse_system_call(SYS_fsync, EIO)) {
      return std::string("no filter");
    }
    write_text_file(target_, "after");
    return std::string("no error");
  });
  if (message == "no filter") {
    GTEST_SKIP() << "this system allows no seccomp filters";
  }
  expect_contains(message, target_.string() + ": could not be made durable: Input/output error");
  EXPECT_EQ(read_file(target_), "before");
  EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
}

TEST_F(AtomicFileTest, ACommitThatFailsLeavesNothing) {
  AtomicFile file(target_);
  file.write("text");
  fs::create_directories(target_ / "in the way");
  const std::string message = message_of<FileError>([&] { file.commit(); });
  expect_contains(message, target_.string() + ": cannot be replaced");
  EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
  EXPECT_TRUE(fs::exists(target_ / "in the way"));
  expect_contains(message_of<FileError>([&] { file.commit(); }), "no longer open");
}

TEST_F(AtomicFileTest, CommitsOnce) {
  AtomicFile file(target_);
  file.commit();
  EXPECT_NE(message_of<FileError>([&] { file.commit(); }), "");
  EXPECT_NE(message_of<FileError>([&] { file.write("more"); }), "");
  EXPECT_EQ(read_file(target_), "");
}

TEST_F(AtomicFileTest, NoDescriptorStaysOpen) {
  const std::size_t before = names_in("/proc/self/fd").size();
  write_text_file(target_, "text");
  { AtomicFile file(target_); }
  EXPECT_NE(message_of<FileError>([&] { AtomicFile(target_, std::int64_t{1} << 60); }), "");
  EXPECT_EQ(names_in("/proc/self/fd").size(), before);
}

class AtomicDirectoryTest : public testing::Test {
 protected:
  void put_old_target() {
    fs::create_directories(target_ / "sub");
    write_file(target_ / "old", "old");
    write_file(target_ / "sub" / "old", "old");
  }
  static void fill(const AtomicDirectory& directory) {
    write_file(directory.path() / "a", "1");
    fs::create_directories(directory.path() / "sub");
    write_file(directory.path() / "sub" / "b", "2");
    fs::create_symlink("a", directory.path() / "link");
    fs::create_symlink("nowhere", directory.path() / "dangling");
  }
  void expect_new() {
    EXPECT_EQ(names_in(target_), (Names{"a", "dangling", "link", "sub"}));
    EXPECT_EQ(read_file(target_ / "a"), "1");
    EXPECT_EQ(read_file(target_ / "sub" / "b"), "2");
    EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
  }
  void expect_old() {
    EXPECT_EQ(names_in(target_), (Names{"old", "sub"}));
    EXPECT_EQ(read_file(target_ / "sub" / "old"), "old");
    EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
  }

  test::ScratchDirectory scratch_;
  fs::path target_ = scratch_.path() / "target";
};

TEST_F(AtomicDirectoryTest, AppearsOnlyWithCommit) {
  AtomicDirectory directory(target_, false, 100);
  fill(directory);
  EXPECT_FALSE(fs::exists(target_));
  EXPECT_EQ(directory.path().parent_path(), scratch_.path());
  EXPECT_EQ(directory.path().filename().string()[0], '.');
  directory.commit();
  expect_new();
  EXPECT_NE(message_of<FileError>([&] { directory.commit(); }), "");
  expect_new();
}

TEST_F(AtomicDirectoryTest, WithoutCommitEverythingIsAsItWas) {
  put_old_target();
  {
    AtomicDirectory directory(target_, true, 0);
    fill(directory);
  }
  expect_old();
}

TEST_F(AtomicDirectoryTest, ReplacesOnlyWhenAsked) {
  put_old_target();
  expect_contains(message_of<FileError>([&] { AtomicDirectory(target_, false, 0); }), "exists already");
  expect_old();
  AtomicDirectory directory(target_, true, 0);
  fill(directory);
  directory.commit();
  expect_new();
}

TEST_F(AtomicDirectoryTest, ATrailingSlashAndALinkMeanTheDirectory) {
  put_old_target();
  fs::create_directory_symlink("target", scratch_.path() / "link");
  AtomicDirectory directory(scratch_.path() / "link" / "", true, 0);
  fill(directory);
  directory.commit();
  EXPECT_TRUE(fs::is_symlink(scratch_.path() / "link"));
  fs::remove(scratch_.path() / "link");
  expect_new();
}

TEST_F(AtomicDirectoryTest, ATargetThatAppearsMeanwhileIsNotReplaced) {
  AtomicDirectory directory(target_, false, 0);
  fill(directory);
  put_old_target();
  const std::string message = message_of<FileError>([&] { directory.commit(); });
  expect_contains(message, target_.string() + ": cannot be put in place: File exists");
  fs::path staged = directory.path();
  EXPECT_TRUE(fs::exists(staged));  // until the object goes, the work is not lost
}

TEST_F(AtomicDirectoryTest, NotEvenAnEmptyDirectoryIsReplacedUnasked) {
  {
    AtomicDirectory directory(target_, false, 0);
    fill(directory);
    fs::create_directory(target_);
    EXPECT_NE(message_of<FileError>([&] { directory.commit(); }), "");
  }
  EXPECT_TRUE(fs::is_empty(target_));
  EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
}

TEST_F(AtomicDirectoryTest, RefusesTargetsThatCannotBeWritten) {
  expect_contains(message_of<FileError>([&] { AtomicDirectory(scratch_.path() / "no" / "x", true, 0); }),
                  "No such file or directory");
  EXPECT_NE(message_of<FileError>([] { AtomicDirectory("/proc/caravan", false, 0); }), "");
  write_file(target_, "a file");
  expect_contains(message_of<FileError>([&] { AtomicDirectory(target_, true, 0); }), "is a file");
  EXPECT_EQ(read_file(target_), "a file");
  for (const char* name : {"", ".", "..", "/"}) {
    expect_contains(message_of<FileError>([&] { AtomicDirectory(name, true, 0); }), "names no file");
  }
  expect_contains(message_of<FileError>([&] { AtomicDirectory(scratch_.path() / "y", false, std::int64_t{1} << 60); }),
                  "nothing was written");
  EXPECT_EQ(names_in(scratch_.path()), Names{"target"});
}

TEST_F(AtomicDirectoryTest, AStagedDirectoryThatVanishedIsAnError) {
  put_old_target();
  AtomicDirectory directory(target_, true, 0);
  fs::remove_all(directory.path());
  EXPECT_NE(message_of<FileError>([&] { directory.commit(); }), "");
  expect_old();
}

TEST_F(AtomicDirectoryTest, WorksWhereTheSystemCannotExchange) {
  const auto commit = [&](bool replace) {
    return in_child([&] {
      if (!refuse_system_call(SYS_renameat2, ENOSYS)) {
        return std::string("no filter");
      }
      AtomicDirectory directory(target_, replace, 0);
      fill(directory);
      directory.commit();
      return std::string("done");
    });
  };
  const std::string answer = commit(false);
  if (answer == "no filter") {
    GTEST_SKIP() << "this system allows no seccomp filters";
  }
  EXPECT_EQ(answer, "done");
  expect_new();
  fs::remove_all(target_);
  put_old_target();
  EXPECT_EQ(commit(true), "done");
  expect_new();
}

TEST_F(AtomicDirectoryTest, WithoutExchangeATargetThatAppearsIsNotReplacedUnasked) {
  const std::string answer = in_child([&] {
    if (!refuse_system_call(SYS_renameat2, ENOSYS)) {
      return std::string("no filter");
    }
    AtomicDirectory directory(target_, false, 0);
    fill(directory);
    put_old_target();
    return message_of<FileError>([&] { directory.commit(); });
  });
  if (answer == "no filter") {
    GTEST_SKIP() << "this system allows no seccomp filters";
  }
  expect_contains(answer, "File exists");
  expect_old();
}

TEST(FreeSpace, AsksTheNearestExistingParent) {
  const test::ScratchDirectory scratch;
  EXPECT_GT(free_space(scratch.path()), 0);
  EXPECT_GT(free_space(scratch.path() / "not" / "yet" / "there"), 0);
  EXPECT_GT(free_space("surely-not-here/x"), 0);
}

}  // namespace
}  // namespace caravan
