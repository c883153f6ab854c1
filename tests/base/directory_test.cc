#include "caravan/base/directory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

using Names = std::vector<std::string>;

Names sorted_names(const fs::path& directory) {
  Names names = names_in(directory);
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Directory, ListsNamesAndNothingWhereItIsMissing) {
  const test::ScratchDirectory scratch;
  fs::create_directory(scratch.path() / "b");
  test::write_file(scratch.path() / ".a", "");
  EXPECT_EQ(sorted_names(scratch.path()), (Names{".a", "b"}));
  EXPECT_EQ(names_in(scratch.path() / "no"), Names{});
  EXPECT_THROW(names_in(scratch.path() / ".a"), FileError);
}

TEST(Directory, TreesGoWithoutWhatLinksLeadTo) {
  const test::ScratchDirectory scratch;
  fs::create_directories(scratch.path() / "tree" / "deep" / "deeper");
  test::write_file(scratch.path() / "tree" / "deep" / "file", "1");
  test::write_file(scratch.path() / "kept", "2");
  fs::create_symlink(scratch.path() / "kept", scratch.path() / "tree" / "link");
  fs::create_directory_symlink(scratch.path(), scratch.path() / "tree" / "deep" / "up");
  remove_tree(scratch.path() / "tree");
  EXPECT_EQ(sorted_names(scratch.path()), Names{"kept"});
  remove_tree(scratch.path() / "tree");  // nothing there is no error
  EXPECT_THROW(remove_tree("/proc/self/status"), FileError);
}

TEST(DirectoryLock, IsOneHoldersUntilItGoes) {
  const test::ScratchDirectory scratch;
  std::optional<DirectoryLock> first = DirectoryLock::take(scratch.path());
  ASSERT_TRUE(first);
  EXPECT_FALSE(DirectoryLock::take(scratch.path()));
  std::optional<DirectoryLock> moved(std::move(first));
  first.reset();
  EXPECT_FALSE(DirectoryLock::take(scratch.path()));
  moved.reset();
  EXPECT_TRUE(DirectoryLock::take(scratch.path()));
  EXPECT_THROW(DirectoryLock::take(scratch.path() / "no"), FileError);
}

TEST(Directory, StaleStagingOfDeadProcessesGoesAndNothingElse) {
  const test::ScratchDirectory scratch;
  const auto staged = [](const std::string& name, pid_t process) {
    return "." + name + "." + std::to_string(process) + ".3.partial";
  };
  constexpr pid_t kNone = 0x7ffffff0;  // beyond the kernel's largest
  fs::create_directory(scratch.path() / staged("model", kNone));
  test::write_file(scratch.path() / staged("model", kNone) / "config.json", "{}");
  test::write_file(scratch.path() / staged("metrics.jsonl", kNone), "");
  test::write_file(scratch.path() / staged("own", getpid()), "");
  const Names stay = {staged("init", 1),          ".mine.partial",
                      ".x.1a.3.partial",          ".model.7.partial",
                      "a.2147483632.3.partial",   ".a.2147483632.3.partial.gz",
                      ".a.2147483632.-3.partial", "model"};
  for (const std::string& name : stay) {
    test::write_file(scratch.path() / name, "");
  }
  remove_stale_staging(scratch.path());
  Names expected = stay;
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(sorted_names(scratch.path()), expected);
  remove_stale_staging(scratch.path() / "no");
}

}  // namespace
}  // namespace caravan
